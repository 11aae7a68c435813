package apnsconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Other implementations of HTTP/2 play APNs here: nghttp2's server, Node's
// http2, Go's net/http, and apnstest. Each does it plainly, with windows of few
// bytes, and with frames, stream limit and header table as small as it can be
// told to.

// interopServer is one of them, running.
type interopServer struct {
	addr  string
	roots *x509.CertPool
	cert  *tls.Certificate // what the client shows
	// What the server can do beside answering 200.
	echoes   bool // apns-id
	rejects  bool // tokens that end in dead and 0103
	resets   bool // tokens that end in ef5d and abcd
	goesAway bool // token that ends in 60a1
	wantCert bool // refuses a connection without certificate
}

// manner is how a server treats the client.
type manner struct {
	name       string
	window     int  // of streams, and of the connection if it can be that small; 0: the default
	small      bool // frames, padding, stream limit, header table
	payload    int  // bytes of the largest payload; small where each byte takes a round trip
	pushes     int
	maxStreams uint32
}

func TestInterop(t *testing.T) {
	t.Parallel()
	manners := []manner{
		{name: "plain", payload: 100_000, pushes: 300, maxStreams: 1000},
		{name: "tiny windows", window: 1, payload: 400, pushes: 30, maxStreams: 100},
		{name: "small windows", window: 100, payload: 20_000, pushes: 100, maxStreams: 100},
		{name: "tiny frames", small: true, payload: 100_000, pushes: 100, maxStreams: 2},
	}
	for name, start := range map[string]func(*testing.T, manner) interopServer{
		"nghttpd":  startNghttpd,
		"node":     startNode,
		"net/http": startNetHTTP,
		"apnstest": startStandIn,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, m := range manners {
				t.Run(m.name, func(t *testing.T) {
					t.Parallel()
					interop(t, m, start(t, m))
				})
			}
		})
	}
}

func interop(t *testing.T, m manner, s interopServer) {
	cfg := Config{Addr: s.addr, RootCAs: s.roots, Certificate: s.cert, InFlight: 100, PushTimeout: time.Minute, DialTimeout: time.Minute}
	c := dialInterop(t, cfg)
	c.mu.Lock()
	rules := c.peer
	c.mu.Unlock()
	if rules.maxStreams != m.maxStreams || m.window > 0 && rules.initialWindow >= 2*int64(m.window) {
		t.Errorf("server's rules are %+v: the test does not test", rules)
	}
	manyPushes(t, c, m, s)
	if s.rejects {
		o := c.Push(within(t), interopPush("dead", 30))
		if want := time.UnixMilli(1700000000000); o.Class != Token || o.Reason != "Unregistered" || !o.Since.Equal(want) {
			t.Errorf("410: %+v", o)
		}
		if o := c.Push(within(t), interopPush("0103", 30)); o.Class != Rejected || o.Reason != "BadTopic" {
			t.Errorf("103, 400 and trailers: %+v", o)
		}
	}
	if s.resets {
		if o := c.Push(within(t), interopPush("ef5d", 30)); o.Class != NotSent {
			t.Errorf("REFUSED_STREAM: %+v", o)
		}
		if o := c.Push(within(t), interopPush("abcd", 30)); o.Class != Unknown {
			t.Errorf("INTERNAL_ERROR: %+v", o)
		}
	}
	if !c.Usable() {
		t.Errorf("connection ended: %v", c.Err())
	}
	if s.goesAway {
		goAwayInterop(t, c)
	}
	if err := c.Drain(within(t)); err != nil {
		t.Error(err)
	}
	if s.wantCert {
		cfg.Certificate = nil
		if c, err := Dial(within(t), cfg); err == nil {
			t.Error("no certificate needed")
			c.Close()
		} else if !errors.Is(err, ErrCredential) {
			t.Errorf("without certificate: %v", err)
		}
	}
}

func dialInterop(t *testing.T, cfg Config) *Conn {
	t.Helper()
	c, err := Dial(within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// manyPushes sends pushes of all sizes at once. The servers check that the
// payload arrives as it was sent.
func manyPushes(t *testing.T, c *Conn, m manner, s interopServer) {
	t.Helper()
	type result struct {
		id string
		o  Outcome
	}
	results := make(chan result, m.pushes)
	slots := make(chan struct{}, 100) // Config.InFlight
	for i := range m.pushes {
		size := 30 + i%400
		if i%50 == 0 {
			size = m.payload
		}
		n := interopPush("0000", size)
		n.ID = fmt.Sprintf("123e4567-e89b-12d3-a456-%012d", i)
		if i%3 == 0 {
			n.CollapseID = "c" + strings.Repeat("x", i%60)
		}
		slots <- struct{}{}
		c.Send(n, func(o Outcome) { results <- result{n.ID, o}; <-slots })
	}
	for range m.pushes {
		select {
		case r := <-results:
			if r.o.Class != Delivered || s.echoes && r.o.APNsID != r.id {
				t.Fatalf("%s: %+v", r.id, r.o)
			}
		case <-time.After(time.Minute):
			t.Fatalf("not answered; connection %v", c.Err())
		}
	}
}

// goAwayInterop has the server end the connection in order: what it has is
// answered, the reason is kept.
func goAwayInterop(t *testing.T, c *Conn) {
	t.Helper()
	if o := c.Push(within(t), interopPush("60a1", 30)); o.Class != Delivered {
		t.Errorf("before GOAWAY: %+v", o)
	}
	select {
	case <-c.Done():
	case <-within(t).Done():
		t.Fatal("no end after GOAWAY")
	}
	var goAway *GoAwayError
	if !errors.As(c.Err(), &goAway) || goAway.Reason != "Shutdown" {
		t.Errorf("Err %v", c.Err())
	}
}

// interopPush is a push whose token ends so and whose payload has so many bytes,
// 25 or more, and says so.
func interopPush(end string, size int) *Notification {
	n := testPush()
	n.Token = testToken[:60] + end
	head := fmt.Sprintf(`{"length":%d,"pad":"`, size)
	n.Payload = []byte(head + strings.Repeat("x", size-len(head)-2) + `"}`)
	return n
}
