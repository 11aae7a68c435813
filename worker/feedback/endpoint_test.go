package feedback

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// request is one that an endpoint has seen.
type request struct {
	batch string
	refs  []int // of its records
	code  int   // its answer; 0: none
}

// endpoint is a receiver that checks each request as a good one would. answer
// decides what it says to the n-th (from 0) and returns the status it wrote.
type endpoint struct {
	*httptest.Server
	answer func(n int, refs []int, w http.ResponseWriter, r *http.Request) (code int)

	mu       sync.Mutex
	requests []request
	conns    int
}

func newEndpoint(t *testing.T, answer func(n int, refs []int, w http.ResponseWriter, r *http.Request) int) *endpoint {
	e := &endpoint{answer: answer}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { e.serve(t, w, r) }))
	e.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			e.mu.Lock()
			e.conns++
			e.mu.Unlock()
		}
	}
	e.Start()
	t.Cleanup(e.Close)
	return e
}

// status answers every request with code.
func status(code int) func(int, []int, http.ResponseWriter, *http.Request) int {
	return func(_ int, _ []int, w http.ResponseWriter, _ *http.Request) int {
		w.WriteHeader(code)
		return code
	}
}

// reset ends the connection without an answer.
func reset(w http.ResponseWriter) int {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	return 0
}

func (e *endpoint) serve(t *testing.T, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // cut off
	}
	if err := testHook(t).Verify(body, r.Header); err != nil {
		t.Error(err)
	}
	var got struct{ Records []Record }
	if err := json.Unmarshal(body, &got); err != nil {
		t.Errorf("body: %v", err)
	}
	if h := r.Header.Get("Content-Type"); r.Method != http.MethodPost || h != "application/json" {
		t.Errorf("%s with %s", r.Method, h)
	}
	req := request{batch: r.Header.Get(HeaderID)}
	for _, rec := range got.Records {
		i, err := strconv.Atoi(rec.Ref)
		if err != nil || rec != testRecord(i) {
			t.Errorf("record %+v", rec)
		}
		req.refs = append(req.refs, i)
	}
	e.mu.Lock()
	n := len(e.requests)
	e.requests = append(e.requests, req)
	e.mu.Unlock()
	code := e.answer(n, req.refs, w, r)
	e.mu.Lock()
	e.requests[n].code = code
	e.mu.Unlock()
}

// all are the requests so far.
func (e *endpoint) all() []request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.requests)
}

// taken are the refs of all requests answered 2xx, in order.
func (e *endpoint) taken() []int {
	var refs []int
	for _, r := range e.all() {
		if r.code/100 == 2 {
			refs = append(refs, r.refs...)
		}
	}
	return refs
}

// wantExactly says that records 0 to below n were taken, each once, in order.
func (e *endpoint) wantExactly(t *testing.T, n int) {
	t.Helper()
	got := e.taken()
	if len(got) != n {
		t.Fatalf("%d records taken, want %d", len(got), n)
	}
	for i, ref := range got {
		if ref != i {
			t.Fatalf("record %d came in place %d", ref, i)
		}
	}
}

// wantRepeats says that whatever was not taken came again at once: the same
// batch with the same records.
func (e *endpoint) wantRepeats(t *testing.T) {
	t.Helper()
	all := e.all()
	for i, r := range all[:len(all)-1] {
		next := all[i+1]
		if again := r.batch == next.batch && slices.Equal(r.refs, next.refs); again != (r.code/100 != 2) {
			t.Fatalf("request %d was answered %d, and the next one is again the same: %v", i, r.code, again)
		}
	}
}

// hook is a webhook under test.
type hook struct {
	*Webhook
	counters *WebhookCounters
	logs     *logs
}

func newHook(q queue.Queue, url string) hook {
	h := hook{counters: new(WebhookCounters), logs: new(logs)}
	h.Webhook = NewWebhook(WebhookConfig{
		App: "com.example.app", Topic: "com.example.app", Tube: testTube, URL: url, Secrets: [][]byte{[]byte(testSecret)},
		Queue: q, Log: h.logs.logger(), Counters: h.counters,
	})
	h.pause.Min = 10 * time.Millisecond
	return h
}

// serve runs the webhook until stop, which may be called more than once and
// returns the log.
func (h hook) serve(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("serve does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

// delivered waits until n records were delivered and deleted.
func (h hook) delivered(t *testing.T, n int) {
	t.Helper()
	until(t, strconv.Itoa(n)+" records delivered", func() bool { return h.counters.Delivered.Load() >= int64(n) })
	until(t, "tube empty", func() bool { return tubeStats(t, h.cfg.Queue) == queue.TubeStats{} })
}
