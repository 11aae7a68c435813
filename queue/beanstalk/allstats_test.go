package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// AllStats says of every tube what TubeStats does, and leaves out those without jobs.
func TestAllStats(t *testing.T) {
	t.Parallel()
	a, b := beanstalktest.Start(t), beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{a.Addr(), b.Addr()}})
	long := strings.Repeat("x", 200) // no client of ours can have it, but others can
	var lines []string
	for i := range 150 {
		lines = append(lines, fmt.Sprintf("use t%d", i), "put 1 0 60 1\r\nx", "put 1 60 60 1\r\nx")
	}
	pipe(t, a, append(lines, "use "+long, "put 1 0 60 1\r\nx", "use empty"))
	pipe(t, b, []string{"use t0", "put 1 0 60 1\r\nx", "use paused", "put 1 0 60 1\r\nx", "use half", "put 1 0 60 1\r\nx"})
	pipe(t, a, []string{"use paused", "put 1 0 60 1\r\nx", "use half", "put 1 0 60 1\r\nx"})
	pauseTube(a, b)(t, "paused", time.Hour)
	pauseTube(a)(t, "half", time.Hour)
	holder := b.Dial()
	holder.TubeSet.Name = map[string]bool{"t0": true}
	if _, _, err := holder.Reserve(0); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Put(ctxOf(t), "t1", []byte("x"), queue.PutOptions{Buried: true}); err != nil {
		t.Fatal(err)
	}

	all, err := q.AllStats(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	for tube, want := range map[string]queue.TubeStats{
		"t0":   {Ready: 1, Delayed: 1, Reserved: 1},
		"t1":   {Ready: 1, Delayed: 1, Buried: 1},
		"t149": {Ready: 1, Delayed: 1},
		"half": {Ready: 2, Paused: 1},
		long:   {Ready: 1},
	} {
		if all[tube] != want {
			t.Errorf("%.20s: %+v, want %+v", tube, all[tube], want)
		}
	}
	st := all["paused"]
	if left := time.Until(st.PausedUntil); st.Ready != 2 || st.Paused != 2 || left < 50*time.Minute || left > time.Hour {
		t.Errorf("paused: %+v", st)
	}
	if _, has := all["empty"]; has || len(all) != 153 {
		t.Errorf("%d tubes, want 153 without the empty one", len(all))
	}

	b.Kill()
	all, err = q.AllStats(ctxOf(t))
	if !errors.Is(err, queue.ErrPartial) || !strings.Contains(err.Error(), b.Addr()) || all["t0"] != (queue.TubeStats{Ready: 1, Delayed: 1}) {
		t.Errorf("with one of two servers: %v, %+v", err, all["t0"])
	}
	if all["half"].PausedUntil.IsZero() {
		t.Errorf("paused on all that answer: %+v", all["half"])
	}
	a.Kill()
	if all, err = q.AllStats(ctxOf(t)); !errors.Is(err, queue.ErrUnavailable) || errors.Is(err, queue.ErrPartial) || len(all) > 0 {
		t.Errorf("without a server: %v, %d tubes", err, len(all))
	}
}

// The end of ctx, and that of the queue, end the wait for a silent server.
func TestAllStatsEnds(t *testing.T) {
	t.Parallel()
	f := &fake{script: answers(map[string]string{"list-tubes": silence})}
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	ctx, cancel := context.WithTimeout(ctxOf(t), 50*time.Millisecond)
	defer cancel()
	if _, err := q.AllStats(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, want the context's end", err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := q.AllStats(ctxOf(t))
		result <- err
	}()
	eventually(t, "the question is asked", func() bool { return f.count("list-tubes") == 2 })
	q.Close()
	if err := <-result; !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("%v, want ErrUnavailable", err)
	}
}

// The watch believes no answer that beanstalkd cannot give: it says so, and asks again over another
// connection.
func TestWatchLies(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"stats":      yaml("id: cafe", "current-jobs-ready: 1", "current-tubes: 3"),
		"list-tubes": yaml("- default", "- tube", "- held"),
		"stats-tube": yaml(`name: "held"`, "current-jobs-ready: 0", "current-jobs-reserved: 1", "current-jobs-delayed: 0",
			"current-jobs-buried: 0", "current-using: 0", "pause-time-left: 0"),
		"stats-job": yaml(`tube: "tube"`, `pri: 7`),
		"release":   "RELEASED",
	}
	for name, lie := range map[string]struct{ command, answer string }{
		"statistics":         {"stats", yaml("id: cafe")},
		"a negative number":  {"stats", yaml("current-jobs-ready: -1", "current-tubes: 3")},
		"a stranger":         {"stats", "HTTP/1.1 400 Bad Request"},
		"a large list":       {"list-tubes", fmt.Sprintf("OK %d", maxTubes+1)},
		"a refused list":     {"list-tubes", "OUT_OF_MEMORY"},
		"numbers of a tube":  {"stats-tube", yaml("current-jobs-ready: 1")},
		"a refused watch":    {"watch", "OUT_OF_MEMORY"},
		"a refused ignore":   {"ignore", "NOT_IGNORED"},
		"a large job":        {"reserve-with-timeout", fmt.Sprintf("RESERVED 7 %d", maxJobClaim+1)},
		"a job with no id":   {"reserve-with-timeout", "RESERVED x 1"},
		"a long line":        {"reserve-with-timeout", strings.Repeat("x", 3000)},
		"a very long line":   {"reserve-with-timeout", strings.Repeat("x", 30000)},
		"a priority":         {"stats-job", yaml("tube: tube", "pri: urgent")},
		"a refused release":  {"release", "INTERNAL_ERROR"},
		"the connection end": {"release", hangUp},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			first := sequence(lie.command, lie.answer)
			reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi", "RESERVED 7 2\r\nhi")
			f.script = func(cmd []string) (string, bool) {
				if a, ok := first(cmd); ok {
					return a, ok
				}
				if a, ok := reserve(cmd); ok {
					return a, ok
				}
				a, ok := good[cmd[0]]
				return a, ok
			}
			q := openTest(t, Options{Addrs: []string{f.listen(t)}})
			w, woken := watchTest(t, q, "tube", "held")
			eventually(t, "the lie shows", func() bool {
				err := w.Err()
				return errors.Is(err, queue.ErrUnavailable) && !errors.Is(err, errConnecting) && len(err.Error()) < 300
			})
			woken.await(t, "tube")
			well(t, w)
		})
	}
}

// A job of any size is skipped, not read into memory.
func TestWatchLargeJob(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t, beanstalktest.WithArgs("-z", "3000000"))
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	w, woken := watchTest(t, q, "tube")
	if _, err := gobeanstalk.NewTube(srv.Dial(), "tube").Put(make([]byte, 2<<20), 1, 2*time.Second, time.Minute); err != nil {
		t.Fatal(err)
	}
	crowd(t, srv, w)
	woken.await(t, "tube")
	if st, err := srv.Dial().StatsJob(1); err != nil || st["state"] != "ready" {
		t.Errorf("%v, %v", st, err)
	}
}

// A tube is empty without jobs that a consumer could get now or holds. Its pause needs a consumer, too.
func TestEmpty(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	pipe(t, srv, []string{
		"use ready", "put 1 0 60 1\r\nx", "use delayed", "put 1 60 60 1\r\nx", "use held", "put 1 0 60 1\r\nx",
		"use paused", "put 1 60 60 1\r\nx",
	})
	pauseTube(srv)(t, "paused", time.Hour)
	holder := srv.Dial()
	holder.TubeSet.Name = map[string]bool{"held": true}
	if _, _, err := holder.Reserve(0); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Put(ctxOf(t), "buried", []byte("x"), queue.PutOptions{Buried: true}); err != nil {
		t.Fatal(err)
	}
	for tube, want := range map[string]bool{"none": true, "ready": false, "delayed": true, "held": false, "buried": true, "paused": false} {
		if empty, err := q.Empty(ctxOf(t), tube); err != nil || empty != want {
			t.Errorf("%s: empty %v, %v; want %v", tube, empty, err, want)
		}
	}
	srv.Kill()
	if empty, err := q.Empty(ctxOf(t), "none"); !errors.Is(err, queue.ErrUnavailable) || empty {
		t.Errorf("without a server: empty %v, %v", empty, err)
	}
}
