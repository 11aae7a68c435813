package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// A put that was not sent, or was refused, has stored nothing; of any other that
// failed nobody knows.
func TestPutUncertain(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	for name, c := range map[string]struct {
		answer    string
		err       error
		uncertain bool
	}{
		"no answer":          {"", errNoAnswer, true},
		"the caller left":    {"", context.Canceled, true},
		"not an answer":      {"{", nil, true},
		"no number":          {"{}", nil, true},
		"nobody there":       {"", errNoResponders, false},
		"not sent":           {"", &notSentError{nats.ErrConnectionClosed}, false},
		"too large":          {"", queue.ErrRejected, false},
		"storage is full":    {`{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}`, nil, false},
		"the stream's limit": {`{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}`, nil, false},
	} {
		_, err := q.stored(t.Context(), "tube", "", queue.PutOptions{}, &nats.Msg{Data: []byte(c.answer)}, c.err)
		if err == nil || errors.Is(err, queue.ErrUncertain) != c.uncertain {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// When the context ends in the middle, each job has an id or the context's
// error. Those with an id are in the queue; those with an error are not, but
// where it says that they may be.
func TestPutAllInterrupted(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	mustPut(t, q, "warm", "x")
	stored, not := make(map[string]bool), make(map[string]bool)
	cut := 0
	for round := 0; round < 20 || cut == 0; round++ {
		jobs := make([]queue.NewJob, 200)
		for i := range jobs {
			jobs[i] = queue.NewJob{Tube: "t", Body: fmt.Appendf(nil, "%d of %d", i, round)}
		}
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(2*time.Millisecond))
		for i, s := range q.PutAll(ctx, jobs) {
			switch {
			case s.Err == nil && s.ID != "":
				stored[string(jobs[i].Body)] = true
			case s.ID == "" && errors.Is(s.Err, context.DeadlineExceeded):
				if !errors.Is(s.Err, queue.ErrUncertain) {
					not[string(jobs[i].Body)] = true
					continue
				}
				cut++
			default:
				t.Fatalf("id %q, %v", s.ID, s.Err)
			}
		}
		cancel()
	}
	c := consumeTest(t, q, "t")
	for len(stored) > 0 {
		for _, j := range mustReceive(t, c, 1) {
			delete(stored, string(j.Body()))
			if not[string(j.Body())] {
				t.Errorf("%s is stored", j.Body())
			}
			mustDone(t, j)
		}
	}
	q.calls.mu.Lock()
	open := len(q.calls.open)
	q.calls.mu.Unlock()
	if open > 1 { // a consumer's pull
		t.Errorf("%d calls are left", open)
	}
}

// A connection that is lost in the middle ends all of them.
func TestPutAllLosesConnection(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	mustPut(t, q, "warm", "x")
	cn, err := q.link.get(ctxOf(t), untilTried)
	if err != nil {
		t.Fatal(err)
	}
	jobs := make([]queue.NewJob, 20_000)
	for i := range jobs {
		jobs[i] = queue.NewJob{Tube: "t", Body: []byte("x")}
	}
	go func() { _ = cn.nc.ForceReconnect() }() // it may be too early or too late
	for i, s := range q.PutAll(ctxOf(t), jobs) {
		if (s.ID == "") != errors.Is(s.Err, queue.ErrUnavailable) {
			t.Fatalf("job %d: id %q, %v", i, s.ID, s.Err)
		}
	}
}

func BenchmarkPutAll(b *testing.B) {
	q := openEmbedded(b)
	body := make([]byte, 300)
	jobs := make([]queue.NewJob, 64)
	for i := range jobs {
		jobs[i] = queue.NewJob{Tube: "bench", Body: body}
	}
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if n%len(jobs) > 0 {
				continue // an operation is one job
			}
			for _, s := range q.PutAll(context.Background(), jobs) {
				if s.Err != nil {
					b.Error(s.Err)
				}
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}
