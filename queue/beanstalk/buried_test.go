package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queuetest"
)

// buryForeign puts n jobs as another client would, with priorities from 100
// down, and buries them in the order of their ids.
func buryForeign(t *testing.T, srv *beanstalktest.Server, tube string, n int) []uint64 {
	t.Helper()
	c := srv.Dial()
	c.Tube.Name = tube
	c.TubeSet.Name = map[string]bool{tube: true}
	var ids []uint64
	for i := range n {
		id, err := c.Put(fmt.Appendf(nil, "body %d", i), 0, 0, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Reserve(0); err != nil {
			t.Fatal(err)
		}
		if err := c.Bury(id, priorityOf(i)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func priorityOf(i int) uint32 { return uint32(1_000_000 - i) }

// Listing all shows each job once and leaves order and priorities alone.
func TestBuriedKeepsOrder(t *testing.T) {
	t.Parallel()
	const n = 300
	srv := beanstalktest.Start(t, beanstalktest.WithBinlog())
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	ids := buryForeign(t, srv, "tube", n)
	for _, limit := range []int{n + 1, 2 * n} {
		jobs, err := queuetest.Buried(ctxOf(t), q, "tube", limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(jobs) != n {
			t.Fatalf("%d jobs, want %d", len(jobs), n)
		}
		for i, b := range jobs {
			if b.ID != fmt.Sprint(ids[i]) || string(b.Body) != fmt.Sprintf("body %d", i) {
				t.Fatalf("place %d: job %s %q", i, b.ID, b.Body)
			}
		}
	}
	c := srv.Dial()
	c.Tube.Name = "tube"
	for i, id := range ids {
		stats, err := c.StatsJob(id)
		if err != nil {
			t.Fatal(err)
		}
		if stats["pri"] != fmt.Sprint(priorityOf(i)) || unquote(stats["state"]) != "buried" {
			t.Fatalf("job %d: priority %s, state %s", id, stats["pri"], stats["state"])
		}
	}
	if id, _, err := c.PeekBuried(); err != nil || id != ids[0] {
		t.Fatalf("first is %d (%v), want %d", id, err, ids[0])
	}
}

// One job, or one asked for, is only looked at.
func TestBuriedOneIsNotTouched(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	one := buryForeign(t, srv, "one", 1)
	many := buryForeign(t, srv, "many", 5)
	for tube, limit := range map[string]int{"one": 100, "many": 1} {
		if jobs, err := queuetest.Buried(ctxOf(t), q, tube, limit); err != nil || len(jobs) != 1 {
			t.Fatalf("%s: %d jobs, %v", tube, len(jobs), err)
		}
	}
	c := srv.Dial()
	for _, id := range []uint64{one[0], many[0]} {
		if stats, err := c.StatsJob(id); err != nil || stats["buries"] != "1" || stats["reserves"] != "1" {
			t.Fatalf("job %d: %v, %v", id, stats, err)
		}
	}
}

// A listing that is called off leaves every job buried.
func TestBuriedCalledOff(t *testing.T) {
	t.Parallel()
	const n = 400
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	buryForeign(t, srv, "tube", n)
	for wait := time.Millisecond; ; wait *= 2 {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		jobs, err := queuetest.Buried(ctx, q, "tube", n)
		cancel()
		st, serr := q.TubeStats(ctxOf(t), "tube")
		if serr != nil || st.Buried != n {
			t.Fatalf("after %v: %+v, %v", wait, st, serr)
		}
		if err == nil {
			if len(jobs) != n {
				t.Fatalf("%d jobs", len(jobs))
			}
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
}

// While others kick and delete, a listing ends and shows no job twice.
func TestBuriedWhileOthersWork(t *testing.T) {
	t.Parallel()
	const n = 300
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	ids := buryForeign(t, srv, "tube", n)
	ctx := ctxOf(t)
	gone := make(chan error, 1)
	go func() {
		var errs []error
		for i, id := range ids[:n/2] {
			do := q.Kick
			if i%2 == 0 {
				do = q.Delete
			}
			// A job that the listing has in its hand is not buried for an instant.
			if err := do(ctx, "tube", fmt.Sprint(id)); !errors.Is(err, queue.ErrNotFound) {
				errs = append(errs, err)
			}
		}
		gone <- errors.Join(errs...)
	}()
	jobs, err := queuetest.Buried(ctx, q, "tube", n)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, b := range jobs {
		if seen[b.ID] {
			t.Fatalf("job %s twice", b.ID)
		}
		seen[b.ID] = true
	}
	for _, id := range ids[n/2:] {
		if !seen[fmt.Sprint(id)] {
			t.Fatalf("job %d is not in the list", id)
		}
	}
}

func TestBuriedIDs(t *testing.T) {
	t.Parallel()
	one := openTest(t, Options{Addrs: []string{"a:1"}})
	two := openTest(t, Options{Addrs: []string{"a:1", "b:2"}})
	for _, tt := range []struct {
		q    *client
		id   string
		addr string // "": refused
		n    uint64
	}{
		{one, "12", "a:1", 12},
		{one, "a:1/12", "a:1", 12}, // written down when there were two
		{one, "b:2/12", "", 0},
		{two, "b:2/18446744073709551615", "b:2", 1<<64 - 1},
		{two, "12", "", 0},
		{two, "c:3/12", "", 0},
		{two, "a:1/", "", 0},
		{two, "/12", "", 0},
		{one, "/12", "a:1", 12},
		{one, "", "", 0},
		{one, "+12", "", 0},
		{one, "1\r\n", "", 0},
		{one, "18446744073709551616", "", 0},
	} {
		srv, n, err := tt.q.locate(tt.id)
		switch {
		case tt.addr == "" && !errors.Is(err, queue.ErrRejected):
			t.Errorf("%q: %v, want ErrRejected", tt.id, err)
		case tt.addr != "" && (err != nil || srv.addr != tt.addr || n != tt.n):
			t.Errorf("%q: %v, %d, %v", tt.id, srv, n, err)
		}
	}
}

// openFake opens a queue on a scripted server.
func openFake(t *testing.T, f *fake) *client {
	t.Helper()
	return openTest(t, Options{Addrs: []string{f.listen(t)}})
}

// A server of several down: the others' jobs and an error.
func TestBuriedOneServerDown(t *testing.T) {
	t.Parallel()
	up, down := beanstalktest.Start(t), beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{down.Addr(), up.Addr()}})
	buryForeign(t, up, "tube", 3)
	down.Kill()
	jobs, err := queuetest.Buried(ctxOf(t), q, "tube", 10)
	if len(jobs) != 3 || !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), down.Addr()) {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	if !strings.HasPrefix(jobs[0].ID, up.Addr()+"/") {
		t.Fatalf("id %q", jobs[0].ID)
	}
	if err := q.Kick(ctxOf(t), "tube", jobs[0].ID); err != nil {
		t.Fatal(err)
	}
}

// stats113 are 1.13's of a buried job: its strings are quoted.
var stats113 = yaml("id: 7", `tube: "tube"`, `state: "buried"`, "pri: 5", "age: 9", "reserves: 2", "buries: 1", "kicks: 0")

// buriedFake is a server with one job in its hand: what is not scripted is as
// 1.13 answers, with two jobs buried.
func buriedFake(special map[string]string) *fake {
	table := map[string]string{
		"stats-tube":  yaml("current-jobs-ready: 0", "current-jobs-delayed: 0", "current-jobs-reserved: 0", "current-jobs-buried: 2", "pause-time-left: 0"),
		"stats-job":   stats113,
		"peek":        "FOUND 7 2\r\nhi",
		"peek-buried": "FOUND 7 2\r\nhi",
		"reserve-job": "RESERVED 7 2\r\nhi",
		"bury":        "BURIED",
		"kick-job":    "KICKED",
		"delete":      "DELETED",
	}
	for cmd, answer := range special {
		table[cmd] = answer
	}
	return &fake{script: answers(table)}
}

func TestBuriedQuotedStatistics(t *testing.T) {
	t.Parallel()
	q := openFake(t, buriedFake(nil))
	b, err := q.Peek(ctxOf(t), "tube", "7")
	if err != nil || b.ID != "7" || string(b.Body) != "hi" || b.Age != 9*time.Second {
		t.Fatalf("%+v, %v", b, err)
	}
	if jobs, err := queuetest.Buried(ctxOf(t), q, "tube", 10); err != nil || len(jobs) != 1 {
		t.Fatalf("%d jobs, %v", len(jobs), err) // the second is the first again
	}
	if err := errors.Join(q.Kick(ctxOf(t), "tube", "7"), q.Delete(ctxOf(t), "tube", "7")); err != nil {
		t.Fatal(err)
	}
}

// What can go wrong while a job is in the hand.
func TestBuriedTrouble(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		special map[string]string
		jobs    int
		want    string // in the error; "": none
		broken  bool   // ErrUnavailable
	}{
		"server older than 1.12":   {map[string]string{"reserve-job": "UNKNOWN_COMMAND"}, 1, "older than 1.12", false},
		"disk full":                {map[string]string{"bury": "INTERNAL_ERROR"}, 1, "internal error", true},
		"connection lost":          {map[string]string{"bury": hangUp}, 1, "bury", true},
		"TTR over":                 {map[string]string{"bury": "NOT_FOUND"}, 1, "", false},
		"taken before reserve-job": {map[string]string{"reserve-job": "NOT_FOUND"}, 1, "", false},
		"use refused":              {map[string]string{"use": "OUT_OF_MEMORY"}, 0, "out of memory", true},
		"kicked meanwhile":         {map[string]string{"stats-job": "NOT_FOUND"}, 0, "", false},
		"all gone":                 {map[string]string{"peek-buried": "NOT_FOUND"}, 0, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := openFake(t, buriedFake(tt.special))
			jobs, err := queuetest.Buried(ctxOf(t), q, "tube", 10)
			if len(jobs) != tt.jobs {
				t.Errorf("%d jobs, want %d", len(jobs), tt.jobs)
			}
			if (tt.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if errors.Is(err, queue.ErrUnavailable) != tt.broken {
				t.Errorf("error %v: unavailable must be %t", err, tt.broken)
			}
		})
	}
}

// The answer to a kick or delete is lost: it is known all the same.
func TestBuriedAnswerLost(t *testing.T) {
	t.Parallel()
	for cmd, run := range map[string]func(q queue.Admin) error{
		"kick-job": func(q queue.Admin) error { return q.Kick(context.Background(), "tube", "7") },
		"delete":   func(q queue.Admin) error { return q.Delete(context.Background(), "tube", "7") },
	} {
		t.Run(cmd, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Bool
			f := buriedFake(nil)
			usual := f.script
			f.script = func(c []string) (string, bool) {
				switch {
				case c[0] == cmd:
					sent.Store(true)
					return hangUp, true
				case c[0] == "stats-job" && sent.Load():
					return "NOT_FOUND", true
				}
				return usual(c)
			}
			if err := run(openFake(t, f)); err != nil {
				t.Fatal(err)
			}
			if f.count(cmd) != 1 {
				t.Fatalf("%s sent %d times", cmd, f.count(cmd))
			}
		})
	}
}

// Listing disturbs no consumer, and a job that is served again while it is
// listed is not lost.
func TestBuriedBesideConsumer(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	buryForeign(t, srv, "tube", 50)
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "ready")
	j := mustReceive(t, c, 1)
	if jobs, err := queuetest.Buried(ctxOf(t), q, "tube", 100); err != nil || len(jobs) != 50 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	mustDone(t, j...)
	mustNone(t, c)
	// Kick all: each comes once.
	jobs, err := queuetest.Buried(ctxOf(t), q, "tube", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range jobs {
		if err := q.Kick(ctxOf(t), "tube", b.ID); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, j := range mustReceive(t, c, 50) {
		got = append(got, string(j.Body()))
		mustDone(t, j)
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 50 {
		t.Fatalf("received %q", got)
	}
	mustNone(t, c)
}
