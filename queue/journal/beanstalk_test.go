package journal

import (
	"context"
	"fmt"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
)

// The journal beside a real beanstalkd.

const patience = 60 * time.Second

func openQueue(t *testing.T, srv *beanstalktest.Server) queue.Queue {
	t.Helper()
	q, err := beanstalk.Open(beanstalk.Options{Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// buryJobs buries n jobs as a worker does: first the journal, then the queue.
func buryJobs(t *testing.T, q queue.Queue, j *Journal, n int, reason func(i int) string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := q.Consume("app")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	for i := range n {
		if _, err := q.Put(ctx, "app", fmt.Appendf(nil, "job %d", i), queue.PutOptions{}); err != nil {
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
			if _, err := fmt.Sscanf(string(job.Body()), "job %d", &i); err != nil {
				t.Fatal(err)
			}
			j.Buried(Entry{ID: job.ID(), Topic: "app", Tube: "app", Class: "rejected", Reason: reason(i), Sum: Sum(job.Body())})
			if err := job.Bury(ctx, nil); err != nil {
				t.Fatal(err)
			}
		}
		done += len(jobs)
	}
}

// receiveAll returns the bodies of all jobs that are ready, and finishes them.
func receiveAll(t *testing.T, q queue.Queue, n int) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := q.Consume("app")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	got := make(map[string]int)
	for done := 0; done < n; {
		jobs, err := c.Receive(ctx, n-done)
		if err != nil {
			t.Fatalf("%v after %d of %d jobs", err, done, n)
		}
		for _, job := range jobs {
			got[string(job.Body())]++
			if err := job.Done(ctx); err != nil {
				t.Fatal(err)
			}
		}
		done += len(jobs)
	}
	return got
}

// A thousand jobs buried for three reasons; one reason is kicked.
func TestKickByReason(t *testing.T) {
	t.Parallel()
	const n = 1000
	q := openQueue(t, beanstalktest.Start(t))
	j := openTest(t, t.TempDir(), Options{})
	reasons := []string{"BadCollapseId", "PayloadTooLarge", "BadTopic"}
	reason := func(i int) string { return reasons[i%3] }
	buryJobs(t, q, j, n, reason)
	v := Jobs{Queue: q.(queue.Admin), Journal: j}
	r, err := v.Kick(context.Background(), "app", Filter{Reason: "payloadtoolarge"})
	if err != nil || r != (Result{N: 333}) {
		t.Fatalf("%+v, %v", r, err)
	}
	got := receiveAll(t, q, r.N)
	for i := range n {
		want := 0
		if i%3 == 1 {
			want = 1
		}
		if body := fmt.Sprintf("job %d", i); got[body] != want {
			t.Fatalf("%s came %d times, want %d", body, got[body], want)
		}
	}
	items, more, err := v.List(context.Background(), "app", Filter{})
	if err != nil || more || len(items) != n-333 {
		t.Fatalf("%d left, more %t, %v", len(items), more, err)
	}
	r, err = v.Delete(context.Background(), "app", Filter{})
	if err != nil || r.N != n-333 {
		t.Fatalf("%+v, %v", r, err)
	}
	if st, err := v.Queue.TubeStats(context.Background(), "app"); err != nil || st != (queue.TubeStats{}) || length(t, j, "app") != 0 {
		t.Fatalf("%+v, %v, %d entries", st, err, length(t, j, "app"))
	}
}

// Without a binlog, beanstalkd counts from 1 again when it is restarted: the
// journal's reasons are not those of the jobs that have the ids now.
func TestIDsReusedAfterRestart(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openQueue(t, srv)
	j := openTest(t, t.TempDir(), Options{})
	buryJobs(t, q, j, 3, func(int) string { return "before" })
	srv.Restart()
	c := srv.Dial()
	c.Tube.Name = "app"
	c.TubeSet.Name = map[string]bool{"app": true}
	for i := range 2 { // by a program that keeps no journal
		id, err := c.Put(fmt.Appendf(nil, "new %d", i), 1, 0, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Reserve(0); err != nil {
			t.Fatal(err)
		}
		if err := c.Bury(id, 1); err != nil {
			t.Fatal(err)
		}
	}
	v := Jobs{Queue: q.(queue.Admin), Journal: j}
	if r, err := v.Kick(context.Background(), "app", Filter{Reason: "before"}); r.N != 0 {
		t.Fatalf("%+v, %v: those jobs are gone", r, err)
	}
	items, _, err := v.List(context.Background(), "app", Filter{})
	if err != nil || len(items) != 2 {
		t.Fatalf("%+v, %v", items, err)
	}
	for _, it := range items {
		if it.Reason != NoReason {
			t.Fatalf("%+v", it)
		}
	}
}

// The journal is lost: the jobs are found again, and explained where possible.
func TestRebuild(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t, beanstalktest.WithBinlog()))
	lost := openTest(t, t.TempDir(), Options{})
	const n = 200
	buryJobs(t, q, lost, n, func(int) string { return "lost" })
	j := openTest(t, t.TempDir(), Options{})
	v := Jobs{Queue: q.(queue.Admin), Journal: j, Explain: func(body []byte) string {
		if string(body) == "job 7" {
			return "seven"
		}
		return ""
	}}
	for want := n; want >= 0; want -= n { // the second time nothing is new
		if got, err := v.Rebuild(context.Background(), "app"); err != nil || got != want {
			t.Fatalf("%d entered, %v, want %d", got, err, want)
		}
	}
	for reason, want := range map[string]int{"seven": 1, NoReason: n - 1} {
		items, _, err := v.List(context.Background(), "app", Filter{Reason: reason})
		if err != nil || len(items) != want {
			t.Fatalf("%q: %d jobs, %v", reason, len(items), err)
		}
	}
	if r, err := v.Kick(context.Background(), "app", Filter{}); err != nil || r.N != n {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := receiveAll(t, q, n); len(got) != n {
		t.Fatalf("%d jobs came", len(got))
	}
}
