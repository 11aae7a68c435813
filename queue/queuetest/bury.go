package queuetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// buryWith puts a job and buries it with another body. It returns the job's id before
// and after.
func buryWith(t *testing.T, q queue.Queue, tube, body string, with []byte) (before, after string) {
	t.Helper()
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatalf("consume: %v", err)
	}
	defer func() {
		if err := c.Close(ctxOf(t)); err != nil {
			t.Errorf("consumer close: %v", err)
		}
	}()
	put(t, q, tube, body, queue.PutOptions{})
	j := receiveOne(t, c)
	before = j.ID()
	if err := j.Bury(ctxOf(t), with); err != nil {
		t.Fatalf("bury: %v", err)
	}
	return before, j.ID()
}

// onlyBuried returns the one buried job of a tube that has no other jobs.
func onlyBuried(t *testing.T, admin queue.Admin, tube string) queue.StoredJob {
	t.Helper()
	st, err := admin.TubeStats(ctxOf(t), tube)
	if want := (queue.TubeStats{Buried: 1}); err != nil || st != want {
		t.Fatalf("%+v, %v; want %+v", st, err, want)
	}
	jobs, err := Buried(ctxOf(t), admin, tube, 10)
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	return jobs[0]
}

// A job is buried with the given body, and that body is what a kick brings back.
func testBuryReplaces(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, with := range []string{"new", "", string(all), "line\r\nend"} {
		tube := fmt.Sprint("replaced", i)
		id, as := buryWith(t, in.Queue, tube, "old", []byte(with))
		b := onlyBuried(t, admin, tube)
		if e.NewIDs == (b.ID == id) || b.ID != as {
			t.Fatalf("id %q, was %q, and is called %q", b.ID, id, as)
		}
		sameJob(t, b, b.ID, with)
		b, err := admin.Peek(ctxOf(t), tube, b.ID)
		if err != nil {
			t.Fatalf("peek: %v", err)
		}
		sameJob(t, b, b.ID, with)
		if err := admin.Kick(ctxOf(t), tube, b.ID); err != nil {
			t.Fatalf("kick: %v", err)
		}
		c := consume(t, in.Queue, tube)
		j := receiveOne(t, c)
		if string(j.Body()) != with || j.ID() != b.ID {
			t.Fatalf("received %q %q, want %q %q", j.ID(), j.Body(), b.ID, with)
		}
		attempt(t, j, 1)
		kicked(t, j, true)
		done(t, j)
		if i == 0 {
			none(t, c)
		}
	}
}

// If the body does not change, neither does the id.
func testBuryAsItIs(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	for tube, with := range map[string][]byte{"none": nil, "same": []byte("old")} {
		id, _ := buryWith(t, in.Queue, tube, "old", with)
		sameJob(t, onlyBuried(t, admin, tube), id, "old")
	}
}

// Each burial has its own body, however often the job was kicked before.
func testBuryAgain(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	buryWith(t, in.Queue, "again", "old", []byte("reason 0"))
	c := consume(t, in.Queue, "again")
	for i := range 3 {
		b := onlyBuried(t, admin, "again")
		sameJob(t, b, b.ID, fmt.Sprint("reason ", i))
		if err := admin.Kick(ctxOf(t), "again", b.ID); err != nil {
			t.Fatalf("kick: %v", err)
		}
		j := receiveOne(t, c)
		kicked(t, j, true)
		if i == 2 { // without a new body
			if err := j.Bury(ctxOf(t), nil); err != nil {
				t.Fatalf("bury: %v", err)
			}
			b = onlyBuried(t, admin, "again")
			sameJob(t, b, j.ID(), "reason 2")
			if err := admin.Delete(ctxOf(t), "again", b.ID); err != nil {
				t.Fatalf("delete: %v", err)
			}
			break
		}
		if err := j.Bury(ctxOf(t), fmt.Append(nil, "reason ", i+1)); err != nil {
			t.Fatalf("bury: %v", err)
		}
	}
	none(t, c)
}

// A body that is too large changes nothing: the job stays held and can be settled
// differently.
func testBuryTooBig(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	settles := []struct {
		call func(queue.Job) error
		want queue.TubeStats
	}{
		{func(j queue.Job) error { return j.Bury(ctxOf(t), make([]byte, e.MaxBody)) }, queue.TubeStats{Buried: 1}},
		{func(j queue.Job) error { return j.Bury(ctxOf(t), nil) }, queue.TubeStats{Buried: 1}},
		{func(j queue.Job) error { return j.Done(ctxOf(t)) }, queue.TubeStats{}},
		{func(j queue.Job) error { return j.Retry(ctxOf(t), 0) }, queue.TubeStats{Ready: 1}},
	}
	for i, s := range settles {
		tube := fmt.Sprint("big", i)
		c := consume(t, in.Queue, tube)
		put(t, in.Queue, tube, "x", queue.PutOptions{})
		j := receiveOne(t, c)
		for range 2 {
			if err := j.Bury(ctxOf(t), make([]byte, e.MaxBody+1)); !errors.Is(err, queue.ErrRejected) {
				t.Fatalf("%v, want ErrRejected", err)
			}
		}
		if st, err := admin.TubeStats(ctxOf(t), tube); err != nil || st.Buried > 0 || st.Ready > 0 || st.Reserved != 1 {
			t.Fatalf("afterwards %+v, %v", st, err)
		}
		if err := s.call(j); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			st, err := admin.TubeStats(ctxOf(t), tube)
			if st.Ready+st.Reserved == 1 && s.want.Ready == 1 { // some engines count it as reserved
				break
			}
			if err == nil && st == s.want {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d: %+v, %v; want %+v", i, st, err, s.want)
			}
		}
	}
}

// A job whose burial was refused for its size stays held as long as needed.
func testBuryTooBigHeld(t *testing.T, e Engine) {
	in := start(t, e)
	c := consume(t, in.Queue, "held")
	put(t, in.Queue, "held", "x", queue.PutOptions{})
	j := receiveOne(t, c)
	if err := j.Bury(ctxOf(t), make([]byte, e.MaxBody+1)); !errors.Is(err, queue.ErrRejected) {
		t.Fatalf("%v, want ErrRejected", err)
	}
	for end := time.Now().Add(in.Lease + in.Lease/4); time.Now().Before(end); {
		none(t, c)
	}
	if err := j.Bury(ctxOf(t), []byte("y")); err != nil {
		t.Fatal(err)
	}
	none(t, c)
}

// Operators kick and delete while jobs are being buried: each job ends up where they
// sent it, once and with its new body.
func testBuryRace(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	const n = 40
	const tube = "race"
	c := consume(t, in.Queue, tube)
	for i := range n {
		put(t, in.Queue, tube, fmt.Sprint("old ", i), queue.PutOptions{})
	}
	jobs := receive(t, c, n)
	c.Pause()
	var mu sync.Mutex
	kicked, deleted := make(map[string]bool), make(map[string]bool)
	act := func() {
		some, err := Buried(ctxOf(t), admin, tube, n)
		if err != nil {
			t.Errorf("buried: %v", err)
		}
		for i, b := range some {
			var err error
			into := kicked
			switch i % 3 {
			case 0:
				err = admin.Kick(ctxOf(t), tube, b.ID)
			case 1:
				into = deleted
				err = admin.Delete(ctxOf(t), tube, b.ID)
			default:
				continue
			}
			mu.Lock()
			if err == nil {
				into[string(b.Body)] = true
			} else if !errors.Is(err, queue.ErrNotFound) {
				t.Errorf("%s: %v", b.ID, err)
			}
			mu.Unlock()
		}
	}
	var burying, acting sync.WaitGroup
	stop := make(chan struct{})
	acting.Go(func() {
		for {
			act()
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for i, j := range jobs {
		burying.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			if err := j.Bury(ctxOf(t), append([]byte("new "), j.Body()...)); err != nil {
				t.Errorf("bury: %v", err)
			}
		})
	}
	burying.Wait()
	close(stop)
	acting.Wait()
	left := listed(t, admin, tube, n)
	got := receive(t, c, len(kicked))
	done(t, got...)
	none(t, c)
	var all []string
	for b := range deleted {
		all = append(all, b)
	}
	all = append(append(all, bodies(got)...), left...)
	slices.Sort(all)
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint("new old ", i))
	}
	slices.Sort(want)
	if !slices.Equal(all, want) {
		t.Fatalf("kicked %q, deleted %v, left %q", bodies(got), deleted, left)
	}
}

// A burial that began while the engine was away is finished once it is back.
func testBuryOverOutage(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil || in.Down == nil {
		return
	}
	c := consume(t, in.Queue, "outage")
	put(t, in.Queue, "outage", "old", queue.PutOptions{})
	j := receiveOne(t, c)
	away := time.Now()
	in.Down(t)
	errs := make(chan error, 1)
	go func() { errs <- j.Bury(ctxOf(t), []byte("new")) }()
	time.Sleep(100 * time.Millisecond) // lets Bury reach the outage; if it is too short, the test proves less but still passes
	in.Up(t)
	err := <-errs
	if errors.Is(err, queue.ErrLost) && time.Since(away) > in.Lease/2 {
		return // a busy machine: the reservation may have ended meanwhile
	}
	if err != nil {
		t.Fatalf("bury over the outage: %v", err)
	}
	none(t, c)
	if got := listed(t, admin, "outage", 10); !slices.Equal(got, []string{"new"}) {
		t.Fatalf("buried: %q", got)
	}
}
