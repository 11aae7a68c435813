package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
)

// age makes all entries of tube older than settling.
func age(t *testing.T, j *Journal, tube string) {
	t.Helper()
	var all []Entry
	if err := j.List(tube, func(e Entry) bool { all = append(all, e); return true }); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		e.At = e.At.Add(-2 * settling)
		j.Buried(e)
	}
}

// reasons counts the jobs in a list by their reasons.
func reasons(t *testing.T, v Jobs, tube string) map[string]int {
	t.Helper()
	items, more, err := v.List(context.Background(), tube, Filter{})
	if err != nil || more {
		t.Fatalf("list: more %t, %v", more, err)
	}
	n := make(map[string]int)
	for _, it := range items {
		n[it.Reason]++
	}
	return n
}

// With a second server all ids are others; the jobs and their reasons are what
// they were, and so it is when the server goes again.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	const n = 5
	a, b := beanstalktest.Start(t), beanstalktest.Start(t)
	one := openQueue(t, a)
	j := openTest(t, t.TempDir(), Options{})
	buryJobs(t, one, j, n, func(i int) string { return fmt.Sprintf("BadTopic %d", i) })
	two, err := beanstalk.Open(beanstalk.Options{Addrs: []string{a.Addr(), b.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { two.Close() })
	v := Jobs{Queue: two.(queue.Admin), Journal: j}
	if it, err := v.Show(context.Background(), "app", a.Addr()+"/1"); err != nil || it.Reason != "BadTopic 0" {
		t.Fatalf("%+v, %v", it, err)
	}
	back := Jobs{Queue: one.(queue.Admin), Journal: j}
	for _, view := range []Jobs{v, back, v} {
		got := reasons(t, view, "app")
		for i := range n {
			if got[fmt.Sprintf("BadTopic %d", i)] != 1 || len(got) != n {
				t.Fatalf("listed %v", got)
			}
		}
	}
	if r, err := v.Kick(context.Background(), "app", Filter{Reason: "badtopic"}); err != nil || r.N != n {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A look at another queue, whose URL was wrong for a moment, costs no reason.
func TestOtherQueueForAMoment(t *testing.T) {
	t.Parallel()
	const n = 20
	q, other := openQueue(t, beanstalktest.Start(t)), openQueue(t, beanstalktest.Start(t))
	j := openTest(t, t.TempDir(), Options{})
	buryJobs(t, q, j, n, func(int) string { return "BadTopic" })
	age(t, j, "app")
	for range 2 {
		if got := reasons(t, Jobs{Queue: other.(queue.Admin), Journal: j}, "app"); len(got) != 0 {
			t.Fatalf("the other queue has %v", got)
		}
		if got := length(t, j, "app"); got != 0 {
			t.Fatalf("%d entries are listed of jobs that are not there", got)
		}
		if got := reasons(t, Jobs{Queue: q.(queue.Admin), Journal: j}, "app"); got["BadTopic"] != n || len(got) != 1 {
			t.Fatalf("back again: %v", got)
		}
	}
}

// Jobs with the same body have one entry each.
func TestRecallOneEach(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 3)
	for i := range q.jobs {
		q.jobs[i].Body = []byte("same")
		e := entry("a", i)
		e.Sum, e.Reason = Sum([]byte("same")), fmt.Sprint("because ", i)
		v.Journal.Buried(e)
		q.jobs[i].ID = fmt.Sprint("new", i)
	}
	q.jobs = append(q.jobs, queue.BuriedJob{ID: "more", Body: []byte("same")})
	got := reasons(t, v, "a")
	for i := range 3 {
		if got[fmt.Sprint("because ", i)] != 1 {
			t.Fatalf("%v", got)
		}
	}
	if got[NoReason] != 1 || len(got) != 4 {
		t.Fatalf("%v", got)
	}
}

// Another process lists, taking one job after the other in its hand: no reason
// is lost, and a kick of all kicks all.
func TestKickWhileListedElsewhere(t *testing.T) {
	t.Parallel()
	const n = 300
	srv := beanstalktest.Start(t)
	q, elsewhere := openQueue(t, srv), openQueue(t, srv)
	j := openTest(t, t.TempDir(), Options{})
	buryJobs(t, q, j, n, func(int) string { return "BadTopic" })
	age(t, j, "app")
	v := Jobs{Queue: q.(queue.Admin), Journal: j}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := elsewhere.(queue.Admin).Buried(ctx, "app", n+1); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 {
		if got := reasons(t, v, "app"); got["BadTopic"] != n || len(got) != 1 {
			t.Fatalf("listed %v", got)
		}
	}
	r, err := v.Kick(ctx, "app", Filter{})
	if err != nil || r.N != n {
		t.Fatalf("%+v, %v", r, err)
	}
}

// A job that stays held is not listed, not forgotten, and not kicked in silence.
func TestBusyIsSaid(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 3)
	q.busy = "1"
	if got := reasons(t, v, "a"); len(got) != 2 {
		t.Fatalf("listed %v", got)
	}
	if got := list(t, v.Journal, "a"); len(got) != 3 {
		t.Fatalf("the journal holds %q", got)
	}
	q.busy = ""
	q.before = func() { q.busy = "1" } // it is taken after the list was made
	r, err := v.Kick(context.Background(), "a", Filter{})
	if r.N != 2 || !errors.Is(err, queue.ErrBusy) {
		t.Fatalf("%+v, %v", r, err)
	}
	q.busy, q.before = "", nil
	if got := reasons(t, v, "a"); got["reason 1"] != 1 || len(got) != 1 {
		t.Fatalf("listed %v", got)
	}
	// However many are held, the waiting is bounded.
	v, q = newJobs(t, 200)
	q.busy = "all"
	if got := reasons(t, v, "a"); len(got) != 0 {
		t.Fatalf("listed %v", got)
	}
	if limit := 200 + int(maxInsisted/firstPause); q.asked["peek"] > limit {
		t.Fatalf("asked %d times", q.asked["peek"])
	}
}

// Entries whose jobs are gone do not hide jobs without an entry from a look by
// reason, though there are as many of them.
func TestReasonHidesNoUnknown(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 5)
	for i := range q.jobs {
		q.jobs[i] = queue.BuriedJob{ID: fmt.Sprint(100 + i), Body: fmt.Appendf(nil, "unknown %d", i)}
	}
	v.Explain = func([]byte) string { return "not JSON" }
	items, more := mustList(t, v, Filter{Reason: "not json"})
	if len(items) != 5 || more {
		t.Fatalf("listed %q, more %t", ids(items), more)
	}
	// That takes a question for each; not at every look.
	before := q.asked["peek"]
	if items, _ := mustList(t, v, Filter{Reason: "nothing"}); len(items) != 0 || q.asked["peek"] != before {
		t.Fatalf("%d items, asked %d times more", len(items), q.asked["peek"]-before)
	}
}

// A list that the queue cuts is said to have more, and no error.
func TestCutListHasMore(t *testing.T) {
	t.Parallel()
	for name, journal := range map[string]bool{"with a journal": true, "without": false} {
		q := newFakeQueue(9)
		q.cut = 4
		v := Jobs{Queue: q}
		if journal {
			v.Journal = openTest(t, t.TempDir(), Options{})
		}
		if items, more := mustList(t, v, Filter{}); len(items) != 4 || !more {
			t.Errorf("%s: %d items, more %t", name, len(items), more)
		}
	}
	// An engine that goes on where the last list ended is asked until the end.
	q := newFakeQueue(9)
	q.cut, q.turns = 4, true
	v := Jobs{Queue: q, Journal: openTest(t, t.TempDir(), Options{})}
	if items, _ := mustList(t, v, Filter{}); len(items) != 9 {
		t.Errorf("%d items", len(items))
	}
}

// What is put away is bounded in number and time, and goes before what is not.
func TestGoneIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 10
	j := openTest(t, t.TempDir(), Options{Limit: limit})
	put := func(tube string, from, n int) (all []Entry) {
		for i := range n {
			e, err := entry(tube, from+i).bounded()
			if err != nil {
				t.Fatal(err)
			}
			j.Buried(e)
			all = append(all, e)
		}
		return all
	}
	gone := func(tube string) (ids []string) {
		if err := j.scan(goneShelf(tube), func(e Entry) bool { ids = append(ids, e.ID); return true }); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	putAway := func(entries []Entry, at time.Time) {
		if err := j.do(func(st *store) error { return st.putAway(entries, at, limit) }); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	putAway(put("a", 0, 6), now.Add(-keepGone-time.Hour))
	putAway(put("a", 10, 3), now.Add(-keepGone+time.Hour))
	putAway(put("a", 13, 3), now)
	if got := gone("a"); !slices.Equal(got, []string{"10", "11", "12", "13", "14", "15"}) {
		t.Fatalf("kept %q", got)
	}
	putAway(put("a", 20, 6), now)
	if got := gone("a"); len(got) != limit || !slices.Contains(got, "25") || slices.Contains(got, "10") {
		t.Fatalf("kept %q", got)
	}
	if n := length(t, j, "a"); n != 0 {
		t.Fatalf("%d listed", n)
	}
	for i := range totalFactor {
		put(fmt.Sprint("tube", i), 0, limit)
	}
	for i := range totalFactor {
		if n := length(t, j, fmt.Sprint("tube", i)); n != limit {
			t.Errorf("tube %d has %d entries", i, n)
		}
	}
	if got := gone("a"); len(got) != 0 {
		t.Errorf("kept %q", got)
	}
}
