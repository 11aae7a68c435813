package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// startAdmin starts an instance whose queue offers Admin; admin is nil when it
// does not, which is allowed.
func startAdmin(t *testing.T, e Engine) (in Instance, admin queue.Admin) {
	t.Helper()
	in = start(t, e)
	admin, _ = in.Queue.(queue.Admin)
	return in, admin
}

// bury puts jobs with these bodies and buries them unchanged. It returns their ids as the
// worker knew them.
func bury(t *testing.T, q queue.Queue, tube string, bodies ...string) []string {
	t.Helper()
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatalf("consume: %v", err)
	}
	defer func() { // so that it reserves nothing that is put later
		if err := c.Close(ctxOf(t)); err != nil {
			t.Errorf("consumer close: %v", err)
		}
	}()
	ids := make(map[string]string)
	for _, body := range bodies {
		put(t, q, tube, body, queue.PutOptions{})
	}
	for _, j := range receive(t, c, len(bodies)) {
		if err := j.Bury(ctxOf(t), nil); err != nil {
			t.Fatalf("bury: %v", err)
		}
		ids[string(j.Body())] = j.ID()
	}
	var out []string
	for _, body := range bodies {
		out = append(out, ids[body])
	}
	return out
}

// sameJob checks what Admin says of a job that bury has buried.
func sameJob(t *testing.T, b queue.StoredJob, id, body string) {
	t.Helper()
	if b.ID != id || string(b.Body) != body {
		t.Fatalf("id %q, body %q; want %q, %q", b.ID, b.Body, id, body)
	}
	if b.Age < 0 || b.Age > patience {
		t.Fatalf("age %v", b.Age)
	}
}

// Buried lists up to limit buried jobs of a tube.
func Buried(ctx context.Context, admin queue.Admin, tube string, limit int) (all []queue.StoredJob, err error) {
	err = admin.List(ctx, tube, queue.Buried, func(jobs []queue.StoredJob) error {
		for _, j := range jobs {
			if all = append(all, j); len(all) == limit {
				return queue.ErrCut
			}
		}
		return nil
	})
	if errors.Is(err, queue.ErrCut) {
		err = nil
	}
	return all, err
}

// listed returns the bodies of the buried jobs, sorted.
func listed(t *testing.T, admin queue.Admin, tube string, limit int) []string {
	t.Helper()
	jobs, err := Buried(ctxOf(t), admin, tube, limit)
	if err != nil {
		t.Fatalf("buried: %v", err)
	}
	var out []string
	for _, b := range jobs {
		out = append(out, string(b.Body))
	}
	slices.Sort(out)
	return out
}

func testBuriedList(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return // optional
	}
	if got := listed(t, admin, "list", 10); len(got) > 0 {
		t.Fatalf("a tube that is not has %q", got)
	}
	if _, err := Buried(ctxOf(t), admin, "bad tube", 10); !errors.Is(err, queue.ErrRejected) {
		t.Fatalf("of a bad name: %v", err)
	}
	want := []string{"a", "b", "c", "d", "e"}
	ids := bury(t, in.Queue, "list", want...)
	bury(t, in.Queue, "other", "x")
	put(t, in.Queue, "list", "ready", queue.PutOptions{})
	put(t, in.Queue, "list", "delayed", queue.PutOptions{Delay: time.Hour})
	for range 2 { // looking changes nothing
		if got := listed(t, admin, "list", 10); !slices.Equal(got, want) {
			t.Fatalf("listed %q, want %q", got, want)
		}
	}
	jobs, err := Buried(ctxOf(t), admin, "list", len(want))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range jobs {
		i := slices.Index(want, string(b.Body))
		sameJob(t, b, ids[i], want[i])
	}
	for limit := 1; limit < len(want); limit++ {
		got := listed(t, admin, "list", limit)
		if distinct := slices.Compact(slices.Clone(got)); len(got) != limit || len(distinct) != limit {
			t.Fatalf("with a limit of %d: %q", limit, got)
		}
	}
}

func testBuriedPeek(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	bodies := []string{"", string(all), "line\r\nend"}
	ids := bury(t, in.Queue, "peek", bodies...)
	for i, id := range ids {
		b, err := admin.Peek(ctxOf(t), "peek", id)
		if err != nil {
			t.Fatalf("peek: %v", err)
		}
		sameJob(t, b, id, bodies[i])
	}
}

// Everything that is no buried job of the tube is left as it is.
func testBuriedNotFound(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	buried := bury(t, in.Queue, "there", "buried")[0]
	gone := bury(t, in.Queue, "there", "gone")[0]
	if err := admin.Delete(ctxOf(t), "there", gone); err != nil {
		t.Fatal(err)
	}
	c := consume(t, in.Queue, "there")
	held := put(t, in.Queue, "there", "held", queue.PutOptions{})
	j := receiveOne(t, c)
	c.Pause()
	later := put(t, in.Queue, "there", "later", queue.PutOptions{Delay: time.Hour})
	ready := put(t, in.Queue, "there", "ready", queue.PutOptions{})

	for name, at := range map[string]struct{ tube, id string }{
		"other tube": {"elsewhere", buried}, "gone": {"there", gone}, "held": {"there", held},
		"delayed": {"there", later}, "ready": {"there", ready},
	} {
		if _, err := admin.Peek(ctxOf(t), at.tube, at.id); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%s: peek: %v, want ErrNotFound", name, err)
		}
		if err := admin.Kick(ctxOf(t), at.tube, at.id); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%s: kick: %v, want ErrNotFound", name, err)
		}
		if err := admin.Delete(ctxOf(t), at.tube, at.id); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("%s: delete: %v, want ErrNotFound", name, err)
		}
	}
	for _, id := range []string{"", "no number", "-1", "12/"} {
		if err := admin.Kick(ctxOf(t), "there", id); !errors.Is(err, queue.ErrRejected) {
			t.Errorf("id %q: kick: %v, want ErrRejected", id, err)
		}
	}
	if _, err := admin.Peek(ctxOf(t), "bad tube", buried); !errors.Is(err, queue.ErrRejected) {
		t.Errorf("bad tube: %v, want ErrRejected", err)
	}
	done(t, j)
	want := queue.TubeStats{Ready: 1, Delayed: 1, Buried: 1}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		st, err := admin.TubeStats(ctxOf(t), "there")
		if err == nil && st == want {
			return
		}
		if time.Now().After(end) { // a job that was reserved when c was paused has gone back long ago
			t.Fatalf("afterwards %+v (%v), want %+v", st, err, want)
		}
	}
}

func testBuriedKick(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	ids := bury(t, in.Queue, "kick", "stays", "comes", "stays too")
	if err := admin.Kick(ctxOf(t), "kick", ids[1]); err != nil {
		t.Fatalf("kick: %v", err)
	}
	if err := admin.Kick(ctxOf(t), "kick", ids[1]); !errors.Is(err, queue.ErrNotFound) {
		t.Fatalf("a second kick: %v, want ErrNotFound", err)
	}
	c := consume(t, in.Queue, "kick")
	j := receiveOne(t, c)
	if string(j.Body()) != "comes" {
		t.Fatalf("received %q", j.Body())
	}
	kicked(t, j, true)
	// Buried again, it can be kicked again, by the id it has now.
	if err := j.Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
	b, err := admin.Peek(ctxOf(t), "kick", j.ID())
	if err != nil {
		t.Fatalf("peek: %v", err)
	}
	sameJob(t, b, j.ID(), "comes")
	if err := admin.Kick(ctxOf(t), "kick", j.ID()); err != nil {
		t.Fatalf("kick: %v", err)
	}
	j = receiveOne(t, c)
	attempt(t, j, 1)
	kicked(t, j, true)
	done(t, j)
	none(t, c)
	if got := listed(t, admin, "kick", 10); !slices.Equal(got, []string{"stays", "stays too"}) {
		t.Fatalf("still buried: %q", got)
	}
}

func kicked(t *testing.T, j queue.Job, want bool) {
	t.Helper()
	st, err := j.Stat(ctxOf(t))
	if err != nil || st.Kicked != want {
		t.Fatalf("%+v, %v; want kicked %t", st, err, want)
	}
}

// However often an operator looks at a buried job, it is tried as if nobody had.
func testBuriedListedOften(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	ids := bury(t, in.Queue, "often", "x", "y")
	for range 12 {
		if got := listed(t, admin, "often", 10); len(got) != len(ids) {
			t.Fatalf("listed %q", got)
		}
	}
	c := consume(t, in.Queue, "often")
	for n, id := range ids {
		if err := admin.Kick(ctxOf(t), "often", id); err != nil {
			t.Fatalf("kick: %v", err)
		}
		j := receiveOne(t, c)
		attempt(t, j, 1)
		kicked(t, j, true)
		if n == 0 { // it goes on counting from there
			if err := j.Retry(ctxOf(t), 0); err != nil {
				t.Fatal(err)
			}
			j = receiveOne(t, c)
			attempt(t, j, 2)
		}
		done(t, j)
	}
}

func testBuriedDelete(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	ids := bury(t, in.Queue, "delete", "stays", "goes")
	if err := admin.Delete(ctxOf(t), "delete", ids[1]); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if _, err := admin.Peek(ctxOf(t), "delete", ids[1]); !errors.Is(err, queue.ErrNotFound) {
		t.Fatalf("peek: %v, want ErrNotFound", err)
	}
	if err := admin.Delete(ctxOf(t), "delete", ids[1]); !errors.Is(err, queue.ErrNotFound) {
		t.Fatalf("a second delete: %v, want ErrNotFound", err)
	}
	if got := listed(t, admin, "delete", 10); !slices.Equal(got, []string{"stays"}) {
		t.Fatalf("still buried: %q", got)
	}
	none(t, consume(t, in.Queue, "delete"))
}

// Many operators at once: a job is kicked once.
func testBuriedRace(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil {
		return
	}
	const jobs, operators = 10, 4
	var names []string
	for i := range jobs {
		names = append(names, fmt.Sprintf("job %d", i))
	}
	ids := bury(t, in.Queue, "race", names...)
	kicked := make([]int, jobs)
	var mu sync.Mutex
	var wg sync.WaitGroup
	ctx := ctxOf(t)
	for range operators {
		wg.Go(func() {
			for i, id := range ids {
				err := admin.Kick(ctx, "race", id)
				mu.Lock()
				switch {
				case err == nil:
					kicked[i]++
				case !errors.Is(err, queue.ErrNotFound):
					t.Errorf("kick: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i, n := range kicked {
		if n == 0 {
			t.Errorf("job %d: nobody has kicked it", i)
		}
	}
	c := consume(t, in.Queue, "race")
	got := receive(t, c, jobs)
	if b := bodies(got); !slices.Equal(b, names) {
		t.Fatalf("received %q", b)
	}
	done(t, got...)
	none(t, c)
}

// Buried jobs outlive the engine. While it is away nobody is told that a job is
// not there.
func testBuriedOverOutage(t *testing.T, e Engine) {
	in, admin := startAdmin(t, e)
	if admin == nil || in.Down == nil {
		return
	}
	id := bury(t, in.Queue, "outage", "x")[0]
	in.Down(t)
	ctx, cancel := context.WithTimeout(ctxOf(t), 3*time.Second)
	defer cancel()
	for name, f := range map[string]func() error{
		"peek":   func() error { _, err := admin.Peek(ctx, "outage", id); return err },
		"kick":   func() error { return admin.Kick(ctx, "outage", id) },
		"delete": func() error { return admin.Delete(ctx, "outage", id) },
		"buried": func() error { _, err := Buried(ctx, admin, "outage", 1); return err },
	} {
		err := f()
		if errors.Is(err, queue.ErrNotFound) || (!errors.Is(err, queue.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded)) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
	}
	in.Up(t)
	end := time.Now().Add(patience)
	for {
		b, err := admin.Peek(ctxOf(t), "outage", id)
		if err == nil {
			sameJob(t, b, id, "x")
			break
		}
		if errors.Is(err, queue.ErrNotFound) || time.Now().After(end) {
			t.Fatalf("after the outage: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := admin.Kick(ctxOf(t), "outage", id); err != nil {
		t.Fatalf("kick: %v", err)
	}
	done(t, receiveOne(t, consume(t, in.Queue, "outage")))
}
