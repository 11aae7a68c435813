package queuetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"propeller/queue"
)

// testPutAll: each job of many stands for itself, and the answers are in the
// jobs' order.
func testPutAll(t *testing.T, e Engine) {
	in := start(t, e)
	jobs := make([]queue.NewJob, 300)
	for i := range jobs {
		jobs[i] = queue.NewJob{Tube: fmt.Sprintf("all%d", i%3), Body: fmt.Appendf(nil, "job %d", i)}
	}
	jobs[50].Tube = "two words"
	jobs[60].Body = make([]byte, e.MaxBody+1)
	jobs[70].Delay = time.Second
	ids := make(map[string]string) // by the body
	for i, s := range queue.PutAll(ctxOf(t), in.Queue, jobs) {
		if i == 50 || i == 60 {
			if s.ID != "" || !errors.Is(s.Err, queue.ErrRejected) || errors.Is(s.Err, queue.ErrUncertain) {
				t.Errorf("job %d: id %q, %v, want ErrRejected", i, s.ID, s.Err)
			}
			continue
		}
		if s.ID == "" || s.Err != nil {
			t.Fatalf("job %d: id %q, %v", i, s.ID, s.Err)
		}
		ids[string(jobs[i].Body)] = s.ID
	}
	for i := range 3 {
		c := consume(t, in.Queue, fmt.Sprintf("all%d", i))
		want := 100
		if i == 50%3 || i == 60%3 {
			want--
		}
		for _, j := range receive(t, c, want) {
			if id := ids[string(j.Body())]; id != j.ID() {
				t.Errorf("%q has id %s, was put as %q", j.Body(), j.ID(), id)
			}
			delete(ids, string(j.Body()))
			done(t, j)
		}
	}
	if len(ids) > 0 {
		t.Errorf("not served: %v", ids)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for i, s := range queue.PutAll(ended, in.Queue, jobs[:3]) {
		if s.ID != "" || !errors.Is(s.Err, context.Canceled) || errors.Is(s.Err, queue.ErrUncertain) {
			t.Errorf("job %d with an ended context: id %q, %v", i, s.ID, s.Err)
		}
	}
	if none := queue.PutAll(ctxOf(t), in.Queue, nil); len(none) != 0 {
		t.Errorf("of no jobs: %v", none)
	}
	if in.Down == nil {
		return
	}
	in.Down(t)
	for i, s := range queue.PutAll(ctxOf(t), in.Queue, jobs[:3]) {
		if s.ID != "" || !errors.Is(s.Err, queue.ErrUnavailable) {
			t.Errorf("job %d with the engine down: id %q, %v, want ErrUnavailable", i, s.ID, s.Err)
		}
	}
	in.Up(t)
}
