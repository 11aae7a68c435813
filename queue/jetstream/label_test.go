package jetstream

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
	"propeller/queue/queuetest"
)

// forge publishes a job as any client may that knows the subject.
func forge(t *testing.T, q *client, tube, body string, h nats.Header) {
	t.Helper()
	if _, err := q.link.cn.js.PublishMsg(ctxOf(t), &nats.Msg{Subject: jobSubject(tube), Data: []byte(body), Header: h}); err != nil {
		t.Fatal(err)
	}
}

// A job that calls itself by the id of a buried one, of its own tube or of another, does
// not get in its place: neither when it is served, nor when it is buried.
func TestForgedIDOverwritesNothing(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	true1 := buryOne(t, q, "tube", "true", "true buried")
	named, err := q.Put(ctxOf(t), "tube", []byte("named"), queue.PutOptions{Delay: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c := consumeTest(t, q, "tube")
	j := mustReceive(t, c, 1)[0]
	if j.ID() != named {
		t.Fatalf("a delayed job has the id %q, was put as %q", j.ID(), named)
	}
	if err := j.Bury(ctxOf(t), []byte("named buried")); err != nil {
		t.Fatal(err)
	}
	true2 := j.ID()
	for _, id := range []string{true1, named, true2} {
		for _, tube := range []string{"tube", "other"} {
			forge(t, q, tube, "forged", nats.Header{headerID: {id}, headerKicked: {"1"}})
			j := mustReceive(t, consumeTest(t, q, tube), 1)[0]
			if got := j.ID(); got == true1 || got == true2 {
				t.Errorf("in %q a forged job is served as %q", tube, got)
			}
			if err := j.Bury(ctxOf(t), []byte("forged buried")); err != nil {
				t.Fatal(err)
			}
			mustPeek(t, q, tube, j.ID(), "forged buried")
		}
	}
	mustPeek(t, q, "tube", true1, "true buried")
	mustPeek(t, q, "tube", true2, "named buried")
	if all, err := queuetest.Buried(ctxOf(t), q, "tube", 10); err != nil || len(all) != 2+3 {
		t.Errorf("%d buried, %v", len(all), err)
	}
}

// Nor is a job taken for the second copy of a forged one, and so for finished.
func TestForgedCopyFinishesNothing(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	id := newID()
	forge(t, q, "tube", "forged", nats.Header{headerID: {id}, jsScheduler: {schedSubject("tube", id)}, "Nats-Schedule-Next": {"purge"}})
	mustDone(t, mustReceive(t, c, 1)...)
	fire(t, q, "tube", id)
	if j := mustReceive(t, c, 1)[0]; j.ID() != id || string(j.Body()) == "forged" {
		t.Errorf("%q %q", j.ID(), j.Body())
	}
}

// A kick by another process keeps the label, though this one does not believe it.
func TestKickedElsewhere(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	id := buryOne(t, q, "tube", "job", "buried")
	if err := q.Kick(ctxOf(t), "tube", id); err != nil {
		t.Fatal(err)
	}
	q.labels.mu.Lock()
	clear(q.labels.known)
	q.labels.mu.Unlock()
	j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
	if j.ID() == id {
		t.Errorf("a label that anybody may have written is believed: %q", id)
	}
	if err := j.Bury(ctxOf(t), []byte("again")); err != nil {
		t.Fatal(err)
	}
	mustPeek(t, q, "tube", j.ID(), "again")
}
