package queuetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"propeller/queue"
)

func testTubes(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return // optional
	}
	put(t, in.Queue, "a.b", "x", queue.PutOptions{})
	put(t, in.Queue, "a.b.c", "x", queue.PutOptions{Delay: time.Hour})
	put(t, in.Queue, "buried", "x", queue.PutOptions{Buried: true})
	put(t, in.Queue, "d", "x", queue.PutOptions{})
	tubes := func() []string {
		t.Helper()
		got, err := admin.Tubes(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	all := []string{"a.b", "a.b.c", "buried", "d"}
	if got := tubes(); !slices.Equal(got, all) {
		t.Errorf("tubes: %q, want %q", got, all)
	}
	j := receiveOne(t, consume(t, in.Queue, "d"))
	if got := tubes(); !slices.Equal(got, all) {
		t.Errorf("with a job that is held: %q, want %q", got, all)
	}
	if err := j.Done(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !slices.Equal(tubes(), all[:3]); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q has no job any more: %q", "d", tubes())
		}
	}
}

// listState calls f for each job of a tube that List lists, one at a time, and returns
// their bodies.
func listState(t *testing.T, admin queue.Admin, tube string, state queue.State, f func(queue.StoredJob) error) []string {
	t.Helper()
	var bodies []string
	err := admin.List(ctxOf(t), tube, state, func(jobs []queue.StoredJob) error {
		for _, j := range jobs {
			bodies = append(bodies, string(j.Body))
			if err := f(j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("list of %s jobs: %v", state, err)
	}
	slices.Sort(bodies)
	return bodies
}

func look(queue.StoredJob) error { return nil }

func testList(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	const each = 40 // more than are listed together
	put(t, in.Queue, "list", "ready", queue.PutOptions{})
	put(t, in.Queue, "other", "delayed", queue.PutOptions{Delay: time.Hour})
	options := map[queue.State]queue.PutOptions{
		queue.Delayed: {Delay: time.Hour, Priority: 3},
		queue.Buried:  {Buried: true, Priority: 3},
	}
	for state, o := range options {
		var bodies, stay []string
		for i := range each {
			body := fmt.Sprintf("%s %02d", state, i)
			put(t, in.Queue, "list", body, o)
			if bodies = append(bodies, body); i%2 == 1 {
				stay = append(stay, body)
			}
		}
		got := listState(t, admin, "list", state, func(j queue.StoredJob) error {
			if j.Fault != nil || j.ID == "" || j.Priority != 3 && e.Priorities || j.Age < 0 || j.Age > patience {
				t.Errorf("%+v", j)
			}
			if left := o.Delay - j.Delay; left < -2*time.Second || left > patience {
				t.Errorf("%s is delayed by %v", j.Body, j.Delay)
			}
			if slices.Contains(stay, string(j.Body)) {
				return nil
			}
			return errors.Join(j.Delete(), j.Delete()) // once more is no error
		})
		if !slices.Equal(got, bodies) {
			t.Errorf("listed %q", got)
		}
		for range 2 { // looking changes nothing
			if got := listState(t, admin, "list", state, look); !slices.Equal(got, stay) {
				t.Errorf("listed %q, want %q", got, stay)
			}
		}
	}
	if got, want := statsOf(t, admin, "list"), (queue.TubeStats{Ready: 1, Delayed: each / 2, Buried: each / 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func statsOf(t *testing.T, admin queue.Admin, tube string) queue.TubeStats {
	t.Helper()
	st, err := admin.TubeStats(ctxOf(t), tube)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// An error ends the list, and what was listed stays.
func testListEnds(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	const each = 100
	for i := range each {
		put(t, in.Queue, "ends", fmt.Sprint("d", i), queue.PutOptions{Delay: time.Hour})
		put(t, in.Queue, "ends", fmt.Sprint("b", i), queue.PutOptions{Buried: true})
	}
	stop := errors.New("stop")
	for _, state := range []queue.State{queue.Delayed, queue.Buried} {
		calls := 0
		err := admin.List(ctxOf(t), "ends", state, func([]queue.StoredJob) error {
			calls++
			return stop
		})
		if !errors.Is(err, stop) || calls != 1 {
			t.Errorf("%v, after %d calls", err, calls)
		}
		if err := admin.List(ctxOf(t), "bad tube", state, nil); !errors.Is(err, queue.ErrRejected) {
			t.Errorf("of a bad name: %v", err)
		}
		if err := admin.List(ctxOf(t), "none", state, nil); err != nil {
			t.Errorf("of a tube that is not: %v", err)
		}
	}
	if got, want := statsOf(t, admin, "ends"), (queue.TubeStats{Delayed: each, Buried: each}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A job that is put as a buried one is as one that a worker has buried: Put's id names it.
func testPutBuried(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	ids := make(map[string]string)
	var jobs []queue.NewJob
	for i := range 10 {
		jobs = append(jobs, queue.NewJob{Tube: "buried", Body: fmt.Append(nil, i), PutOptions: queue.PutOptions{Buried: true, Delay: time.Hour}})
	}
	for i, s := range queue.PutAll(ctxOf(t), in.Queue, jobs) {
		if s.Err != nil {
			t.Fatal(s.Err)
		}
		ids[fmt.Sprint(i)] = s.ID
	}
	if got := strings.Join(listed(t, admin, "buried", 20), ""); got != "0123456789" {
		t.Errorf("listed %q", got)
	}
	for body, id := range ids {
		b, err := admin.Peek(ctxOf(t), "buried", id)
		if err != nil {
			t.Fatal(err)
		}
		sameJob(t, b, id, body)
	}
	if err := admin.Kick(ctxOf(t), "buried", ids["7"]); err != nil {
		t.Fatal(err)
	}
	j := receiveOne(t, consume(t, in.Queue, "buried"))
	kicked(t, j, true)
	if string(j.Body()) != "7" {
		t.Errorf("kicked: %q", j.Body())
	}
}
