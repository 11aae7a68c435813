package buried

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/queue"
	"propeller/worker/job"
)

// Changes during a walk count.
func TestDuringAWalk(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(6)
	v := viewOf(q)
	q.told(v, 6, "106")
	mustList(t, v, Filter{})
	known := v.Index.all(tube)
	q.during = func() { // all of this happens during the walk below
		q.jobs = q.jobs[1:]
		v.Index.forget(known[0])                                                          // kicked
		v.Index.Told(tube, "107", job.BurialOf(body(7, "told of, listed before"), topic)) // below
		v.Index.Told(tube, "108", job.BurialOf(body(8, "told of, not listed"), topic))    // buried since
		again := job.BurialOf(body(2, "kicked and buried again under the same id"), topic)
		again.At = again.At.Add(time.Minute)
		v.Index.Told(tube, "2", again)
	}
	q.jobs = append(q.jobs, queue.StoredJob{ID: "107", Body: body(7, "told of, listed before")})
	if err := v.walk(context.Background(), v.Index.limit); err != nil {
		t.Fatal(err)
	}
	q.during = nil
	var got []string
	for _, e := range v.Index.all(tube) {
		got = append(got, e.Job+" "+e.ID)
	}
	slices.Sort(got)
	if want := []string{"first-1 1", "first-2 2", "first-3 3", "first-4 4", "first-5 5", "first-6 106", "first-7 107", "first-8 108"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if n, whole := v.Index.count(tube); n != 8 || v.Index.n != 8 || !whole {
		t.Errorf("%d, %d, %t", n, v.Index.n, whole)
	}
	for _, e := range v.Index.all(tube) {
		if e.Job == "first-2" && !strings.HasPrefix(e.Reason, "kicked") {
			t.Errorf("%+v", e)
		}
	}
}

// An index has a limit and says when it is incomplete; once it has room it reads the rest.
func TestFullIndex(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	q := newFakeQueue(30)
	v := viewOf(q)
	v.Index.log, v.Index.limit = slog.New(slog.NewTextHandler(&log, nil)), 10
	for range 3 {
		if l := mustList(t, v, Filter{}); len(l.Items) != 10 || l.Complete || q.asked["walk "+tube] != 1 {
			t.Fatalf("%d items, complete %t, asked %v", len(l.Items), l.Complete, q.asked)
		}
	}
	v.Index.Told(tube, "40", job.Burial{})
	v.Index.Told("another", "40", job.Burial{})
	if n := strings.Count(log.String(), "more jobs are buried than the index holds"); n != 1 || v.Index.n != 10 {
		t.Errorf("said %d times, %d entries", n, v.Index.n)
	}
	total := 0
	for range 4 { // kicked bit by bit, all of them appear
		r, err := v.Kick(context.Background(), Filter{})
		if err != nil {
			t.Fatal(err)
		}
		total += len(r.Jobs)
		v.Index.rested()
	}
	if l := mustList(t, v, Filter{}); total != 30 || len(q.jobs) != 0 || !l.Complete || v.Index.n != 0 {
		t.Fatalf("%d kicked, %d left, %d entries", total, len(q.jobs), v.Index.n)
	}
}

// A list that is cut off is incomplete, but no error.
func TestCutList(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(9)
	q.cut = 4
	if l := mustList(t, viewOf(q), Filter{}); len(l.Items) != 4 || l.Complete {
		t.Errorf("%d items, complete %t", len(l.Items), l.Complete)
	}
}

// A reader waits for a walk under way, but only as long as it may.
func TestWaitForAWalk(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(3)
	v := viewOf(q)
	began, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	q.during = func() {
		close(began)
		<-goOn
	}
	go func() {
		defer close(ended)
		_ = v.walk(context.Background(), v.Index.limit)
	}()
	<-began
	other := viewOf(newFakeQueue(3)) // it answers meanwhile
	other.Index, other.Wait = v.Index, 10*time.Millisecond
	if l := mustList(t, other, Filter{}); len(l.Items) != 0 || l.Complete {
		t.Errorf("%+v", l)
	}
	close(goOn)
	<-ended
	if l := mustList(t, v, Filter{}); len(l.Items) != 3 || !l.Complete {
		t.Errorf("%+v", l)
	}
}

func newWalker(q *fakeQueue, tubes map[string]Tube) (*Walker, *bytes.Buffer) {
	log := new(bytes.Buffer)
	v := viewOf(q)
	return &Walker{Log: slog.New(slog.NewTextHandler(log, nil)), Index: v.Index, Tubes: func() (map[string]Tube, queue.Admin) { return tubes, q }}, log
}

// After a start all tubes are read once. A tube that cannot be read is tried again after
// growing pauses; what could be read of it counts, and other tubes do not wait for it.
func TestWalkerServerAway(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(5)
	q.half = true
	w, log := newWalker(q, map[string]Tube{tube: {topic, -1}, "b": {topic, -1}, "z": {topic, 0}})
	now := time.Now()
	const minutes = 240
	for range minutes {
		w.look(t.Context(), now)
		now = now.Add(lookEvery)
	}
	if n, whole := w.Index.count(tube); n != 5 || whole || q.asked["walk "+tube] > 12 || q.asked["walk "+tube] < 6 || q.asked["walk b"] != 1 || q.asked["walk z"] != 1 {
		t.Fatalf("%d entries, asked %v in %d minutes", n, q.asked, minutes)
	}
	if n := strings.Count(log.String(), "cannot read all buried jobs yet"); n != 1 {
		t.Errorf("said %d times", n)
	}
	q.half = false
	w.look(t.Context(), now.Add(maxPause))
	if n, whole := w.Index.count(tube); n != 5 || !whole || strings.Count(log.String(), "the list of buried jobs is complete again") != 1 {
		t.Fatalf("%d entries, %t: %s", n, whole, log)
	}
	walks := q.asked["walk "+tube]
	w.look(t.Context(), now.Add(maxPause+readAgain-time.Second))
	if q.asked["walk "+tube] != walks {
		t.Error("it walks on")
	}
}

// A tube is read again once the numbers have differed for long, and seldom if that does not
// help.
func TestWalkerNumbersDiffer(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(5)
	tubes := map[string]Tube{tube: {topic, 5}}
	w, _ := newWalker(q, tubes)
	now := time.Now()
	look := func(buried int) int {
		tubes[tube] = Tube{topic, buried}
		now = now.Add(lookEvery)
		w.look(t.Context(), now)
		return q.asked["walk "+tube]
	}
	if n := look(5); n != 1 {
		t.Fatalf("%d walks at the beginning", n)
	}
	q.jobs = append(q.jobs, queue.StoredJob{ID: "60", Body: body(60, "another daemon's")})
	if look(6) != 1 || look(5) != 1 || look(6) != 1 || look(6) != 1 {
		t.Fatal("walked over for a moment's difference")
	}
	if n := look(6); n != 2 {
		t.Fatalf("%d walks", n)
	}
	if n, _ := w.Index.count(tube); n != 6 {
		t.Fatalf("%d entries", n)
	}
	q.jobs = append(q.jobs[1:], queue.StoredJob{ID: "61", Body: body(61, "buried when another was kicked")})
	for range 61 {
		look(6)
	}
	if n := q.asked["walk "+tube]; n != 3 || len(w.Index.byName(tube)["first-61"]) != 1 || len(w.Index.byName(tube)["first-0"]) != 0 {
		t.Fatalf("%d walks within an hour of numbers that agree", n)
	}
	for range 240 {
		look(7) // another client may hold one while it lists
	}
	if n := q.asked["walk "+tube]; n < 7 || n > 13 {
		t.Errorf("%d walks in four hours", n)
	}
	delete(tubes, tube)
	w.look(t.Context(), now)
	if w.Index.n != 0 || len(w.Index.shelves) != 0 {
		t.Errorf("%d entries of an app that has gone", w.Index.n)
	}
}

// With another queue, or none, what a walk was about to add belongs to the old one.
func TestReset(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(5)
	v := viewOf(q)
	q.during = v.Index.Reset
	if err := v.walk(context.Background(), v.Index.limit); err != nil {
		t.Fatal(err)
	}
	if v.Index.n != 0 || len(v.Index.all(tube)) != 0 {
		t.Errorf("%d entries", v.Index.n)
	}
	w := &Walker{Log: v.Index.log, Index: v.Index, Tubes: func() (map[string]Tube, queue.Admin) { return nil, nil }}
	w.look(context.Background(), time.Now())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Serve(ctx); err == nil {
		t.Error("served on")
	}
}

// Entries use no more memory than they need.
func TestEntriesAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", maxText)
	x := viewOf(nil).Index
	x.Told(tube, "1", job.Burial{Job: long, Reason: long, Ref: long, APNsID: long})
	for _, e := range x.all(tube) {
		if len(e.Job) > maxText || len(e.Reason) > maxText || len(e.Ref) > maxText || len(e.APNsID) > maxText || e.Tube != tube {
			t.Error(fmt.Sprint(e))
		}
	}
}

// The index counts its entries correctly under concurrent use.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	x := NewIndex(slog.New(slog.DiscardHandler))
	x.limit = 500
	const writers, each = 8, 300
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			name, q := fmt.Sprint("tube-", w%4), newFakeQueue(0)
			for n := range each {
				x.Told(name, fmt.Sprint(w*each+n), job.BurialOf(body(n, reason(n)), topic))
				if n%50 != 0 {
					continue
				}
				if all := x.all(name); len(all) > 0 {
					x.forget(all[0])
				}
				x.Find(fmt.Sprint("first-", n))
				if n%100 == 0 {
					_ = x.walk(t.Context(), q, name, topic, x.limit)
				}
			}
		})
	}
	wg.Wait()
	entries, names := 0, 0
	for _, s := range x.shelves {
		entries += len(s.entries)
	}
	for _, n := range x.jobs {
		names += n
	}
	if x.n != entries || names != entries || entries > x.limit {
		t.Errorf("%d counted, %d entries with %d names, of %d at most", x.n, entries, names, x.limit)
	}
}
