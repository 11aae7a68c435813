package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// daemon finishes the jobs of a tube, 20 ms each, until ctx ends.
func daemon(ctx context.Context, t *testing.T, q queue.Queue, tube string, l *ledger) {
	c, err := q.Consume(tube)
	if err != nil {
		t.Error(err)
		return
	}
	var wg sync.WaitGroup
	for {
		jobs, err := c.Receive(ctx, 100)
		if err != nil {
			break
		}
		for _, j := range jobs {
			l.serve(j)
			wg.Go(func() {
				time.Sleep(20 * time.Millisecond)
				err := j.Done(ctx)
				l.finish(j.Body(), err)
				if err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrLost) {
					t.Errorf("done: %v", err)
				}
			})
		}
	}
	wg.Wait()
	closing, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Close(closing); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Three daemons work on one cluster while jobs are put, and the server that
// leads the stream is stopped. Every job is finished, each once, unless there is
// no leader for so long that reservations end: then Done says so.
func TestClusterLosesLeader(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 3)
	o := ns.options(t)
	o.AckWait = 10 * time.Second // what was on its way when the server stopped waits for this
	ctx, stop := context.WithCancel(context.Background())
	var daemons, putters sync.WaitGroup
	defer daemons.Wait()
	defer stop()
	l := newLedger()
	for range 3 {
		q := openReady(t, o)
		daemons.Go(func() { daemon(ctx, t, q, "scale", l) })
	}
	q := openReady(t, o)
	putting, stopPutting := context.WithCancel(ctx)
	defer stopPutting()
	for i := range 50 {
		putters.Go(func() { putUntil(putting, t, q, i, l) })
	}

	eventually(t, "work has begun", func() bool { return l.count() > 500 })
	l.resetGap()
	leader := ns.leader(t, q)
	leader.down()
	before := l.count()
	eventually(t, "work goes on", func() bool { return l.count() > before+1000 })
	t.Logf("leader stopped: nothing finished for %v", l.resetGap())
	if err := leader.up(); err != nil {
		t.Fatal(err)
	}
	before = l.count()
	eventually(t, "work goes on", func() bool { return l.count() > before+1000 })
	t.Logf("it came back: nothing finished for %v", l.resetGap())
	stopPutting()
	putters.Wait()
	for end := time.Now().Add(patience); len(l.missing()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(l.account(t, q, "scale"))
		}
	}
	t.Logf("%d jobs, %d of them finished late", l.count(), l.lates())
	if again := l.repeats(); again != "" {
		t.Errorf("finished more than once:%s", again)
	}
}

// leader is the server that leads the stream of jobs.
func (ns *nodes) leader(t *testing.T, q *client) *node {
	t.Helper()
	s, err := q.link.cn.js.Stream(ctxOf(t), jobsStream)
	if err != nil {
		t.Fatal(err)
	}
	for i, nd := range ns.all {
		if s.CachedInfo().Cluster.Leader == fmt.Sprintf("n%d", i) {
			return nd
		}
	}
	t.Fatal("the stream has no leader")
	return nil
}

// putUntil puts jobs of different names until ctx ends, and enters those that
// were accepted. One whose put failed may have been stored: its name is not
// used again.
func putUntil(ctx context.Context, t *testing.T, q queue.Queue, putter int, l *ledger) {
	for i := 0; ctx.Err() == nil; i++ {
		body := fmt.Appendf(nil, "job %d of %d", i, putter)
		id, err := q.Put(ctx, "scale", body, queue.PutOptions{})
		switch {
		case err == nil:
			l.accept(t, body, id)
		case ctx.Err() == nil && !errors.Is(err, queue.ErrUnavailable):
			t.Errorf("put: %v", err)
		}
		time.Sleep(100 * time.Millisecond) // not an overload
	}
}

// All servers of a cluster go and come back. What was finished meanwhile is not served again,
// though Done may say that it could have been: there is a new leader.
func TestClusterGoesAway(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 3)
	o := ns.options(t)
	o.AckWait = time.Minute
	q := openReady(t, o)
	c := consumeTest(t, q, "away")
	const n = 50
	for i := range n {
		mustPut(t, q, "away", fmt.Sprint(i))
	}
	jobs := mustReceive(t, c, n/2)
	ns.down()
	eventually(t, "the queue says so", func() bool { return errors.Is(c.Err(), queue.ErrUnavailable) })
	if _, err := q.Put(ctxOf(t), "away", nil, queue.PutOptions{}); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("put: %v", err)
	}
	errs := make(chan error)
	for _, j := range jobs {
		go func() { errs <- j.Done(ctxOf(t)) }()
	}
	if err := ns.up(); err != nil {
		t.Fatal(err)
	}
	for range jobs {
		if err := <-errs; err != nil && !errors.Is(err, queue.ErrLost) {
			t.Errorf("done over the outage: %v", err)
		}
	}
	mustDone(t, mustReceive(t, c, n-len(jobs))...)
	mustNone(t, c)
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
}

// A daemon that dies without a word leaves its jobs to the others when their
// reservations end, and not before.
func TestTakeover(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	o.AckWait = 3 * time.Second
	dying, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	awaitReady(t, dying)
	id := mustPut(t, dying, "takeover", "x")
	c, err := dying.Consume("takeover")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	j := mustReceive(t, c, 1)[0]
	dying.link.cn.nc.Close() // no give-back, no farewell
	if err := dying.Close(); err != nil {
		t.Fatal(err)
	}

	heir := consumeTest(t, openReady(t, o), "takeover")
	j2 := mustReceive(t, heir, 1)[0]
	if took := time.Since(began); took < o.AckWait {
		t.Errorf("taken over after %v, before %v had passed", took, o.AckWait)
	}
	if st, _ := j2.Stat(ctxOf(t)); j2.ID() != id || j.ID() != id || st.Attempt != 2 {
		t.Errorf("id %s and %s, want %s; attempt %d", j.ID(), j2.ID(), id, st.Attempt)
	}
	mustDone(t, j2)
}

// Without a server everything says so, and nothing waits; when it comes, all
// goes on.
func TestServerComesLate(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	ns.down()
	log, lines := newLog()
	o := ns.options(t)
	o.Log = log
	q := openTest(t, o)
	if _, err := q.Put(ctxOf(t), "late", nil, queue.PutOptions{}); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("put: %v", err)
	}
	if _, err := q.TubeStats(ctxOf(t), "late"); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("stats: %v", err)
	}
	c := consumeTest(t, q, "late")
	if err := c.Err(); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("err: %v", err)
	}
	got := make(chan queue.Job, 1)
	go func() { got <- mustReceive(t, c, 1)[0] }()
	if err := ns.up(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a put is accepted", func() bool {
		_, err := q.Put(ctxOf(t), "late", []byte("x"), queue.PutOptions{})
		return err == nil
	})
	mustDone(t, <-got)
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	if text := lines.String(); text == "" {
		t.Error("nothing was logged")
	}
}
