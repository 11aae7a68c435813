package feedback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// What synctest bubbles need, which hold no sockets: a queue that is played,
// and answers without a network.

// fakeQueue serves its jobs to one consumer, in order.
type fakeQueue struct {
	put  func(ctx context.Context, body []byte) error // nil: the job is added
	done func(ctx context.Context) error              // of each job; nil: works

	mu      sync.Mutex
	ready   []*fakeJob
	settled []string // "done 1", "retry 2", in the end "close"
	arrived chan struct{}
}

func newFakeQueue() *fakeQueue { return &fakeQueue{arrived: make(chan struct{}, 1)} }

func (q *fakeQueue) add(body []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ready = append(q.ready, &fakeJob{q: q, id: fmt.Sprint(len(q.ready) + 1), body: body})
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// addRecords adds the records from up to below to.
func (q *fakeQueue) addRecords(t *testing.T, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		body, err := encode(testRecord(i))
		if err != nil {
			t.Fatal(err)
		}
		q.add(body)
	}
}

func (q *fakeQueue) count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.settled)
}

func (q *fakeQueue) Put(ctx context.Context, _ string, body []byte, o queue.PutOptions) (string, error) {
	if !o.Settling {
		return "", errors.New("a full queue would not take what settling needs")
	}
	if q.put != nil {
		return "", q.put(ctx, body)
	}
	q.add(body)
	return "1", nil
}

func (q *fakeQueue) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	for {
		q.mu.Lock()
		var out []queue.Job
		for len(q.ready) > 0 && len(out) < n {
			out = append(out, q.ready[0])
			q.ready = q.ready[1:]
		}
		q.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-q.arrived:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (q *fakeQueue) Pause()     {}
func (q *fakeQueue) Err() error { return nil }

// fakeConsumer's Close differs from its queue's.
type fakeConsumer struct{ *fakeQueue }

func (c fakeConsumer) Close(context.Context) error { return c.fakeQueue.Close() }

func (q *fakeQueue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settled = append(q.settled, "close")
	return nil
}

type fakeJob struct {
	q    *fakeQueue
	id   string
	body []byte
}

func (j *fakeJob) settle(how string) {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	j.q.settled = append(j.q.settled, how+" "+j.id)
}

func (j *fakeJob) ID() string   { return j.id }
func (j *fakeJob) Body() []byte { return j.body }

func (j *fakeJob) Done(ctx context.Context) error {
	if j.q.done != nil {
		if err := j.q.done(ctx); err != nil {
			return err
		}
	}
	j.settle("done")
	return nil
}

func (j *fakeJob) Bury(context.Context, []byte) error         { j.settle("bury"); return nil }
func (j *fakeJob) Retry(context.Context, time.Duration) error { j.settle("retry"); return nil }
func (j *fakeJob) Touch(context.Context) error                { return nil }
func (j *fakeJob) Stat(context.Context) (queue.Stat, error)   { return queue.Stat{}, nil }

// transport answers without a network. Each request's time is kept.
type transport struct {
	answer func(n int, r *http.Request) (*http.Response, error)

	mu    sync.Mutex
	times []time.Time
	sizes []int // records in each
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	tr.mu.Lock()
	n := len(tr.times)
	tr.times = append(tr.times, time.Now())
	tr.sizes = append(tr.sizes, strings.Count(string(body), `"topic"`))
	tr.mu.Unlock()
	return tr.answer(n, r)
}

// count is the number of requests.
func (tr *transport) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.times)
}

// gaps are the times between requests.
func (tr *transport) gaps() []time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var gaps []time.Duration
	for i := 1; i < len(tr.times); i++ {
		gaps = append(gaps, tr.times[i].Sub(tr.times[i-1]))
	}
	return gaps
}

// respond makes an answer; headers are name and value in turn.
func respond(code int, headers ...string) (*http.Response, error) {
	r := &http.Response{StatusCode: code, Header: make(http.Header), Body: http.NoBody}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r, nil
}

// serveFake serves a webhook between q and tr inside a bubble until stop.
func serveFake(t *testing.T, q *fakeQueue, tr *transport) (h hook, stop func()) {
	t.Helper()
	h = hook{counters: new(WebhookCounters), logs: new(logs)}
	h.Webhook = NewWebhook(WebhookConfig{
		App: "com.example.app", Topic: "com.example.app", Tube: testTube, URL: "https://example.com/hook", Secrets: [][]byte{[]byte(testSecret)},
		Queue: fakeEngine{q}, Log: h.logs.logger(), Counters: h.counters,
	})
	h.client.Transport = tr
	return h, h.serve(t)
}

// fakeEngine is the queue.Queue of a fakeQueue.
type fakeEngine struct{ *fakeQueue }

func (e fakeEngine) Consume(string) (queue.Consumer, error) { return fakeConsumer(e), nil }
