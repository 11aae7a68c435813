package jetstream

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// What the server had sent once more before it heard that the job was finished
// comes after that, and is nobody's.
func TestServedOnItsWay(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "job")
	j := mustReceive(t, c, 1)[0].(*job)
	mustDone(t, j)
	first := j.address()
	again := strings.Replace(first, ".1.", ".2.", 1) // the second try
	if d, err := parseDelivery(again); err != nil || d.tries != 2 || d.numbered() != j.d.numbered() {
		t.Fatalf("%s: %+v, %v", again, d, err)
	}
	c.incoming(&nats.Msg{Subject: c.inbox + "1", Reply: again, Data: j.Body()})
	mustNone(t, c)
}

// fire has the server store what it makes of a schedule.
func fire(t *testing.T, q *client, tube, id string) {
	t.Helper()
	cn, err := q.link.get(ctxOf(t), untilTried)
	if err != nil {
		t.Fatal(err)
	}
	m := &nats.Msg{Subject: jobSubject(tube), Data: []byte("fired"), Header: nats.Header{
		headerID: {id}, jsScheduler: {schedSubject(tube, id)}, "Nats-Schedule-Next": {"purge"},
	}}
	if _, err := q.store(ctxOf(t), cn, m); err != nil {
		t.Fatal(err)
	}
}

// A schedule that the server fires twice is one job, whatever has become of the
// first copy.
func TestFiredTwice(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	id := newID()
	fire(t, q, "tube", id)
	fire(t, q, "tube", id) // comes while the first is held
	first := mustReceive(t, c, 1)
	mustNone(t, c)
	mustDone(t, first...)
	fire(t, q, "tube", id) // and when it is finished
	ctx, stop := context.WithCancel(ctxOf(t))
	served := make(chan int, 1)
	go func() {
		jobs, _ := c.Receive(ctx, 1)
		served <- len(jobs)
	}()
	eventually(t, "nothing is left", func() bool {
		s, err := q.TubeStats(ctxOf(t), "tube")
		return err == nil && s == (queue.TubeStats{})
	})
	stop()
	if n := <-served; n > 0 {
		t.Error("served twice")
	}
}

// A job that was given back is not a copy of itself, nor is one that was kicked.
func TestFiredOnce(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	c := consumeTest(t, q, "tube")
	id := newID()
	fire(t, q, "tube", id)
	j := mustReceive(t, c, 1)[0]
	if err := j.Retry(ctxOf(t), 0); err != nil {
		t.Fatal(err)
	}
	j = mustReceive(t, c, 1)[0]
	if err := j.Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	if err := q.Kick(ctxOf(t), "tube", j.ID()); err != nil {
		t.Fatal(err)
	}
	mustDone(t, mustReceive(t, c, 1)...)
}

// What was finished is known for a while, whatever came before.
func TestFinished(t *testing.T) {
	t.Parallel()
	var f finished
	const more = 10
	for seq := range uint64(recentMax + more) {
		f.add(numbered{seq, 1})
	}
	for seq, want := range map[uint64]bool{0: false, more - 1: false, more: true, recentMax + more - 1: true, recentMax + more: false} {
		if got := f.has(numbered{seq, 1}); got != want {
			t.Errorf("job %d: %v", seq, got)
		}
	}
	if f.has(numbered{more, 2}) {
		t.Error("a job of another time under the same number")
	}
}
