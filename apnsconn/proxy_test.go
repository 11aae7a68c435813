package apnsconn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

// password has every character that a URL must escape.
const password = "hunter2:/?#@%[]& "

func login(proxy *url.URL, user, password string) *url.URL {
	u := *proxy
	u.User = url.UserPassword(user, password)
	return &u
}

// tlsProxy is the certificate of a proxy, and a pool for it and for s.
func tlsProxy(t *testing.T, s *apnstest.Server) (*tls.Config, *x509.CertPool) {
	t.Helper()
	cert, _ := selfSigned(t)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool := s.CertPool().Clone()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{cert}}, pool
}

// The name of the server is for the proxy to look up, and nothing but the
// CONNECT is for its eyes.
func TestProxyTunnel(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{Hosts: []string{"apns.invalid"}, ClientCert: apnstest.ClientCertRequired})
	cert := s.ClientCert("com.example.app")
	config, pool := tlsProxy(t, s)
	for name, tt := range map[string]struct {
		config *tls.Config
		user   *url.Userinfo
		want   string // of the header
	}{
		"plain":                {nil, nil, ""},
		"TLS":                  {config, nil, ""},
		"plain, with password": {nil, url.UserPassword("me", password), "Basic bWU6aHVudGVyMjovPyNAJVtdJiA="},
		"TLS, with password":   {config, url.UserPassword("me", password), "Basic bWU6aHVudGVyMjovPyNAJVtdJiA="},
		"user alone":           {nil, url.User("me"), "Basic bWU6"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, tt.config, func(p *testProxy) {
				p.lookup = map[string]string{"apns.invalid:2197": s.Addr}
				p.login = tt.want
			})
			p.url.User = tt.user
			proxy, err := ParseProxy(p.url.String())
			if err != nil {
				t.Fatal(err)
			}
			c, err := Dial(t.Context(), Config{Addr: "apns.invalid:2197", Proxy: proxy, RootCAs: pool, Certificate: &cert})
			if err != nil {
				t.Fatal(err)
			}
			o := newOutcomes(t)
			n := testPush()
			n.Payload = body(4000)
			for i := range 200 { // more than fits the windows of one round
				c.Send(n, o.done(i))
			}
			if err := waitFor(within(t), func() bool { return o.counts()[Delivered] == 200 }); err != nil {
				t.Error(o.counts())
			}
			if err := c.Drain(within(t)); err != nil {
				t.Error(err)
			}
			asked := p.requests()
			if len(asked) != 1 || asked[0].Method != "CONNECT" || asked[0].RequestURI != "apns.invalid:2197" || asked[0].Host != "apns.invalid:2197" {
				t.Fatalf("asked %v", asked)
			}
			if got := asked[0].Header.Get("Proxy-Authorization"); got != tt.want {
				t.Errorf("Proxy-Authorization %q", got)
			}
		})
	}
	for _, r := range s.Requests() {
		if got := r.Header.Get(":authority"); got != "apns.invalid:2197" {
			t.Errorf("authority %q", got)
		}
	}
}

// say makes a proxy that answers with text, and then waits for the client to go.
func say(text string) func(*testProxy) {
	return func(p *testProxy) {
		p.answer = func(nc net.Conn) {
			io.WriteString(nc, text)
			io.Copy(io.Discard, nc)
		}
	}
}

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer string
		login  bool
		want   string
	}{
		"wants a password":    {"HTTP/1.1 407 x\r\n\r\n", false, "proxy: CONNECT: refused with status 407 Proxy Authentication Required: put user and password into its URL"},
		"another password":    {"HTTP/1.1 407 x\r\n\r\n", true, "refused with status 407 Proxy Authentication Required: the proxy does not accept the user and password of its URL"},
		"forbidden":           {"HTTP/1.1 403 " + password + "\r\nContent-Length: 1000000\r\n\r\n", true, "refused with status 403 Forbidden"},
		"bad gateway":         {"HTTP/1.0 502 Bad Gateway\r\n\r\nno route", false, "refused with status 502 Bad Gateway"},
		"redirect":            {"HTTP/1.1 302 Found\r\nLocation: https://login\r\n\r\n", false, "refused with status 302 Found"},
		"unknown status":      {"HTTP/1.1 799 \r\n\r\n", false, "refused with status 799"},
		"switches protocols":  {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", false, "refused with status 101"},
		"interim, then no":    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 no\r\n\r\n", false, "refused with status 403 Forbidden"},
		"endless interim":     {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 7), false, "too many interim answers"},
		"not HTTP":            {"SSH-2.0-" + password + "\r\n\r\n", true, "the answer is not HTTP/1: is it a proxy?"},
		"binary":              {"\x15\x03\x01\x00\x02\x02\x46\r\n", false, "the answer is not HTTP/1"},
		"bad header":          {"HTTP/1.1 200 OK\r\nfor hunter2\r\n\r\n", true, "the answer is not HTTP/1"},
		"header without end":  {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 20<<10), false, "the answer's head is longer than 16 KiB"},
		"headers without end": {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: x\r\n", 5<<10), false, "the answer's head is longer than 16 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, nil, say(tt.answer))
			proxy := p.url
			if tt.login {
				proxy = login(p.url, "me", password)
			}
			_, err := Dial(t.Context(), Config{Addr: "apns.invalid:443", Proxy: proxy})
			checkProxyError(t, err, `apnsconn: dial "apns.invalid:443" through http://`+p.url.Host, tt.want)
		})
	}
}

func checkProxyError(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v, want %q in it", err, w)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "bWU6") {
		t.Errorf("the error holds the password: %v", err)
	}
	if errors.Is(err, ErrCredential) {
		t.Errorf("%v is no refusal of the credential", err)
	}
}

func TestProxyHangs(t *testing.T) {
	t.Parallel()
	cert, pool := selfSigned(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	for name, tt := range map[string]struct {
		config *tls.Config
		change func(*testProxy)
		want   string
	}{
		"silent":                {nil, say(""), "proxy: CONNECT: not ready within 300ms"},
		"silent, TLS":           {config, say(""), "proxy: CONNECT: not ready within 300ms"},
		"half an answer":        {nil, say("HTTP/1.1 200 OK\r\nVia: x"), "proxy: CONNECT: not ready within 300ms"},
		"tunnel to nobody":      {nil, say("HTTP/1.1 200 OK\r\n\r\n"), "TLS handshake: not ready within 300ms"},
		"tunnel to nobody, TLS": {config, say("HTTP/1.1 200 OK\r\n\r\n"), "TLS handshake: not ready within 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, tt.config, tt.change)
			_, err := Dial(t.Context(), Config{Addr: "apns.invalid:443", Proxy: p.url, RootCAs: pool, DialTimeout: 300 * time.Millisecond})
			checkProxyError(t, err, tt.want)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no deadline's", err)
			}
		})
	}
	t.Run("in its handshake", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0") // connects, and nobody accepts
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		proxy := &url.URL{Scheme: "https", Host: l.Addr().String()}
		_, err = Dial(t.Context(), Config{Addr: "apns.invalid:443", Proxy: proxy, DialTimeout: 300 * time.Millisecond})
		checkProxyError(t, err, "proxy: TLS handshake: not ready within 300ms")
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		p := startProxy(t, nil, func(p *testProxy) {
			p.answer = func(nc net.Conn) { cancel(); io.Copy(io.Discard, nc) }
		})
		_, err := Dial(ctx, Config{Addr: "apns.invalid:443", Proxy: p.url})
		checkProxyError(t, err, "proxy: CONNECT: context canceled")
	})
}

func TestProxyGone(t *testing.T) {
	t.Parallel()
	p := startProxy(t, nil, func(p *testProxy) { p.answer = func(net.Conn) {} })
	_, err := Dial(t.Context(), Config{Addr: "apns.invalid:443", Proxy: login(p.url, "me", password)})
	checkProxyError(t, err, "proxy: CONNECT: the proxy closed the connection before its answer")
	p.l.Close()
	_, err = Dial(t.Context(), Config{Addr: "apns.invalid:443", Proxy: login(p.url, "me", password)})
	checkProxyError(t, err, "proxy: connect: ")
	_, err = Dial(t.Context(), Config{Addr: "apns.invalid\r\nX: y:443", Proxy: login(p.url, "me", password)})
	checkProxyError(t, err, "")
}

// What the proxy has against this side is no refusal of the app's credential,
// and what APNs has is.
func TestProxyAndCredential(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
			config, pool := tlsProxy(t, s)
			config.MinVersion, config.MaxVersion = version, version
			strict := config.Clone()
			strict.ClientAuth = tls.RequireAnyClientCert
			cert := s.ClientCert("com.example.app")

			p := startProxy(t, strict, nil)
			_, err := Dial(t.Context(), Config{Addr: s.Addr, Proxy: p.url, RootCAs: pool, Certificate: &cert})
			checkProxyError(t, err, "proxy: ", "remote error: tls: ")

			p = startProxy(t, config, nil)
			_, err = Dial(t.Context(), Config{Addr: s.Addr, Proxy: p.url, RootCAs: s.CertPool(), Certificate: &cert})
			checkProxyError(t, err, "proxy: TLS handshake: ")
			if !errors.As(err, new(x509.UnknownAuthorityError)) {
				t.Errorf("%v is not of an unknown authority", err)
			}

			bad := s.ClientCert("com.example.app", apnstest.SelfSigned())
			_, err = Dial(t.Context(), Config{Addr: s.Addr, Proxy: p.url, RootCAs: pool, Certificate: &bad})
			if !errors.Is(err, ErrCredential) {
				t.Errorf("%v is no refusal of the credential", err)
			}
		})
	}
}

// Whatever the far end says at once is not lost with the proxy's answer.
func TestProxyEarlyBytes(t *testing.T) {
	t.Parallel()
	const early = "\x00\x00\x00\x04early"
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", // RFC 9110 §9.3.6: ignored
		"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	} {
		for _, rest := range []string{"", strings.Repeat("x", 10_000)} {
			p := startProxy(t, nil, func(p *testProxy) {
				p.answer = func(nc net.Conn) { io.WriteString(nc, head+early+rest) }
			})
			nc, raw, err := connect(t.Context(), Config{Addr: "apns.invalid:443", Proxy: p.url}.withDefaults())
			if err != nil {
				t.Errorf("%q: %v", head, err)
				continue
			}
			got, err := io.ReadAll(nc)
			if string(got) != early+rest || err != nil {
				t.Errorf("%q: %d bytes, %v; want %d", head, len(got), err, len(early+rest))
			}
			raw.Close()
		}
	}
}

func TestProxyDies(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{AllowAnonymous: true, Script: apnstest.Always(apnstest.Answer{Delay: time.Minute})})
	config, pool := tlsProxy(t, s)
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": config} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, config, nil)
			c, err := Dial(t.Context(), Config{Addr: s.Addr, Proxy: p.url, RootCAs: pool})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			before := s.Count()
			o := newOutcomes(t)
			c.Send(testPush(), o.done(0))
			if err := waitFor(within(t), func() bool { return s.Count() > before }); err != nil {
				t.Fatal(err)
			}
			p.cut()
			<-c.Done()
			if got := o.get(0); got.Class != Unknown || errors.Is(c.Err(), ErrCredential) {
				t.Errorf("%+v, %v", got, c.Err())
			}
		})
	}
}

func TestParseProxy(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"http://proxy", "http://proxy:3128", "https://proxy:443/", "http://127.0.0.1:1", "http://[::1]:3128",
		"HTTP://proxy", "http://me@proxy", "http://me:@proxy", "http://me:hunter2%40%2F@proxy:65535", "http://:hunter2@proxy",
	} {
		u, err := ParseProxy(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		cfg := Config{Addr: "a:443", Proxy: u}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if out := fmt.Sprintf(verb, cfg); strings.Contains(out, "hunter2") || strings.Contains(out, fmt.Sprintf("%x", "hunter2")) {
				t.Errorf("%s shows %s", verb, out)
			}
		}
	}
	if got := (Config{Addr: "a:443", Proxy: login(&url.URL{Scheme: "http", Host: "p:1"}, "me", password)}).String(); got != "apnsconn.Config{a:443 through http://p:1}" {
		t.Error(got)
	}
	for text, want := range map[string]string{
		"": "want http://host:port", "proxy": "want http://host:port", "proxy:3128": "want http://host:port",
		"socks5://me:hunter2@proxy": "other kinds", "ftp://proxy": "other kinds", "http://": "host is missing", "http://me:hunter2@": "host is missing",
		"http://:3128": "host is missing", "http://me:hunter2@proxy/path": "nothing after it", "http://proxy?": "nothing after it", "http://proxy?hunter2": "nothing after it",
		"http://proxy#hunter2": "nothing after it", "http://me:hunter2@proxy:0": "port", "http://proxy:65536": "port", "http://me:hunter2@proxy:x": "not a URL",
		"http://me:hunter2/@proxy": "not a URL", "http://me:hunter2%@proxy": "not a URL", "http://a b": "not a URL", "http://me%3Ax:hunter2@proxy": "colon",
	} {
		u, err := ParseProxy(text)
		if err == nil || u != nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "apnsconn: proxy: ") {
			t.Errorf("%q: %v, %v; want %q", text, u, err, want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
	_, err := Dial(t.Context(), Config{Addr: "a:443", Proxy: &url.URL{Scheme: "socks5", Host: "p:1"}})
	checkProxyError(t, err, "other kinds of proxies")
}

// FuzzProxyAnswer: whatever a proxy sends, what is taken for the far end's is
// the end of it, and the beginning was an answer of status 2xx.
func FuzzProxyAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\n\r\nabc", "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n", "HTTP/1.1 100 \r\n\r\nHTTP/1.0 204 x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "\r\n", "",
	} {
		f.Add([]byte(s))
	}
	cfg := Config{Addr: "apns.invalid:443", Proxy: login(&url.URL{Scheme: "http", Host: "p:1"}, "me", password)}
	f.Fuzz(func(t *testing.T, answer []byte) {
		nc := &cannedConn{in: bytes.NewReader(answer)}
		early, err := askTunnel(nc, cfg)
		req, reqErr := http.ReadRequest(bufio.NewReader(bytes.NewReader(nc.out.Bytes())))
		if reqErr != nil || req.Method != "CONNECT" || req.Host != cfg.Addr {
			t.Fatalf("request %q: %v", nc.out.String(), reqErr)
		}
		if read := len(answer) - nc.in.Len(); read > maxProxyAnswer {
			t.Errorf("read %d bytes", read)
		}
		if err != nil {
			if len(err.Error()) > 200 || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
			return
		}
		rest, _ := io.ReadAll(nc.in)
		if !bytes.HasSuffix(answer, append(early, rest...)) || !bytes.Contains(answer, []byte(" 2")) {
			t.Errorf("%q: early bytes %q", answer, early)
		}
	})
}

// cannedConn is a connection whose other end has said all it will.
type cannedConn struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *cannedConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *cannedConn) Write(p []byte) (int, error) { return c.out.Write(p) }
