package feedback

import (
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// The tests here run against a real beanstalkd and real HTTP.

func TestBatches(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	const n = 1050
	putRecords(t, q, 0, n)
	e := newEndpoint(t, status(204))
	h := newHook(q, e.URL)
	stop := h.serve(t)
	h.delivered(t, n)
	stop()
	e.wantExactly(t, n)
	full := 0
	for _, r := range e.all() {
		if len(r.refs) == maxBatch {
			full++
		}
	}
	if full < n/maxBatch/2 { // on a busy machine the queue may be slower than a batch waits
		t.Errorf("%d full batches with the tube full", full)
	}
	if e.conns != 1 {
		t.Errorf("%d connections", e.conns)
	}
	if a, b := h.counters.Batches.Load(), int64(len(e.all())); a != b || h.counters.Failed.Load() != 0 {
		t.Errorf("%d batches counted and %d failures, %d requests", a, h.counters.Failed.Load(), b)
	}
	if h.logs.String() != "" {
		t.Errorf("logged:\n%s", h.logs)
	}
}

// Records that come while the webhook waits go into one batch.
func TestLinger(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	e := newEndpoint(t, status(200))
	h := newHook(q, e.URL)
	h.serve(t)
	putRecords(t, q, 0, 1)
	h.delivered(t, 1)
	putRecords(t, q, 1, 6) // far quicker than linger, unless the machine is stuck
	h.delivered(t, 6)
	e.wantExactly(t, 6)
}

// Whatever goes wrong at the endpoint, everything arrives in order, and what
// was not taken is repeated as it was.
func TestOrderThroughFailures(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	const n = 3000
	putRecords(t, q, 0, n/2)
	rest := make(chan error, 1)
	go func() {
		write := Writer(q, testTube)
		for i := n / 2; i < n; i++ {
			if err := write(ctxOf(t), testRecord(i)); err != nil {
				rest <- err
				return
			}
		}
		rest <- nil
	}()
	var codes []int // of the requests to come, the last one for ever
	chance := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		codes = append(codes, []int{200, 204, 299, 400, 401, 404, 429, 500, 503, 300, 304, -1, -2}[chance.IntN(13)])
	}
	codes = append(codes, 200)
	e := newEndpoint(t, func(i int, _ []int, w http.ResponseWriter, _ *http.Request) int {
		code := codes[min(i, len(codes)-1)]
		switch code {
		case -1: // a whole request without an answer
			return reset(w)
		case -2:
			w.Header().Set("Content-Length", "100") // and the body is missing: the head has said all
			w.WriteHeader(200)
			return 200
		}
		w.WriteHeader(code)
		return code
	})
	h := newHook(q, e.URL)
	h.serve(t)
	if err := <-rest; err != nil {
		t.Fatal(err)
	}
	h.delivered(t, n)
	e.wantExactly(t, n)
	e.wantRepeats(t)
	if h.counters.Failed.Load() == 0 || h.logs.count("takes no records; they stay") != h.logs.count("takes records again") {
		t.Errorf("%d failures, log:\n%s", h.counters.Failed.Load(), h.logs)
	}
}

// The endpoint is away for long, the queue is killed meanwhile: everything
// arrives, once and in order, though the batch at hand lost its reservation.
func TestDeadEndpointAndQueueRestart(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t, beanstalktest.WithBinlog())
	q := openQueue(t, srv)
	putRecords(t, q, 0, 150)
	var alive atomic.Bool
	e := newEndpoint(t, func(_ int, _ []int, w http.ResponseWriter, _ *http.Request) int {
		if !alive.Load() {
			return reset(w)
		}
		return status(200)(0, nil, w, nil)
	})
	h := newHook(q, e.URL)
	h.serve(t)
	until(t, "some failures", func() bool { return h.counters.Failed.Load() > 3 })
	srv.Restart()
	putRecords(t, openQueue(t, srv), 150, 300) // q's own connection for puts may not know yet
	seen := h.counters.Failed.Load()
	until(t, "more failures", func() bool { return h.counters.Failed.Load() > seen })
	since, reason, down := h.counters.Down()
	if !down || since.IsZero() || reason == "" {
		t.Errorf("down: %v %q %v", since, reason, down)
	}
	alive.Store(true)
	h.delivered(t, 300)
	e.wantExactly(t, 300)
	if _, _, down := h.counters.Down(); down {
		t.Error("still down")
	}
	if h.logs.count("level=WARN") != 1 || h.logs.count("takes records again") != 1 {
		t.Errorf("a line each was wanted:\n%s", h.logs)
	}
}

// While the endpoint is dead, no more than a batch and one are reserved.
func TestDeadEndpointHoldsOneBatch(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	const n = 500
	putRecords(t, q, 0, n)
	s := httptest.NewServer(nil)
	s.Close() // refuses
	h := newHook(q, s.URL)
	stop := h.serve(t)
	until(t, "failures", func() bool { return h.counters.Failed.Load() > 2 })
	if st := tubeStats(t, q); st.Reserved < maxBatch || st.Reserved > maxBatch+1 || st.Ready != n-st.Reserved {
		t.Errorf("%+v", st)
	}
	stop() // in a pause
	if _, reason, _ := h.counters.Down(); !strings.HasPrefix(reason, "dial tcp 127.0.0.1:") || !strings.HasSuffix(reason, "connection refused") {
		t.Errorf("reason %q", reason)
	}
	until(t, "all given back", func() bool { return tubeStats(t, q) == queue.TubeStats{Ready: n} })
}

// Stopped in the middle of a request: the records are back and come again.
func TestStopInRequest(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	const n = 250
	putRecords(t, q, 0, n)
	stuck := make(chan struct{})
	e := newEndpoint(t, func(i int, _ []int, w http.ResponseWriter, r *http.Request) int {
		if i == 1 {
			close(stuck)
			<-r.Context().Done() // the client is gone
			return 0
		}
		w.WriteHeader(200)
		return 200
	})
	first := newHook(q, e.URL)
	stop := first.serve(t)
	<-stuck
	stop()
	if st := tubeStats(t, q); st != (queue.TubeStats{Ready: n - maxBatch}) {
		t.Errorf("after the stop: %+v", st)
	}
	if first.logs.String() != "" {
		t.Errorf("an order to stop is no failure:\n%s", first.logs)
	}
	second := newHook(q, e.URL)
	second.serve(t)
	second.delivered(t, n-maxBatch)
	e.wantExactly(t, n)
	e.wantRepeats(t)
}

// A batch that is too large is halved until it fits, without a pause.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	const n, most = 130, 7
	putRecords(t, q, 0, n)
	e := newEndpoint(t, func(_ int, refs []int, w http.ResponseWriter, _ *http.Request) int {
		code := 200
		if len(refs) > most {
			code = 413
		}
		w.WriteHeader(code)
		return code
	})
	h := newHook(q, e.URL)
	h.pause.Min = maxPause // a pause would fail the test
	h.serve(t)
	h.delivered(t, n)
	e.wantExactly(t, n)
	var refused []int
	for _, r := range e.all() {
		if r.code == 413 {
			refused = append(refused, len(r.refs))
		}
	}
	if want := []int{100, 50, 25, 12}; !slices.Equal(refused, want) {
		t.Errorf("refused were batches of %v, want %v", refused, want)
	}
	if _, _, down := h.counters.Down(); down || h.counters.Failed.Load() != 4 {
		t.Errorf("down %v, %d failures", down, h.counters.Failed.Load())
	}
}

// One record that is too large is a failure like any other.
func TestTooLargeAlone(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	putRecords(t, q, 0, 1)
	e := newEndpoint(t, func(i int, _ []int, w http.ResponseWriter, _ *http.Request) int {
		return status(map[bool]int{true: 413, false: 200}[i < 3])(i, nil, w, nil)
	})
	h := newHook(q, e.URL)
	h.serve(t)
	h.delivered(t, 1)
	e.wantExactly(t, 1)
	if h.logs.count(`reason="answered 413"`) == 0 {
		t.Errorf("log:\n%s", h.logs)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	putRecords(t, q, 0, 3)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("redirect followed") }))
	t.Cleanup(elsewhere.Close)
	codes := []int{301, 302, 303, 307, 308}
	e := newEndpoint(t, func(i int, _ []int, w http.ResponseWriter, _ *http.Request) int {
		if i < len(codes) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(codes[i])
			return codes[i]
		}
		w.WriteHeader(200)
		return 200
	})
	h := newHook(q, e.URL)
	h.serve(t)
	h.delivered(t, 3)
	e.wantExactly(t, 3)
	e.wantRepeats(t)
	if h.logs.count("redirects are not followed") == 0 {
		t.Errorf("log:\n%s", h.logs)
	}
}

// The body of an answer is not waited for, however large or slow.
func TestAnswersWithBodies(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	const n = 2*maxBatch + 1
	putRecords(t, q, 0, n)
	var sent atomic.Int64
	e := newEndpoint(t, func(i int, _ []int, w http.ResponseWriter, r *http.Request) int {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		switch i {
		case 0: // without end
			junk := make([]byte, 1<<16)
			for {
				k, err := w.Write(junk)
				sent.Add(int64(k))
				if err != nil {
					return 200
				}
			}
		case 1: // never
			<-r.Context().Done()
		}
		return 200
	})
	h := newHook(q, e.URL)
	h.serve(t)
	h.delivered(t, n)
	until(t, "all handlers back", func() bool { return len(e.taken()) == n })
	e.wantExactly(t, n)
	if sent.Load() > 64<<20 { // what fits into the sockets' buffers, with room to spare
		t.Errorf("%d bytes of an answer were taken", sent.Load())
	}
}

// A server that closes an idle connection under a request is not down.
func TestIdleConnectionClosed(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	const n = 5 * maxBatch
	putRecords(t, q, 0, n)
	e := newEndpoint(t, func(i int, _ []int, w http.ResponseWriter, _ *http.Request) int {
		if i%2 == 1 { // each connection's second request
			return reset(w)
		}
		w.WriteHeader(200)
		return 200
	})
	h := newHook(q, e.URL)
	h.serve(t)
	h.delivered(t, n)
	e.wantExactly(t, n)
	e.wantRepeats(t)
	if f := h.counters.Failed.Load(); f != 0 {
		t.Errorf("%d failures:\n%s", f, h.logs)
	}
}

// Certificates are verified, by what the client trusts.
func TestTLS(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	putRecords(t, q, 0, 2)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the failed handshakes are wanted
	s.StartTLS()
	t.Cleanup(s.Close)
	h := newHook(q, s.URL)
	stop := h.serve(t)
	until(t, "a failure", func() bool { return h.counters.Failed.Load() > 0 })
	stop()
	if _, reason, _ := h.counters.Down(); !strings.Contains(reason, "certificate signed by unknown authority") {
		t.Errorf("reason %q", reason)
	}
	trusting := newHook(q, s.URL)
	trusting.client.Transport = s.Client().Transport
	trusting.serve(t)
	trusting.delivered(t, 2)
}

// Jobs of somebody else are buried and hold up nothing.
func TestStrangersAreBuried(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openQueue(t, srv)
	strangers := []string{"", "hello", `{"token":"` + testToken(1) + `","title":"a job"}`, "[1]"}
	for i, s := range strangers {
		putRecords(t, q, i, i+1)
		if _, err := q.Put(ctxOf(t), testTube, []byte(s), queue.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	putRecords(t, q, len(strangers), 50)
	e := newEndpoint(t, status(200))
	h := newHook(q, e.URL)
	h.serve(t)
	until(t, "50 records delivered", func() bool { return h.counters.Delivered.Load() == 50 })
	until(t, "strangers buried", func() bool { return tubeStats(t, q) == queue.TubeStats{Buried: len(strangers)} })
	e.wantExactly(t, 50)
	if h.counters.Buried.Load() != int64(len(strangers)) || h.logs.count("is not a record: buried") != len(strangers) {
		t.Errorf("%d counted, log:\n%s", h.counters.Buried.Load(), h.logs)
	}
	if h.logs.count(testToken(1)) > 0 || h.logs.count("hello") > 0 {
		t.Errorf("the log quotes a body:\n%s", h.logs)
	}
}
