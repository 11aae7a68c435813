package jetstream

import (
	"strings"
	"testing"
	"time"

	"propeller/queue"
)

// What is published on the subject of schedules without being one would lie there for ever:
// it comes to a worker, with why it can never work.
func TestUnscheduled(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	raw := openRaw(t, o)
	o.lookEvery = 50 * time.Millisecond
	q := openReady(t, o)
	c := consumeTest(t, q, "some.tube")
	if _, err := q.Put(ctxOf(t), "some.tube", []byte("later"), queue.PutOptions{Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"propeller.sched.some.tube.1", "propeller.sched.some.tube"} { // with an id, and without
		if _, err := raw.Request(subject, []byte("lost"), patience); err != nil {
			t.Fatal(err)
		}
		j := mustReceive(t, c, 1)[0].(*job)
		if err := j.Fault(); string(j.Body()) != "lost" || err == nil || !strings.Contains(err.Error(), "without a Nats-Schedule header") {
			t.Fatalf("%s: %q, %v", subject, j.Body(), err)
		}
		if err := j.Bury(ctxOf(t), []byte("lost, and why")); err != nil {
			t.Fatal(err)
		}
		if err := q.Kick(ctxOf(t), "some.tube", j.ID()); err != nil {
			t.Fatal(err)
		}
		kicked := mustReceive(t, c, 1)[0].(*job)
		if err := kicked.Fault(); err != nil {
			t.Errorf("kicked, and still: %v", err)
		}
		mustDone(t, kicked)
	}
	mustPut(t, q, "some.tube", "now")
	now := mustReceive(t, c, 1)[0].(*job)
	if err := now.Fault(); err != nil || string(now.Body()) != "now" {
		t.Errorf("%q, %v", now.Body(), err)
	}
	mustDone(t, now)
	eventually(t, "the real schedule is left alone, and nothing else is there", func() bool {
		st, err := q.TubeStats(ctxOf(t), "some.tube")
		return err == nil && st == queue.TubeStats{Delayed: 1}
	})
}
