package apnslean

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"propeller/apnsconn"
)

// patience bounds waits that only something stuck reaches.
const patience = time.Minute

func start(t testing.TB, o Options) (*Server, *apnsconn.Conn) {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.CertPEM()) {
		t.Fatal("no certificate")
	}
	c, err := apnsconn.Dial(t.Context(), apnsconn.Config{Addr: s.Addr(), RootCAs: pool, InFlight: 2000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

func note(i int) *apnsconn.Notification {
	return &apnsconn.Notification{
		Token: fmt.Sprintf("%064x", i), Topic: "com.example.app", PushType: "alert",
		ID: fmt.Sprintf("123e4567-e89b-12d3-a456-%012x", i), Priority: 10,
		Payload: []byte(`{"aps":{"alert":"` + strings.Repeat("x", 70) + `"},` + Stamp(time.Now()) + "}"),
	}
}

// sendAll sends total pushes, so many at once, and counts the answers by status.
func sendAll(t testing.TB, c *apnsconn.Conn, atOnce, total int) map[int]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if o := c.Push(ctx, note(0)); o.Status == 0 { // the first goes alone
		t.Fatal(o)
	}
	answers := make(chan int, total)
	var sent atomic.Int64
	var next func()
	next = func() {
		i := sent.Add(1)
		if i >= int64(total) {
			return
		}
		c.Send(note(int(i)), func(o apnsconn.Outcome) {
			if o.Status == 0 {
				t.Errorf("%+v", o)
			}
			answers <- o.Status
			next()
		})
	}
	for range atOnce {
		next()
	}
	got := make(map[int]int)
	for range total - 1 {
		select {
		case status := <-answers:
			got[status]++
		case <-ctx.Done():
			t.Fatalf("answers so far: %v", got)
		}
	}
	return got
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{}, {Delay: 2 * time.Millisecond}, {Delay: 500 * time.Millisecond, DelayWindow: true}, // so late that also a slow sender fills the window
	} {
		t.Run(fmt.Sprintf("delay=%v,window=%v", o.Delay, o.DelayWindow), func(t *testing.T) {
			t.Parallel()
			total := int64(5000)
			if o.DelayWindow {
				total = 2000
			}
			s, c := start(t, o)
			begun := time.Now()
			if got := sendAll(t, c, 1000, int(total)); int64(got[http.StatusOK]) != total-1 {
				t.Errorf("answers %v", got)
			}
			took := time.Since(begun)
			st := s.Stats()
			if st.Requests != total || st.Latency.Count < total*9/10 || st.Conns != 1 {
				t.Errorf("requests %d, timed %d, connections %d; want %d, all of one", st.Requests, st.Latency.Count, st.Conns, total)
			}
			if want := int64(len(note(0).Payload)) * total; st.Payload != want {
				t.Errorf("payload %d bytes, want %d", st.Payload, want)
			}
			if st.Latency.Max > took || st.Active > took || st.Blocked > st.Active {
				t.Errorf("within %v: latest %v, active %v, blocked %v", took, st.Latency.Max, st.Active, st.Blocked)
			}
			if o.DelayWindow == (st.Blocked == 0) {
				t.Errorf("blocked for %v", st.Blocked)
			}
		})
	}
}

// Answers come after the delay, and never before.
func TestDelay(t *testing.T) {
	t.Parallel()
	_, c := start(t, Options{Delay: 30 * time.Millisecond, DelayWindow: true})
	for i := range 3 {
		begun := time.Now()
		if o := c.Push(t.Context(), note(i)); o.Class != apnsconn.Delivered {
			t.Fatal(o)
		}
		if took := time.Since(begun); took < 30*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	_, c := start(t, Options{GoneEvery: 10, BusyEvery: 100})
	got := sendAll(t, c, 100, 1001)
	if got[http.StatusServiceUnavailable] != 10 || got[http.StatusGone] != 90 || got[http.StatusOK] != 900 {
		t.Errorf("answers %v", got)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	s, c := start(t, Options{})
	sendAll(t, c, 10, 100)
	s.Reset()
	if st := s.Stats(); st.Requests != 0 || st.Latency.Count != 0 || st.Active != 0 {
		t.Errorf("after a reset: %d requests", st.Requests)
	}
	sendAll(t, c, 10, 100)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Requests != 100 {
		t.Errorf("requests %d, want 100", st.Requests)
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Options{})
	if _, err := Start(Options{Addr: s.Addr()}); err == nil {
		t.Error("two servers on one port")
	}
	if _, err := Start(Options{Addr: "nonsense"}); err == nil {
		t.Error("no port")
	}
}

// Each payload is shown once and whole, also those that the client cuts in two because its
// window has no room for them.
func TestSeen(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := make(map[string]int)
	s, _ := start(t, Options{Delay: 5 * time.Millisecond, DelayWindow: true, Seen: func(at time.Time, payload []byte) {
		if put, ok := Stamped(payload); !ok || at.Before(put.Truncate(time.Microsecond)) {
			t.Errorf("arrived at %v: %.40q… of %d bytes", at, payload, len(payload))
		}
		mu.Lock()
		defer mu.Unlock()
		seen[string(payload)]++
	}})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CertPEM())
	client := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableCompression: true}
	defer client.CloseIdleConnections()
	sent := make(map[string]int)
	var posts sync.WaitGroup
	for i := range 200 {
		payload := `{"aps":{"alert":"` + strings.Repeat("x", 3000+i) + `"},` + Stamp(time.Now()) + "}"
		sent[payload]++
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.Addr()+"/3/device/a", strings.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		posts.Go(func() {
			answer, err := client.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			answer.Body.Close()
		})
	}
	posts.Wait()
	mu.Lock()
	defer mu.Unlock()
	if !maps.Equal(seen, sent) {
		t.Errorf("%d payloads seen, want %d", len(seen), len(sent))
	}
}
