package jetstream

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

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
		for last := new(ackFloors); err == nil && ctx.Err() == nil; {
			last, err = q.lookForOrphans(last)
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

// A folder in which the consumer is done with jobs that the stream still has, as
// a kill between the two leaves it: the jobs are served again, under their ids.
func TestLeftJobsAreServed(t *testing.T) {
	t.Parallel()
	o := Options{URL: embeddedIn(t.TempDir())}
	const tube, jobs = "left", 3
	q := openTest(t, o)
	ids := map[string]bool{}
	for range jobs {
		ids[mustPut(t, q, tube, "job")] = true
	}
	mustPut(t, q, tube, "later") // for which the consumer stays
	closeNow(t, q)
	messages := filepath.Join("jetstream", "$G", "streams", jobsStream, "msgs")
	kept := t.TempDir()
	if err := os.CopyFS(kept, os.DirFS(filepath.Join(o.Dir, messages))); err != nil {
		t.Fatal(err)
	}

	q = openTest(t, o)
	finish(t, q, tube, jobs)
	if err := mustReceive(t, consumeTest(t, q, tube), 1)[0].Retry(ctxOf(t), time.Hour); err != nil {
		t.Fatal(err)
	}
	closeNow(t, q)
	if err := os.RemoveAll(filepath.Join(o.Dir, messages)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(o.Dir, messages), os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}

	q = openTest(t, o)
	mustPut(t, q, tube, "new")
	for _, j := range finish(t, q, tube, jobs+1) {
		if string(j.Body()) == "job" {
			if !ids[j.ID()] {
				t.Errorf("id %q, put as one of %v", j.ID(), ids)
			}
			delete(ids, j.ID())
		}
		if left := j.(*job).Repeats(); left != (string(j.Body()) == "job") {
			t.Errorf("%q may repeat: %v", j.Body(), left)
		}
	}
	if len(ids) > 0 {
		t.Errorf("not served: %v", ids)
	}
	eventually(t, "nothing is left", func() bool {
		s, err := q.TubeStats(ctxOf(t), tube)
		return err == nil && s.Ready == 0 && s.Reserved == 1 // the one that comes later
	})
}

// finish receives n jobs of a tube and finishes them.
func finish(t *testing.T, q *client, tube string, n int) []queue.Job {
	t.Helper()
	c := consumeTest(t, q, tube)
	jobs := mustReceive(t, c, n)
	mustDone(t, jobs...)
	endNow(t, c)
	return jobs
}
