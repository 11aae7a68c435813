package httpapi

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn/apnstest"
)

// fakeConn is a connection that only notes that it is closed.
type fakeConn struct {
	net.Conn
	addr   string
	closed bool
}

func (f *fakeConn) Close() error {
	f.closed = true
	return nil
}
func (f *fakeConn) RemoteAddr() net.Addr { return fakeAddr(f.addr) }

type fakeAddr string

func (fakeAddr) Network() string  { return "tcp" }
func (f fakeAddr) String() string { return string(f) }

// knownConns opens connections and says who has shown a key.
type knownConns struct {
	*conns
	ctx map[*fakeConn]context.Context
}

func newKnownConns(max, each int) *knownConns {
	shared := func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.1") }
	return &knownConns{newConns(max, each, shared), make(map[*fakeConn]context.Context)}
}

func (k *knownConns) dial(addr string) *fakeConn {
	f := &fakeConn{addr: addr}
	k.ctx[f] = k.begin(context.Background(), f)
	k.changed(f, http.StateNew)
	return f
}

func (k *knownConns) ask(f *fakeConn, withKey bool) *fakeConn {
	k.changed(f, http.StateActive)
	if withKey {
		known(new(http.Request).WithContext(k.ctx[f]))
	}
	return f
}

// One connection too many takes the place of the one that is missed least, and
// has to go where all have a request of somebody who is known.
func TestConns(t *testing.T) {
	t.Parallel()
	k := newKnownConns(16, 16)
	for i := range 11 { // no stranger's, and in use
		k.ask(k.dial(fmt.Sprintf("198.51.100.%d:1", i)), true)
	}
	admin := k.ask(k.dial("192.0.2.1:1"), true)
	stranger := k.ask(k.dial("192.0.2.2:1"), false)
	idle := k.ask(k.dial("192.0.2.3:1"), true)
	k.changed(idle, http.StateIdle)
	silent := k.dial("192.0.2.4:1")
	later := k.dial("192.0.2.5:1")
	for i, least := range []*fakeConn{silent, later, idle, stranger} {
		if least.closed {
			t.Errorf("%d was closed too early", i)
		}
		if newer := k.ask(k.dial(fmt.Sprintf("192.0.2.%d:1", i+10)), true); !least.closed || newer.closed || admin.closed {
			t.Errorf("%d was not closed", i)
		}
	}
	if last := k.dial("192.0.2.20:1"); !last.closed || admin.closed || len(k.open) != 16 || k.strangers != 0 {
		t.Errorf("with all in use: the new one closed %t, %d are open", last.closed, len(k.open))
	}
	k.changed(silent, http.StateClosed) // as the server finds out
	if k.changed(admin, http.StateClosed); len(k.open) != 15 || len(k.from) != 15 {
		t.Errorf("%d are open, of %d addresses", len(k.open), len(k.from))
	}
}

// Strangers have a quarter of the connections, and take none of those who have
// shown a key.
func TestConnsOfStrangers(t *testing.T) {
	t.Parallel()
	k := newKnownConns(16, 16)
	idle := k.ask(k.dial("192.0.2.1:1"), true)
	k.changed(idle, http.StateIdle)
	var all []*fakeConn
	for i := range 6 {
		all = append(all, k.ask(k.dial(fmt.Sprintf("192.0.2.%d:1", i+2)), false))
	}
	for i, one := range all {
		if one.closed != (i < 2) {
			t.Errorf("%d: closed %t", i, one.closed)
		}
	}
	if idle.closed || k.strangers != 4 || len(k.open) != 5 {
		t.Errorf("idle closed %t, %d of strangers, %d are open", idle.closed, k.strangers, len(k.open))
	}
	k.ask(all[5], true)
	k.ask(all[0], true) // which has gone
	if k.changed(all[4], http.StateClosed); k.strangers != 2 || len(k.open) != 4 {
		t.Errorf("%d of strangers, %d are open", k.strangers, len(k.open))
	}
}

// One address has its share; those that stand for many have not.
func TestConnsOfOneAddress(t *testing.T) {
	t.Parallel()
	k := newKnownConns(100, 2)
	other := k.dial("192.0.2.9:1")
	first := k.dial("[2001:db8::1]:1")
	second := k.ask(k.dial("[2001:db8::2]:1"), true)
	third := k.dial("[2001:db8::3]:1") // of the same network
	if !first.closed || second.closed || third.closed || other.closed {
		t.Error("not the first of the address was closed")
	}
	k.ask(third, true)
	if fourth := k.dial("[2001:db8::4]:1"); !fourth.closed || second.closed || third.closed {
		t.Error("not the new one was closed")
	}
	for _, addr := range []string{"127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "10.0.0.1:1", "@"} {
		for range 3 {
			if k.dial(addr).closed {
				t.Errorf("%s is bounded", addr)
			}
		}
	}
}

// To cut a connection whose peer reads nothing takes no time.
func TestConnsCutTLS(t *testing.T) {
	t.Parallel()
	apns, err := apnstest.Start(apnstest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer apns.Close()
	pem := apns.ClientCertPEM("x")
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		server := tls.Server(here, &tls.Config{Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true})
		client := tls.Client(there, &tls.Config{InsecureSkipVerify: true})
		var shaking sync.WaitGroup
		shaking.Go(func() {
			if err := client.Handshake(); err != nil {
				t.Error(err)
			}
		})
		if err := server.Handshake(); err != nil {
			t.Fatal(err)
		}
		shaking.Wait()
		began := time.Now()
		cut(server)
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
		if _, err := there.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the peer sees %v", err)
		}
	})
}

// Strangers who hold every connection shut nobody out, whatever they have sent;
// whoever has shown a key keeps theirs.
func TestFullServer(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"nothing": "", "half a head": "GET / HTTP/1.1\r\n", "a head without a key": "POST /v1/lint HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"a part of a form": "POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := NewWeb(Web{Listen: "127.0.0.1:0"}, quiet)
			if err != nil {
				t.Fatal(err)
			}
			s.most = 20
			api := New(new(fakeTree), Options{})
			api.Use(Settings{Keys: testKeys})
			s.Answer(api.Network())
			addr := s.Addr().String()
			run(t, s)
			keyed, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer keyed.Close()
			if _, err := io.WriteString(keyed, "POST /v1/lint HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sender-0123\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			read := func(want string) {
				t.Helper()
				got := make([]byte, len(want))
				if _, err := io.ReadFull(keyed, got); err != nil || string(got) != want {
					t.Errorf("whoever has a key gets %q, %v", got, err)
				}
			}
			read("HTTP/1.1 100 Continue\r\n\r\n") // now it is known
			for range 3 * s.most {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, begin) // it may have been cut
			}
			for range 3 {
				client := newClient(t)
				resp, err := client.Get("http://" + addr + "/healthz")
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				client.CloseIdleConnections()
			}
			if _, err := io.WriteString(keyed, "{}"); err != nil {
				t.Fatal(err)
			}
			read("HTTP/1.1 200")
		})
	}
}

// Over HTTP/2, too, a key is one for its connection.
func TestKnownOverHTTP2(t *testing.T) {
	t.Parallel()
	addr := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known(r)
		if h, _ := r.Context().Value(heldKey{}).(*held); r.ProtoMajor != 2 || h == nil || !h.known.Load() {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	client := newClient(t)
	tr := client.Transport.(*http.Transport)
	tr.ForceAttemptHTTP2, tr.TLSClientConfig = true, &tls.Config{InsecureSkipVerify: true} // its name is no host's
	resp, err := client.Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}
