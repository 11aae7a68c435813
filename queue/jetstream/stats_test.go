package jetstream

import (
	"fmt"
	"testing"
	"time"

	"propeller/queue"
)

// A thousand questions in a row cost a few requests, and see at once what this
// process did.
func TestOverview(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	stats := func(tube string) queue.TubeStats {
		t.Helper()
		st, err := q.TubeStats(ctxOf(t), tube)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	c := consumeTest(t, q, "com.example.some")
	mustPut(t, q, "com.example.some", "a")
	mustPut(t, q, "com.example.some", "b")
	if _, err := q.Put(ctxOf(t), "com.example.later", nil, queue.PutOptions{Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	j := mustReceive(t, c, 1)[0]
	requests := q.calls.next
	for i := range 1000 {
		if st := stats(fmt.Sprintf("com.example.none%d", i)); st != (queue.TubeStats{}) {
			t.Fatalf("%+v", st)
		}
		if i == 500 { // it is there, and its own questions leave the overview valid
			if st, want := stats("com.example.some"), (queue.TubeStats{Ready: 1, Reserved: 1}); st != want {
				t.Fatalf("%+v, want %+v", st, want)
			}
		}
	}
	if n := q.calls.next - requests; n > 500 { // 3 each, without
		t.Errorf("%d requests", n)
	}
	if st, want := stats("com.example.later"), (queue.TubeStats{Delayed: 1}); st != want {
		t.Errorf("%+v, want %+v", st, want)
	}
	if err := j.Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	if st, want := stats("com.example.some"), (queue.TubeStats{Ready: 1, Buried: 1}); st != want {
		t.Errorf("buried: %+v, want %+v", st, want)
	}
	if err := q.Delete(ctxOf(t), "com.example.some", j.ID()); err != nil {
		t.Fatal(err)
	}
	mustDone(t, mustReceive(t, c, 1)...)
	if st := stats("com.example.some"); st != (queue.TubeStats{}) {
		t.Errorf("at the end: %+v", st)
	}
}

// What others put is seen within a second or so.
func TestOverviewOfOthers(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	q, other := openReady(t, o), openReady(t, o)
	if st, err := q.TubeStats(ctxOf(t), "tube"); err != nil || st != (queue.TubeStats{}) {
		t.Fatalf("%+v, %v", st, err)
	}
	mustPut(t, other, "tube", "x")
	eventually(t, "it is seen", func() bool {
		st, err := q.TubeStats(ctxOf(t), "tube")
		return err == nil && st == (queue.TubeStats{Ready: 1})
	})
}

// More subjects than are listed: each tube is asked for.
func TestOverviewTooLarge(t *testing.T) {
	t.Parallel()
	tubes := make(map[string]tubeCounts)
	addSubject(tubes, jobSubject("a.b"), 3)
	addSubject(tubes, schedSubject("a.b", "d1"), 1)
	addSubject(tubes, schedSubject("a.b", "d2"), 1)
	addSubject(tubes, buriedSubject("a.b", "7"), 1)
	addSubject(tubes, buriedPrefix+"odd", 1) // of another program
	if want := (tubeCounts{jobs: 3, delayed: 2, buried: 1}); tubes["a.b"] != want || len(tubes) != 1 {
		t.Errorf("%+v, want %+v", tubes, want)
	}

	q := openEmbedded(t)
	for i := range overviewMax + 1 {
		if err := q.link.cn.nc.Publish(jobSubject(fmt.Sprint("t", i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are stored", func() bool {
		info, err := q.streamInfo(ctxOf(t), q.link.cn, jobsStream, "", 0)
		return err == nil && info.State.NumSubjects == overviewMax+1
	})
	if st, err := q.TubeStats(ctxOf(t), "t77"); err != nil || st != (queue.TubeStats{Ready: 1}) {
		t.Errorf("%+v, %v", st, err)
	}
	if q.overviews.last.tubes != nil {
		t.Error("subjects were listed")
	}
}
