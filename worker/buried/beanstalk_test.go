package buried

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queuetest"
)

// Jobs on a real beanstalkd.

const patient = time.Minute // far more than a busy machine needs

func openQueue(t *testing.T, servers ...*beanstalktest.Server) queue.Queue {
	t.Helper()
	var o beanstalk.Options
	for _, srv := range servers {
		o.Addrs = append(o.Addrs, srv.Addr())
	}
	q, err := beanstalk.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// buryJobs buries n jobs as a worker does, and reports them to v unless it is nil.
func buryJobs(t *testing.T, q queue.Queue, v *Jobs, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	for i := range n {
		if _, err := q.Put(ctx, tube, fmt.Append(nil, i), queue.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for done := 0; done < n; {
		jobs, err := c.Receive(ctx, n-done)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			var i int
			if _, err := fmt.Sscan(string(job.Body()), &i); err != nil {
				t.Fatal(err)
			}
			body := body(i, reason(i))
			if err := job.Bury(ctx, body); err != nil {
				t.Fatal(err)
			}
			if v != nil {
				e := entryOf(tube, topic, queue.StoredJob{Body: body})
				v.Index.Told(tube, job.ID(), e.Burial)
			}
		}
		done += len(jobs)
	}
}

// reasons counts the jobs of a complete list by their reasons.
func reasons(t *testing.T, v Jobs) map[string]int {
	t.Helper()
	l := mustList(t, v, Filter{})
	if l.More || !l.Complete {
		t.Fatalf("more %t, complete %t", l.More, l.Complete)
	}
	n := make(map[string]int)
	for _, it := range l.Items {
		n[it.Reason]++
	}
	return n
}

// Jobs are buried for three reasons, and one reason is kicked, whether a worker reported them
// or not.
func TestKickByReason(t *testing.T) {
	t.Parallel()
	const n = 600
	for _, told := range []bool{true, false} {
		q := openQueue(t, beanstalktest.Start(t))
		v := viewOf(q.(queue.Admin))
		mustList(t, v, Filter{})
		if told {
			buryJobs(t, q, &v, n)
		} else {
			buryJobs(t, q, nil, n)
			v.Index.rested()
		}
		if r, err := v.Kick(t.Context(), Filter{Reason: "reason 1"}); err != nil || len(r.Jobs) != n/3 || r.More {
			t.Fatalf("%+v, %v", r, err)
		}
		st, err := v.Queue.TubeStats(t.Context(), tube)
		if want := (queue.TubeStats{Ready: n / 3, Buried: n - n/3}); err != nil || st != want {
			t.Fatalf("%+v, %v", st, err)
		}
		if got := reasons(t, v); got[reason(0)] != n/3 || got[reason(2)] != n/3 || len(got) != 2 {
			t.Fatalf("left: %v", got)
		}
		if r, err := v.Delete(t.Context(), Filter{IDs: []string{"first-0"}}); err != nil || len(r.Jobs) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err := v.Delete(t.Context(), Filter{}); err != nil || len(r.Jobs) != n-n/3-1 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
}

// With a second server all of the queue's ids change; the jobs, their reasons and their
// producer's ids do not.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	const n = 6
	a, b := beanstalktest.Start(t), beanstalktest.Start(t)
	buryJobs(t, openQueue(t, a), nil, n)
	v := viewOf(openQueue(t, a, b).(queue.Admin))
	if got := reasons(t, v); len(got) != 3 || got[reason(0)] != n/3 {
		t.Fatalf("listed %v", got)
	}
	if it, err := v.Show(t.Context(), "first-3"); err != nil || it.Reason != reason(3) {
		t.Fatalf("%+v, %v", it, err)
	}
	if r, err := v.Kick(t.Context(), Filter{}); err != nil || len(r.Jobs) != n {
		t.Fatalf("%+v, %v", r, err)
	}
}

// Another process lists, and holds one job after the other for a moment. Kicking all kicks
// all jobs but those that it buries again.
func TestKickWhileListedElsewhere(t *testing.T) {
	t.Parallel()
	const n = 300
	srv := beanstalktest.Start(t)
	q, elsewhere := openQueue(t, srv), openQueue(t, srv)
	v := viewOf(q.(queue.Admin))
	buryJobs(t, q, nil, n)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for kicked := 0; ; v.Index.rested() { // the other process may hold one
		other, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			for other.Err() == nil {
				if _, err := queuetest.Buried(other, elsewhere.(queue.Admin), tube, n+1); err != nil && other.Err() == nil {
					t.Error(err)
				}
			}
		})
		r, err := v.Kick(ctx, Filter{})
		stop()
		wg.Wait()
		if kicked += len(r.Jobs); err != nil && !errors.Is(err, queue.ErrBusy) {
			t.Fatalf("%+v, %v", r, err)
		}
		st, err := v.Queue.TubeStats(ctx, tube)
		if err != nil || len(r.Jobs) == 0 && st.Buried > 0 && ctx.Err() != nil {
			t.Fatalf("%+v, %v", st, err)
		}
		if st.Buried == 0 {
			if kicked < n {
				t.Errorf("%d kicked", kicked)
			}
			return
		}
	}
}
