package apnsconn

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
)

// testProxy is an HTTP proxy that knows CONNECT and nothing else.
type testProxy struct {
	t      *testing.T
	l      net.Listener
	url    *url.URL
	lookup map[string]string // addresses that only the proxy knows
	login  string            // the Proxy-Authorization it wants; "" for none
	answer func(net.Conn)    // in place of a tunnel, for proxies that do not work

	goroutines sync.WaitGroup
	mu         sync.Mutex
	closed     bool
	conns      map[net.Conn]struct{}
	asked      []*http.Request
}

// startProxy starts a proxy; with a config the way to it is TLS.
func startProxy(t *testing.T, config *tls.Config, change func(*testProxy)) *testProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &testProxy{t: t, conns: make(map[net.Conn]struct{}), url: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	if config != nil {
		l = tls.NewListener(l, config)
		p.url.Scheme = "https"
	}
	p.l = l
	if change != nil {
		change(p)
	}
	p.goroutines.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *testProxy) close() {
	p.l.Close()
	p.cut()
	p.goroutines.Wait()
}

// cut closes every connection that goes through the proxy.
func (p *testProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for nc := range p.conns {
		hangUp(nc)
	}
}

// hangUp closes what is beneath TLS, since its Close may wait for the other end.
func hangUp(nc net.Conn) {
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	nc.Close()
}

func (p *testProxy) track(nc net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[nc] = struct{}{}
	if p.closed {
		hangUp(nc)
	}
}

func (p *testProxy) accept() {
	for {
		nc, err := p.l.Accept()
		if err != nil {
			return
		}
		p.track(nc)
		p.goroutines.Go(func() { p.serve(nc) })
	}
}

func (p *testProxy) serve(nc net.Conn) {
	defer hangUp(nc)
	in := bufio.NewReader(nc)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req)
	p.mu.Unlock()
	if p.answer != nil {
		p.answer(nc)
		return
	}
	if p.login != "" && req.Header.Get("Proxy-Authorization") != p.login {
		io.WriteString(nc, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
		return
	}
	addr := req.Host
	if known, ok := p.lookup[addr]; ok {
		addr = known
	}
	far, err := net.Dial("tcp", addr)
	if err != nil {
		io.WriteString(nc, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	p.track(far)
	io.WriteString(nc, "HTTP/1.1 200 Connection established\r\n\r\n")
	p.goroutines.Go(func() {
		io.Copy(nc, far)
		hangUp(nc)
	})
	io.Copy(far, in)
	far.Close()
}

// requests are the CONNECTs it got.
func (p *testProxy) requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*http.Request(nil), p.asked...)
}
