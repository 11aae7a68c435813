package apnsconn

import (
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

// startTokenServer starts a server that knows a key as Apple does: it checks
// each token and its signature, wants changes 20 minutes apart, and starts a
// connection with one stream.
func startTokenServer(t testing.TB, k *Key) *apnstest.Server {
	t.Helper()
	return startServer(t, apnstest.Options{
		OneStreamFirst: true,
		MinTokenAge:    20 * time.Minute,
		VerifyToken: func(text string) string {
			if _, err := checkToken(text, &parsed(t, k).PublicKey); err != nil {
				return "InvalidProviderToken"
			}
			return ""
		},
	})
}

// All connections of a process use one token.
func TestTokenOverTLS(t *testing.T) {
	t.Parallel()
	key := testSigningKey(t)
	s := startTokenServer(t, key)
	source := NewProviderToken(key)
	const conns, pushes = 4, 200
	var wg sync.WaitGroup
	for range conns {
		c := mustDial(t, s, Config{Token: source})
		if o := c.Push(within(t), testPush()); o.Class != Delivered {
			t.Fatalf("%+v", o)
		}
		wg.Add(pushes)
		for range pushes {
			c.Send(testPush(), func(o Outcome) {
				if o.Class != Delivered {
					t.Errorf("%+v", o)
				}
				wg.Done()
			})
		}
	}
	wg.Wait()
	if n := source.Mints(); n != 1 {
		t.Errorf("%d tokens made", n)
	}
	first := ""
	for _, r := range s.Requests() {
		got := r.Header.Get("authorization")
		if first == "" {
			first = got
		}
		if got != first || !strings.HasPrefix(got, "bearer ") {
			t.Fatalf("authorization %q and %q", first, got)
		}
	}
	if n := s.Count(); n != conns*(pushes+1) {
		t.Errorf("%d requests", n)
	}
}

// A key that Apple does not know, or a wrong id, is the credential's fault.
func TestWrongKeyOverTLS(t *testing.T) {
	t.Parallel()
	known, other := testSigningKey(t), newTestKey(t)
	for name, k := range map[string]*Key{
		"another key":     loadTestKey(t, other, testKeyID, testTeamID),
		"another key id":  loadTestKey(t, parsed(t, known), "ABC123DEFX", testTeamID),
		"another team id": loadTestKey(t, parsed(t, known), testKeyID, "DEF123GHIX"),
	} {
		c := mustDial(t, startTokenServer(t, known), Config{Token: NewProviderToken(k)})
		o := c.Push(within(t), testPush())
		if o.Class != Credential || o.Reason != "InvalidProviderToken" || o.Err != nil {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestCertificateAndToken(t *testing.T) {
	t.Parallel()
	s := startServer(t, apnstest.Options{})
	cert := s.ClientCert("com.example.app")
	_, err := Dial(within(t), Config{Addr: s.Addr, RootCAs: s.CertPool(), Certificate: &cert, Token: NewProviderToken(testSigningKey(t))})
	if err == nil || !strings.Contains(err.Error(), "both a certificate and a provider token") || s.Dials() != 0 {
		t.Errorf("%v, %d dials", err, s.Dials())
	}
}

// What a provider token costs, beside BenchmarkSend.
func BenchmarkSendWithToken(b *testing.B) {
	const streams = 900
	addr, pool := leanServer(b)
	c, err := Dial(b.Context(), Config{Addr: addr, RootCAs: pool, InFlight: streams, Token: NewProviderToken(testSigningKey(b))})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	n := benchNotification()
	if o := c.Push(b.Context(), n); o.Class != Delivered {
		b.Fatal(o)
	}
	b.ReportAllocs()
	b.ResetTimer()
	sendAll(b, c, n, streams, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
}
