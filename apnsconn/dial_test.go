package apnsconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"propeller/apnsconn/apnstest"
)

// silence is how long a silent server is waited for: enough for the handshake of one that
// is to fail later, on a busy machine.
const silence = 3 * time.Second

func TestDialFailures(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		o    apnstest.Options
		want string
	}{
		{"no ALPN", apnstest.Options{NoALPN: true}, "does not speak HTTP/2"},
		{"no SETTINGS", apnstest.Options{NoSettings: true}, "before it sent its own"},
		{"slow handshake", apnstest.Options{SlowHandshake: time.Minute}, "TLS handshake: not ready within 3s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tt.o)
			_, err := Dial(t.Context(), Config{Addr: s.Addr, RootCAs: s.CertPool(), DialTimeout: silence})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), s.Addr) {
				t.Errorf("%v, want %q and the address", err, tt.want)
			}
			if errors.Is(err, ErrCredential) {
				t.Errorf("%v is no refusal of the credential", err)
			}
		})
	}
}

func TestDialSilentServer(t *testing.T) {
	t.Parallel()
	cert, pool := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if nc, err := l.Accept(); err == nil {
			io.Copy(io.Discard, nc) // reads, which makes the handshake, and says nothing
			nc.Close()
		}
	}()
	_, err = Dial(t.Context(), Config{Addr: l.Addr().String(), RootCAs: pool, DialTimeout: silence})
	if err == nil || !strings.Contains(err.Error(), "HTTP/2 SETTINGS: not ready within 3s") || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	l.Close()
	<-gone
}

func TestDialRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{})
	s.StopListening()
	if _, err := Dial(t.Context(), Config{Addr: s.Addr}); err == nil {
		t.Error("no error with nobody listening")
	}
	if _, err := Dial(t.Context(), Config{Addr: "no port"}); err == nil {
		t.Error("no error without a port")
	}
}

func TestDialClosedAtOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{})
	s.RefuseConnections(true)
	if _, err := Dial(t.Context(), Config{Addr: s.Addr, RootCAs: s.CertPool()}); err == nil {
		t.Error("no error")
	}
}

func TestDialUnknownRoot(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{})
	_, err := Dial(t.Context(), Config{Addr: s.Addr, RootCAs: x509.NewCertPool()})
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) || errors.Is(err, ErrCredential) {
		t.Errorf("%v", err)
	}
}

func TestDialCancelled(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]apnstest.Options{
		"in the handshake": {SlowHandshake: time.Minute},
		"before SETTINGS":  {NoSettings: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, o)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				s.WaitDials(within(t), 1)
				cancel()
			}()
			if _, err := Dial(ctx, Config{Addr: s.Addr, RootCAs: s.CertPool()}); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A refused client certificate is told from other trouble, under TLS 1.2 in the
// handshake and under 1.3 after it.
func TestCredentialRefused(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version }
			s := startServer(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired, TLSConfig: limit})
			other := s.ClientCert("com.example.app", apnstest.SelfSigned())
			expired := s.ClientCert("com.example.app", apnstest.ValidUntil(time.Now().Add(-time.Hour)))
			for name, cert := range map[string]*tls.Certificate{"none": nil, "self-signed": &other, "expired": &expired} {
				_, err := Dial(t.Context(), Config{Addr: s.Addr, RootCAs: s.CertPool(), Certificate: cert})
				if !errors.Is(err, ErrCredential) {
					// Go's server, under TLS 1.2, has no alert of its own for a missing certificate.
					if name == "none" && version == tls.VersionTLS12 && err != nil {
						continue
					}
					t.Errorf("%s: %v", name, err)
				}
			}
			good := s.ClientCert("com.example.app")
			c, err := Dial(t.Context(), Config{Addr: s.Addr, RootCAs: s.CertPool(), Certificate: &good})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

func TestIsCredentialAlert(t *testing.T) {
	t.Parallel()
	remote := func(err error) error { return &net.OpError{Op: "remote error", Err: err} }
	for alert, want := range map[tls.AlertError]bool{
		42: true, 43: true, 44: true, 45: true, 46: true, 48: true, 49: true, 116: true,
		0: false, 10: false, 40: false, 70: false, 80: false, 112: false, 120: false,
	} {
		if got := isCredentialAlert(remote(alert)); got != want {
			t.Errorf("alert %d: %v", alert, got)
		}
		if isCredentialAlert(&net.OpError{Op: "local error", Err: alert}) {
			t.Errorf("alert %d of our own", alert)
		}
	}
	if isCredentialAlert(io.EOF) {
		t.Error("EOF")
	}
}

func TestFirstFrameIsNotSettings(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(*http2.Framer){
		"PING":   func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) },
		"ACK":    func(fr *http2.Framer) { fr.WriteSettingsAck() },
		"HTTP/1": func(fr *http2.Framer) { fr.WriteRawFrame('H', 'T', 'T', []byte("P/1.1 400 Bad Request")) },
		"GOAWAY": func(fr *http2.Framer) {
			fr.WriteGoAway(0, http2.ErrCodeNo, []byte(`{"reason":"BadCertificate"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, nc := newPeer(t)
			p.send(first)
			_, err := newConn(t.Context(), Config{}.withDefaults(), "a", nc, nc)
			nc.Close()
			if err == nil {
				t.Fatal("no error")
			}
			if got := errors.Is(err, ErrCredential); got != (name == "GOAWAY") {
				t.Errorf("%v", err)
			}
		})
	}
}

// Go's own server is an HTTP/2 implementation that is not ours.
func TestGoServer(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Header.Get("apns-topic") != "com.example.app" || r.URL.Path != "/3/device/"+testToken:
			w.WriteHeader(http.StatusNotFound)
		case len(body) > 5120:
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			io.WriteString(w, `{"reason":"PayloadTooLarge"}`)
		default:
			w.Header().Set("apns-id", r.Header.Get("apns-id"))
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	c, err := Dial(t.Context(), Config{Addr: s.Listener.Addr().String(), RootCAs: pool, InFlight: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := testPush()
	n.ID = "123e4567-e89b-12d3-a456-4266554400a0"
	o := newOutcomes(t)
	for i := range 100 {
		c.Send(n, o.done(i))
	}
	big := *n
	big.Payload = make([]byte, 100_000)
	if err := waitFor(within(t), func() bool { return o.counts()[Delivered] == 100 }); err != nil {
		t.Fatal(o.counts())
	}
	if got := c.Push(within(t), &big); got.Class != Rejected || got.Reason != "PayloadTooLarge" {
		t.Errorf("%+v", got)
	}
	if got := o.get(50); got.APNsID != n.ID {
		t.Errorf("%+v", got)
	}
	if err := c.Drain(within(t)); err != nil {
		t.Error(err)
	}
}

// waitFor polls for cond, which only another goroutine can make true.
func waitFor(ctx context.Context, cond func() bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Why a dial fails is told in the same words each time, without the local address.
func TestDialReasonStays(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = nc.Read(make([]byte, 1)) // of a greeting that is longer
			_ = nc.(*net.TCPConn).SetLinger(0)
			nc.Close()
		}
	}()
	for range 3 {
		_, err := Dial(t.Context(), Config{Addr: addr})
		if want := `apnsconn: dial "` + addr + `": TLS handshake: connection reset by peer`; err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	l.Close()
	<-gone
	_, err = Dial(t.Context(), Config{Addr: addr})
	if want := `apnsconn: dial "` + addr + `": connect: connection refused`; err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}
