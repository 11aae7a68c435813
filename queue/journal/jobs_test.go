package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"propeller/queue"
)

// fakeQueue is an engine with buried jobs only. It is used by one goroutine.
type fakeQueue struct {
	jobs   []queue.BuriedJob // in the order they were buried
	tube   string
	down   bool   // nothing is answered
	silent bool   // TubeStats answers, nothing else
	before func() // called before each kick or delete
	busy   string // the id of a job that somebody holds; "all"
	cut    int    // at most so many are listed
	turns  bool   // the next list begins where the last ended
	asked  map[string]int
}

func newFakeQueue(n int) *fakeQueue {
	q := &fakeQueue{tube: "a", asked: make(map[string]int)}
	for i := range n {
		q.jobs = append(q.jobs, queue.BuriedJob{ID: fmt.Sprint(i), Body: fmt.Appendf(nil, "body %d", i), Age: time.Hour})
	}
	return q
}

func (q *fakeQueue) ask(ctx context.Context, what string) error {
	q.asked[what]++
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if q.down || (q.silent && what != "stats") {
		return fmt.Errorf("%s: %w", what, queue.ErrUnavailable)
	}
	return nil
}

func (q *fakeQueue) TubeStats(ctx context.Context, tube string) (st queue.TubeStats, err error) {
	if tube == q.tube {
		st.Buried = len(q.jobs)
	}
	return st, q.ask(ctx, "stats")
}

func (q *fakeQueue) Buried(ctx context.Context, tube string, limit int) ([]queue.BuriedJob, error) {
	if err := q.ask(ctx, "buried"); err != nil || tube != q.tube {
		return nil, err
	}
	if q.cut == 0 || q.cut >= len(q.jobs) {
		return slices.Clone(q.jobs[:min(limit, len(q.jobs))]), nil
	}
	some := slices.Clone(q.jobs[:min(limit, q.cut)])
	if q.turns {
		q.jobs = append(slices.Clone(q.jobs[len(some):]), some...)
	}
	return some, queue.ErrCut
}

func (q *fakeQueue) find(tube, id string) (int, error) {
	i := slices.IndexFunc(q.jobs, func(b queue.BuriedJob) bool { return b.ID == id })
	switch {
	case q.busy == "all" || (id == q.busy && i >= 0):
		return 0, fmt.Errorf("job %q: %w", id, queue.ErrBusy)
	case strings.HasPrefix(id, "other"):
		return 0, fmt.Errorf("id %q: %w", id, queue.ErrRejected)
	case i < 0 || tube != q.tube:
		return 0, fmt.Errorf("job %q: %w", id, queue.ErrNotFound)
	}
	return i, nil
}

func (q *fakeQueue) Peek(ctx context.Context, tube, id string) (queue.BuriedJob, error) {
	if err := q.ask(ctx, "peek"); err != nil {
		return queue.BuriedJob{}, err
	}
	i, err := q.find(tube, id)
	if err != nil {
		return queue.BuriedJob{}, err
	}
	return q.jobs[i], nil
}

func (q *fakeQueue) Kick(ctx context.Context, tube, id string) error {
	if q.before != nil {
		q.before()
	}
	if err := q.ask(ctx, "kick"); err != nil {
		return err
	}
	i, err := q.find(tube, id)
	if err == nil {
		q.jobs = slices.Delete(q.jobs, i, i+1)
	}
	return err
}

func (q *fakeQueue) Delete(ctx context.Context, tube, id string) error { return q.Kick(ctx, tube, id) }

// newJobs returns n buried jobs that are all in the journal.
func newJobs(t *testing.T, n int) (Jobs, *fakeQueue) {
	t.Helper()
	q := newFakeQueue(n)
	j := openTest(t, t.TempDir(), Options{})
	for i := range n {
		j.Buried(entry("a", i))
	}
	return Jobs{Queue: q, Journal: j}, q
}

func ids(items []Item) []string {
	out := []string{}
	for _, it := range items {
		out = append(out, it.ID)
	}
	return out
}

// mustList lists without trouble.
func mustList(t *testing.T, v Jobs, f Filter) (items []Item, more bool) {
	t.Helper()
	items, more, err := v.List(context.Background(), "a", f)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return items, more
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 7)
	for name, tt := range map[string]struct {
		f    Filter
		want []string
		more bool
	}{
		"all":             {Filter{}, []string{"0", "1", "2", "3", "4", "5", "6"}, false},
		"reason":          {Filter{Reason: "REASON 1"}, []string{"1", "4"}, false},
		"class":           {Filter{Reason: "Reject"}, []string{"0", "1", "2", "3", "4", "5", "6"}, false},
		"none":            {Filter{Reason: "BadTopic"}, []string{}, false},
		"limit":           {Filter{Limit: 2}, []string{"0", "1"}, true},
		"limit, all":      {Filter{Limit: 7}, []string{"0", "1", "2", "3", "4", "5", "6"}, false},
		"reason, limit":   {Filter{Reason: "reason 0", Limit: 2}, []string{"0", "3"}, true},
		"ids":             {Filter{IDs: []string{"5", "2", "5"}}, []string{"5", "2"}, false},
		"ids and reason":  {Filter{IDs: []string{"5", "1"}, Reason: "reason 2"}, []string{"5"}, false},
		"ids and a limit": {Filter{IDs: []string{"5", "1"}, Limit: 1}, []string{"5"}, true},
	} {
		if items, more := mustList(t, v, tt.f); !slices.Equal(ids(items), tt.want) || more != tt.more {
			t.Errorf("%s: %q, more %t", name, ids(items), more)
		}
	}
	if q.asked["buried"] > 0 {
		t.Error("the queue was asked for all, though the journal knows them")
	}
	items, _ := mustList(t, v, Filter{IDs: []string{"4"}})
	if it := items[0]; it.Entry != entry("a", 4) || string(it.Body) != "body 4" || it.Age != time.Hour || it.Unverified {
		t.Errorf("%+v", it)
	}
	if _, _, err := v.List(context.Background(), "bad tube", Filter{}); !errors.Is(err, queue.ErrRejected) {
		t.Errorf("bad tube: %v", err)
	}
	_, _, err := v.List(context.Background(), "a", Filter{IDs: []string{"99", "1", "other/1"}})
	if !errors.Is(err, queue.ErrNotFound) || !errors.Is(err, queue.ErrRejected) {
		t.Errorf("unknown ids: %v", err)
	}
}

// What is buried no more is not shown, and forgotten once it must be true.
func TestListForgetsStale(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 5)
	young := entry("a", 77) // the worker has written it and buries next
	young.At = time.Now()
	v.Journal.Buried(young)
	foreign := entry("a", 78)
	foreign.ID = "other/78" // of the queue that was configured before
	v.Journal.Buried(foreign)
	q.jobs = slices.Delete(q.jobs, 1, 3)
	if items, _ := mustList(t, v, Filter{}); !slices.Equal(ids(items), []string{"0", "3", "4"}) {
		t.Fatalf("listed %q", ids(items))
	}
	if got := list(t, v.Journal, "a"); !slices.Equal(got, []string{"0", "3", "4", "77"}) {
		t.Fatalf("the journal holds %q", got)
	}
}

// The id is another job's now: its reason is not the old one's.
func TestListIDReused(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 3)
	q.jobs[1].Body = []byte("another body")
	v.Explain = func(body []byte) string { return "explained: " + string(body) }
	items, _ := mustList(t, v, Filter{})
	reasons := map[string]string{}
	for _, it := range items {
		reasons[it.ID] = it.Reason
	}
	if len(items) != 3 || reasons["1"] != "explained: another body" || reasons["0"] != "reason 0" || reasons["2"] != "reason 2" {
		t.Fatalf("%v", reasons)
	}
	if it, err := v.Show(context.Background(), "a", "1"); err != nil || it.Reason != "explained: another body" {
		t.Fatalf("%+v, %v", it, err)
	}
	if e, ok, err := v.Journal.Get("a", "1"); !ok || err != nil || e.Sum != Sum([]byte("another body")) {
		t.Fatalf("%+v, %t, %v", e, ok, err)
	}
}

// Jobs that the journal does not know are entered once, with what can be said.
func TestListFindsUnknown(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 4)
	q.jobs = append(q.jobs,
		queue.BuriedJob{ID: "100", Body: []byte("x"), Age: time.Minute},
		queue.BuriedJob{ID: "101", Body: []byte("y"), Age: time.Minute},
		queue.BuriedJob{ID: "102", Body: []byte("not JSON"), Age: time.Minute})
	v.Explain = func(body []byte) string {
		if string(body) == "x" {
			return ""
		}
		return "explained"
	}
	for range 2 {
		items, _ := mustList(t, v, Filter{})
		var got []string
		for _, it := range items {
			got = append(got, it.ID+" "+it.Reason)
		}
		want := []string{"0 reason 0", "1 reason 1", "2 reason 2", "3 reason 0", "100 " + NoReason, "101 explained", "102 explained"}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%q", got)
		}
	}
	if n := q.asked["buried"]; n != 1 {
		t.Fatalf("the queue was asked for all %d times", n)
	}
	if n := length(t, v.Journal, "a"); n != 7 {
		t.Fatalf("%d entries", n)
	}
	// As many stale entries as unknown jobs: the numbers agree, the jobs do not.
	q.jobs[0].ID = "200"
	if items, _ := mustList(t, v, Filter{}); !slices.Contains(ids(items), "200") || len(items) != 7 {
		t.Fatalf("listed %q", ids(items))
	}
}

func TestWithoutJournal(t *testing.T) {
	t.Parallel()
	closed, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, j := range map[string]*Journal{"none": nil, "cannot be read": closed} {
		v := Jobs{Queue: newFakeQueue(5), Journal: j, Explain: func(b []byte) string { return "about " + string(b) }}
		items, more := mustListLax(t, v, Filter{Limit: 4})
		if len(items) != 4 || !more || items[1].Reason != "about body 1" || items[1].Topic != "" {
			t.Fatalf("%s: %d items, %+v", name, len(items), items[1])
		}
		r, _ := v.Kick(context.Background(), "a", Filter{Reason: "body 3"})
		if r.N != 1 || r.More {
			t.Fatalf("%s: %+v", name, r)
		}
		if it, err := v.Show(context.Background(), "a", "2"); err != nil || it.Reason != "about body 2" {
			t.Fatalf("%s: %+v, %v", name, it, err)
		}
		if n, err := v.Rebuild(context.Background(), "a"); n != 0 || (j == nil) != (err == nil) {
			t.Fatalf("%s: rebuilt %d, %v", name, n, err)
		}
	}
}

// mustListLax allows the error that the journal cannot be read.
func mustListLax(t *testing.T, v Jobs, f Filter) ([]Item, bool) {
	t.Helper()
	items, more, err := v.List(context.Background(), "a", f)
	if err != nil && !errors.Is(err, errJournalClosed) {
		t.Fatal(err)
	}
	return items, more
}

// While the queue is away the journal is shown for what it is, nothing is
// forgotten, and the queue is not asked for each.
func TestListDuringOutage(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 50)
	q.down = true
	items, _, err := v.List(context.Background(), "a", Filter{})
	if len(items) != 50 || !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("%d items, %v", len(items), err)
	}
	for _, it := range items {
		if !it.Unverified || it.Body != nil {
			t.Fatalf("%+v", it)
		}
	}
	if q.asked["peek"] != maxFailures {
		t.Fatalf("asked %d times", q.asked["peek"])
	}
	r, err := v.Kick(context.Background(), "a", Filter{})
	if r.N != 0 || !errors.Is(err, queue.ErrUnavailable) || q.asked["kick"] > 0 {
		t.Fatalf("%+v, %v, %d kicks", r, err, q.asked["kick"])
	}
	if n := length(t, v.Journal, "a"); n != 50 {
		t.Fatalf("%d entries", n)
	}
}

func TestKickAndDelete(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(Jobs, context.Context, string, Filter) (Result, error){"kick": Jobs.Kick, "delete": Jobs.Delete} {
		v, q := newJobs(t, 10)
		r, err := act(v, context.Background(), "a", Filter{Reason: "reason 1", Limit: 2})
		if err != nil || r != (Result{N: 2, More: true}) {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		r, err = act(v, context.Background(), "a", Filter{Reason: "reason 1", Limit: 2})
		if err != nil || r != (Result{N: 1}) {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		r, err = act(v, context.Background(), "a", Filter{IDs: []string{"0", "1", "3"}})
		if !errors.Is(err, queue.ErrNotFound) || !strings.Contains(fmt.Sprint(err), `"1"`) || r.N != 2 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if got := list(t, v.Journal, "a"); !slices.Equal(got, []string{"2", "5", "6", "8", "9"}) || len(q.jobs) != 5 {
			t.Fatalf("%s: left %q, %d jobs", name, got, len(q.jobs))
		}
	}
}

// A job that is buried again while others are kicked is not kicked again, and
// its new entry stays.
func TestKickBuriedAgain(t *testing.T) {
	t.Parallel()
	v, q := newJobs(t, 3)
	first := q.jobs[0]
	kicks := 0
	q.before = func() {
		if kicks++; kicks == 2 { // job 0 has been kicked, tried, and failed anew
			q.jobs = append(q.jobs, first)
			e := entry("a", 0)
			e.At, e.Reason = time.Now(), "failed anew"
			v.Journal.Buried(e)
		}
	}
	r, err := v.Kick(context.Background(), "a", Filter{})
	if err != nil || r.N != 3 || kicks != 3 {
		t.Fatalf("%+v, %v, %d kicks", r, err, kicks)
	}
	items, _ := mustList(t, v, Filter{})
	if len(items) != 1 || items[0].Reason != "failed anew" {
		t.Fatalf("%+v", items)
	}
}

// Interrupted, each job is kicked and forgotten, or buried and known.
func TestKickInterrupted(t *testing.T) {
	t.Parallel()
	for name, interrupt := range map[string]func(*fakeQueue, context.CancelFunc){
		"context": func(_ *fakeQueue, cancel context.CancelFunc) { cancel() },
		"queue":   func(q *fakeQueue, _ context.CancelFunc) { q.down = true },
	} {
		v, q := newJobs(t, 20)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		kicks := 0
		q.before = func() {
			if kicks++; kicks == 8 {
				interrupt(q, cancel)
			}
		}
		r, err := v.Kick(ctx, "a", Filter{})
		if r.N != 7 || err == nil {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if kicks > 7+maxFailures {
			t.Fatalf("%s: %d kicks", name, kicks)
		}
		var buried []string
		for _, b := range q.jobs {
			buried = append(buried, b.ID)
		}
		if got := list(t, v.Journal, "a"); !slices.Equal(got, buried) || len(got) != 13 {
			t.Fatalf("%s: the journal holds %q, buried are %q", name, got, buried)
		}
	}
}

// A journal at its limit does not make every list ask the queue for all.
func TestFullJournal(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(30)
	j := openTest(t, t.TempDir(), Options{Limit: 10})
	for i := range 30 {
		j.Buried(entry("a", i))
	}
	v := Jobs{Queue: q, Journal: j}
	if items, _ := mustList(t, v, Filter{}); len(items) != 10 || q.asked["buried"] > 0 {
		t.Fatalf("%d items, asked %d times", len(items), q.asked["buried"])
	}
	// Kicked in turns, all come.
	total := 0
	for range 4 {
		r, err := v.Kick(context.Background(), "a", Filter{})
		if err != nil {
			t.Fatal(err)
		}
		total += r.N
	}
	if total != 30 || len(q.jobs) != 0 {
		t.Fatalf("%d kicked, %d left", total, len(q.jobs))
	}
}
