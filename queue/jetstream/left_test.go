package jetstream

import (
	"context"
	"testing"

	"propeller/queue"
)

// Looking for left jobs at any time has none of those served twice that are
// ready, held, being finished, or wait for another try.
func TestLookForLeftDisturbsNothing(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	const jobs = 500
	ctx, stop := context.WithCancel(ctxOf(t))
	looks := make(chan error, 1)
	go func() {
		var err error
		for last := (floors{}); err == nil && ctx.Err() == nil; {
			last, err = q.lookForLeft(last)
		}
		looks <- err
	}()
	c := consumeTest(t, q, "tube")
	for range jobs {
		mustPut(t, q, "tube", "job")
	}
	held := mustReceive(t, c, 1)
	again := mustReceive(t, c, 1)
	if err := again[0].Retry(ctxOf(t), 0); err != nil {
		t.Fatal(err)
	}
	for range jobs - 1 {
		mustDone(t, mustReceive(t, c, 1)...)
	}
	mustDone(t, held...)
	mustNone(t, c)
	stop()
	if err := <-looks; err != nil {
		t.Error(err)
	}
	if st, err := q.TubeStats(ctxOf(t), "tube"); err != nil || st != (queue.TubeStats{}) {
		t.Errorf("left: %+v, %v", st, err)
	}
}

// What was finished is known for a while, whatever came before.
func TestFinished(t *testing.T) {
	t.Parallel()
	var f finished
	const more = 10
	for seq := range uint64(finishedMax + more) {
		f.add(seq, 1)
	}
	for seq, want := range map[uint64]bool{0: false, more - 1: false, more: true, finishedMax + more - 1: true, finishedMax + more: false} {
		if got := f.has(seq, 1); got != want {
			t.Errorf("job %d: %v", seq, got)
		}
	}
	if f.has(more, 2) {
		t.Error("a job of another time under the same number")
	}
}
