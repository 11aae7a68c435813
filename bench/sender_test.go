package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

var goSenders = []string{keyApnsconn, keyAPNs2, keyClientConn}

func feedOf(sender string) feed {
	if sender == keyApnsconn {
		return byCallback
	}
	return byCallers
}

// TestSendersSendTheSame: what reaches the server differs in nothing that was
// asked for, and each sender keeps to its number of streams.
func TestSendersSendTheSame(t *testing.T) {
	t.Parallel()
	cells := []cell{{keyApnsconn, byCallers, 1}, {keyApnsconn, 1, 7}, {keyApnsconn, 100, 7}}
	for _, sender := range goSenders {
		cells = append(cells, cell{sender, feedOf(sender), 7})
	}
	for _, c := range cells {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			srv, j := server(t, apnstest.Options{AllowAnonymous: true, Record: 2000})
			j.Sender, j.Feed, j.Streams = c.sender, c.feed, c.streams
			f, err := j.do(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if f.Pushes <= 0 || f.All < f.Pushes || f.Elapsed < j.For || f.CPU <= 0 || f.Allocs == 0 {
				t.Errorf("figures %+v", f)
			}
			if c.streams == 1 && (f.P50 <= 0 || f.P99 < f.P50) {
				t.Errorf("figures %+v", f)
			}
			if v := srv.Violations(); len(v) > 0 {
				t.Error(v)
			}
			if n := srv.Dials(); n != 1 {
				t.Errorf("%d connections, want one", n)
			}
			tokens := make(map[string]bool)
			for _, r := range srv.Requests() {
				tokens[r.Token] = true
				for name, want := range map[string]string{
					":method": "POST", "apns-topic": topic, "apns-push-type": pushType,
					"apns-priority": "10", "apns-expiration": "2000000000",
				} {
					if got := r.Header.Get(name); got != want {
						t.Fatalf("%s: %q, want %q", name, got, want)
					}
				}
				if r.BodySize != payloadSize || len(r.Header.Get("apns-id")) != 36 || r.Answer.Status >= 400 {
					t.Fatalf("request %+v", r)
				}
			}
			if want := min(shotCount, len(srv.Requests())-2); len(tokens) < want {
				t.Errorf("%d tokens in %d requests", len(tokens), len(srv.Requests()))
			}
		})
	}
}

// TestHold: all pushes are in flight when the memory is measured.
func TestHold(t *testing.T) {
	t.Parallel()
	for _, sender := range goSenders {
		t.Run(sender, func(t *testing.T) {
			t.Parallel()
			cert, key, err := newCertificate()
			if err != nil {
				t.Fatal(err)
			}
			silent, err := startSilent(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			const streams = 900
			b := &bench{server: &nghttpd{}, silent: silent, roots: cert}
			held, err := b.hold(t.Context(), cell{sender, feedOf(sender), streams})
			if err != nil {
				t.Fatal(err)
			}
			// A push of any sender holds something, and none a stack of 64 KiB.
			if held < 50 || held > 64<<10 {
				t.Errorf("%.0f bytes per push in flight", held)
			}
			if n := silent.Count(); n != 1+streams {
				t.Errorf("the server got %d pushes, want %d", n, 1+streams)
			}
			if v := silent.Violations(); len(v) > 0 {
				t.Error(v)
			}
		})
	}
}

// TestRefusal: a push that is refused costs another amount of work, so that one
// of them spoils a measurement.
func TestRefusal(t *testing.T) {
	t.Parallel()
	for _, sender := range goSenders {
		for _, streams := range []int{1, 5} {
			t.Run(fmt.Sprint(sender, streams), func(t *testing.T) {
				t.Parallel()
				_, j := server(t, apnstest.Options{
					NoValidation: true,
					Script:       apnstest.Nth(50, apnstest.Answer{Status: 503}),
				})
				j.Sender, j.Feed, j.Streams, j.For = sender, feedOf(sender), streams, time.Second
				if f, err := j.do(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "503") {
					t.Errorf("got %+v, %v; want an error that tells the status", f, err)
				}
			})
		}
	}
}

// TestNobodyThere: a sender whose server is gone is an error.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cert, _, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for _, sender := range append(goSenders, "carrier pigeon") {
		j := job{Sender: sender, Streams: 2, Addr: l.Addr().String(), Roots: cert, For: time.Millisecond}
		if f, err := j.do(t.Context(), nil); err == nil || !strings.Contains(err.Error(), sender) {
			t.Errorf("%s: got %+v, %v", sender, f, err)
		}
	}
}

// server starts a server and returns it with a short job for it.
func server(t *testing.T, o apnstest.Options) (*apnstest.Server, job) {
	t.Helper()
	cert, key, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	o.TLSCert = &pair
	srv, err := apnstest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	return srv, job{Addr: srv.Addr, Roots: cert, Warm: 10 * time.Millisecond, For: 50 * time.Millisecond}
}

func TestPayload(t *testing.T) {
	t.Parallel()
	if p := payload(); len(p) != payloadSize || !json.Valid(p) {
		t.Errorf("payload %q", p)
	}
	seen := make(map[string]bool)
	for _, s := range shots() {
		if seen[s.token] || seen[s.id] {
			t.Fatalf("twice: %+v", s)
		}
		seen[s.token], seen[s.id] = true, true
	}
}
