package buried

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"propeller/queue"
	"propeller/worker/job"
)

func TestListFilters(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(7)
	v := viewOf(q)
	for name, tt := range map[string]struct {
		f    Filter
		want []string
		more bool
	}{
		"all":           {Filter{}, firsts(0, 1, 2, 3, 4, 5, 6), false},
		"reason":        {Filter{Reason: "REASON 1"}, firsts(1, 4), false},
		"class":         {Filter{Reason: "Reject"}, firsts(0, 1, 2, 3, 4, 5, 6), false},
		"none":          {Filter{Reason: "BadTopic"}, firsts(), false},
		"limit":         {Filter{Limit: 2}, firsts(0, 1), true},
		"limit, all":    {Filter{Limit: 7}, firsts(0, 1, 2, 3, 4, 5, 6), false},
		"reason, limit": {Filter{Reason: "reason 0", Limit: 2}, firsts(0, 3), true},
		"only":          {Filter{Only: func(e *Entry) bool { return e.Ref == "ref 5" }}, firsts(5), false},
	} {
		if l := mustList(t, v, tt.f); !slices.Equal(names(l.Items), tt.want) || l.More != tt.more || !l.Complete {
			t.Errorf("%s: %q, %+v", name, names(l.Items), l)
		}
	}
	if n := q.asked["walk "+tube]; n != 1 {
		t.Errorf("the queue was asked for all %d times", n)
	}
	want := Entry{Tube: tube, ID: "4", Burial: job.Burial{
		Job: "first-4", Reason: "400 Reason 1", Class: "rejected", Status: 400, APNsID: "ID-4", At: time.Unix(2004, 0), Put: time.Unix(1004, 0),
		Tries: 3, Tokens: 1, Token: "00000000", Ref: "ref 4",
	}}
	if l := mustList(t, v, Filter{Reason: "reason 1"}); l.Items[1].Entry != want || l.Items[1].Unverified || l.Items[1].Body != nil {
		t.Errorf("%+v", l.Items[1])
	}
	bad := v
	bad.Tube = "bad tube"
	if _, err := bad.List(context.Background(), Filter{}); !errors.Is(err, queue.ErrRejected) {
		t.Errorf("bad tube: %v", err)
	}
}

// Jobs that workers report are listed, found by either id, and kicked without a walk.
func TestToldJobsAreFound(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]Filter{
		"reason": {Reason: "Reason 1"}, "first id": {IDs: firsts(1, 4)}, "the queue's": {IDs: []string{"101", "104"}}, "both": {IDs: []string{"101", "first-4", "first-1"}},
	} {
		q := newFakeQueue(0)
		v := viewOf(q)
		mustList(t, v, Filter{})
		for i := range 6 {
			q.told(v, i, fmt.Sprint(100+i))
		}
		if l := mustList(t, v, Filter{}); !slices.Equal(names(l.Items), firsts(0, 1, 2, 3, 4, 5)) || q.asked["walk "+tube] != 1 {
			t.Fatalf("%q, asked %v", names(l.Items), q.asked)
		}
		r, err := v.Kick(context.Background(), f)
		if err != nil || len(r.Jobs) != 2 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if l := mustList(t, v, Filter{}); !slices.Equal(names(l.Items), firsts(0, 2, 3, 5)) || len(q.jobs) != 4 || !l.Complete {
			t.Fatalf("%s: %q left, %d jobs", name, names(l.Items), len(q.jobs))
		}
		if n := q.asked["walk "+tube]; n != 1 {
			t.Errorf("%s: %d walks", name, n)
		}
		it, err := v.Show(context.Background(), "first-5")
		if err != nil || it.ID != "105" || string(it.Body) != string(body(5, reason(5))) {
			t.Errorf("%s: %+v, %v", name, it, err)
		}
	}
}

// While workers bury, the numbers of index and queue differ for a moment: that causes no
// walk.
func TestNoWalkWhileWorkersBury(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(0)
	v := viewOf(q)
	mustList(t, v, Filter{})
	v.Index.rested()
	q.told(v, 1, "101")
	q.jobs = append(q.jobs, queue.StoredJob{ID: "102", Body: body(2, reason(2))}) // not reported yet
	if l := mustList(t, v, Filter{}); !slices.Equal(names(l.Items), firsts(1)) || q.asked["walk "+tube] != 1 || l.Complete {
		t.Fatalf("%q, complete %t, asked %v", names(l.Items), l.Complete, q.asked)
	}
	v.Index.shelves[tube].told = time.Now().Add(-tellTime)
	if l := mustList(t, v, Filter{}); !slices.Equal(names(l.Items), firsts(1, 2)) || !l.Complete {
		t.Fatalf("%q", names(l.Items))
	}
}

// The parts of one list share the producer's id, which selects all of them; the queue's id
// selects one.
func TestPartsOfOneJob(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(4)
	q.jobs[2].Body = body(1, "another reason")
	v := viewOf(q)
	if found := mustList(t, v, Filter{}); len(found.Items) != 4 || len(v.Index.Find("first-1")) != 2 || len(v.Index.Find("1")) != 0 {
		t.Fatalf("%q", names(found.Items))
	}
	if r, err := v.Kick(context.Background(), Filter{IDs: []string{"first-1"}, Reason: "another"}); err != nil || len(r.Jobs) != 1 || q.jobs[1].ID != "1" {
		t.Fatalf("%+v, %v", r, err)
	}
	q.jobs = append(q.jobs, queue.StoredJob{ID: "9", Body: body(1, "a third")})
	v.Index.rested()
	mustList(t, v, Filter{})
	if r, err := v.Delete(context.Background(), Filter{IDs: []string{"first-1"}}); err != nil || len(r.Jobs) != 2 || len(q.jobs) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// An engine may have more than one name for a job.
func TestOtherNames(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(4)
	v := viewOf(q)
	for range 2 { // first unknown, then known
		if it, err := v.Show(context.Background(), "also 2"); err != nil || it.Job != "first-2" || it.ID != "2" || it.Body == nil {
			t.Fatalf("%+v, %v", it, err)
		}
		mustList(t, v, Filter{})
	}
	if r, err := v.Kick(context.Background(), Filter{IDs: []string{"also 2", "2", "first-2", "also 3"}}); err != nil || len(r.Jobs) != 2 || len(q.jobs) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// Jobs without a reason are listed with what can be said about them.
func TestSilentJobs(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(0)
	q.jobs = []queue.StoredJob{
		{ID: "7", Body: []byte("garbage"), Age: time.Hour},
		{ID: "8", Body: fmt.Appendf(nil, `{"token":"%064x","title":"t"}`, 1), Age: time.Minute},
	}
	v := viewOf(q)
	l := mustList(t, v, Filter{})
	if len(l.Items) != 2 || l.Items[0].Reason != "job: not JSON" || l.Items[1].Reason != job.NotRecorded || l.Items[0].Job != "7" || time.Since(l.Items[1].At).Round(time.Second) != time.Minute {
		t.Fatalf("%+v", l.Items)
	}
	// The worker that buried it unchanged knows more, also after a walk.
	at := time.Now()
	v.Index.Told(tube, "8", job.Burial{Job: "8", Reason: "no room", At: at})
	if err := v.walk(context.Background(), v.Index.limit); err != nil {
		t.Fatal(err)
	}
	if l := mustList(t, v, Filter{Reason: "no room"}); len(l.Items) != 1 || !l.Items[0].At.Equal(at) {
		t.Fatalf("%+v", l.Items)
	}
}

// Jobs that other clients kick or delete are noticed: when they are to be kicked, and by the
// number of jobs, though not on every look.
func TestOthersKick(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(6)
	v := viewOf(q)
	mustList(t, v, Filter{})
	q.jobs = q.jobs[3:]
	if r, err := v.Kick(context.Background(), Filter{Reason: "Reason 0"}); err != nil || len(r.Jobs) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if l := mustList(t, v, Filter{}); !slices.Equal(names(l.Items), firsts(1, 2, 4, 5)) {
		t.Fatalf("%q", names(l.Items))
	}
	if _, err := v.Show(context.Background(), "first-1"); !errors.Is(err, queue.ErrNotFound) {
		t.Fatal(err)
	}
	v.Index.rested()
	if l := mustList(t, v, Filter{}); !slices.Equal(names(l.Items), firsts(4, 5)) || q.asked["walk "+tube] != 2 {
		t.Fatalf("%q, asked %v", names(l.Items), q.asked)
	}
	q.jobs = append(q.jobs, queue.StoredJob{ID: "50", Body: body(50, reason(50))}) // another daemon's
	if it, err := v.Show(context.Background(), "first-50"); err != nil || it.ID != "50" {
		t.Fatalf("%+v, %v", it, err)
	}
	if _, err := v.Show(context.Background(), "other-1"); !errors.Is(err, queue.ErrRejected) {
		t.Fatal(err)
	}
	walks := q.asked["walk "+tube]
	if _, err := v.Show(context.Background(), "first-99"); !errors.Is(err, queue.ErrNotFound) || q.asked["walk "+tube] != walks {
		t.Fatalf("%v, asked %v", err, q.asked)
	}
}

// By now the id belongs to another job, which is not kicked.
func TestIDReused(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(3)
	v := viewOf(q)
	mustList(t, v, Filter{})
	q.jobs[1].Body = body(77, "another")
	if r, err := v.Kick(context.Background(), Filter{Reason: "Reason 1"}); err != nil || len(r.Jobs) != 0 || len(q.jobs) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if it, err := v.Show(context.Background(), "1"); err != nil || it.Job != "first-77" {
		t.Fatalf("%+v, %v", it, err)
	}
}

// While the queue is away the index is listed as unverified, nothing is forgotten, and the
// queue is not asked for each job. One of two servers may answer.
func TestListDuringOutage(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(50)
	v := viewOf(q)
	q.half = true
	l, err := v.List(context.Background(), Filter{})
	if len(l.Items) != 50 || l.Complete || !errors.Is(err, queue.ErrUnavailable) || l.Items[0].Unverified {
		t.Fatalf("%d items, %t, %v", len(l.Items), l.Complete, err)
	}
	q.half, q.down = false, true
	l, err = v.List(context.Background(), Filter{})
	if len(l.Items) != 50 || !errors.Is(err, queue.ErrUnavailable) || !l.Items[49].Unverified {
		t.Fatalf("%d items, %v", len(l.Items), err)
	}
	r, err := v.Kick(context.Background(), Filter{})
	if len(r.Jobs) != 0 || !errors.Is(err, queue.ErrUnavailable) || q.asked["kick"] > 0 || q.asked["peek"] > maxFailures {
		t.Fatalf("%+v, %v, asked %v", r, err, q.asked)
	}
	q.down = false
	v.Index.rested()
	if l := mustList(t, v, Filter{}); len(l.Items) != 50 || !l.Complete {
		t.Fatalf("%d items", len(l.Items))
	}
}

func TestKickAndDelete(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(Jobs, context.Context, Filter) (Result, error){"kick": Jobs.Kick, "delete": Jobs.Delete} {
		q := newFakeQueue(10)
		v := viewOf(q)
		r, err := act(v, context.Background(), Filter{Reason: "reason 1", Limit: 2})
		if err != nil || len(r.Jobs) != 2 || !r.More {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		r, err = act(v, context.Background(), Filter{Reason: "reason 1", Limit: 2})
		if err != nil || len(r.Jobs) != 1 || r.More {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		r, err = act(v, context.Background(), Filter{IDs: []string{"0", "first-1", "first-3", "3"}})
		if !errors.Is(err, queue.ErrNotFound) || !strings.Contains(fmt.Sprint(err), `"first-1"`) || len(r.Jobs) != 2 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if l := mustList(t, v, Filter{}); !slices.Equal(names(l.Items), firsts(2, 5, 6, 8, 9)) || len(q.jobs) != 5 {
			t.Fatalf("%s: left %q, %d jobs", name, names(l.Items), len(q.jobs))
		}
	}
}

// A job that is buried again while others are kicked is not kicked again, and
// its new entry stays.
func TestKickBuriedAgain(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(3)
	v := viewOf(q)
	mustList(t, v, Filter{})
	kicks := 0
	q.before = func() {
		if kicks++; kicks == 2 { // the first was kicked, tried, and failed again
			q.jobs = append(q.jobs, queue.StoredJob{ID: "0", Body: body(0, "failed anew")})
			v.Index.Told(tube, "0", job.BurialOf(body(0, "failed anew"), topic))
		}
	}
	r, err := v.Kick(context.Background(), Filter{})
	if err != nil || len(r.Jobs) != 3 || kicks != 3 {
		t.Fatalf("%+v, %v, %d kicks", r, err, kicks)
	}
	if l := mustList(t, v, Filter{}); len(l.Items) != 1 || l.Items[0].Reason != "failed anew" {
		t.Fatalf("%+v", l.Items)
	}
}

// After an interruption each job is either kicked and forgotten, or buried and known.
func TestKickInterrupted(t *testing.T) {
	t.Parallel()
	for name, interrupt := range map[string]func(*fakeQueue, context.CancelFunc){
		"context": func(_ *fakeQueue, cancel context.CancelFunc) { cancel() },
		"queue":   func(q *fakeQueue, _ context.CancelFunc) { q.down = true },
	} {
		q := newFakeQueue(20)
		v := viewOf(q)
		mustList(t, v, Filter{})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		kicks := 0
		q.before = func() {
			if kicks++; kicks == 8 {
				interrupt(q, cancel)
			}
		}
		r, err := v.Kick(ctx, Filter{})
		if len(r.Jobs) != 7 || err == nil || kicks > 7+maxFailures {
			t.Fatalf("%s: %+v, %v, %d kicks", name, r, err, kicks)
		}
		q.down = false
		if l := mustList(t, v, Filter{}); len(l.Items) != 13 || len(q.jobs) != 13 || q.asked["walk "+tube] != 1 {
			t.Fatalf("%s: %q, %d buried", name, names(l.Items), len(q.jobs))
		}
	}
}

// A job that stays held is not forgotten, and the error says that it was not kicked.
func TestBusyIsSaid(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(3)
	v := viewOf(q)
	mustList(t, v, Filter{})
	q.busy = "1"
	r, err := v.Kick(context.Background(), Filter{})
	if len(r.Jobs) != 2 || !errors.Is(err, queue.ErrBusy) {
		t.Fatalf("%+v, %v", r, err)
	}
	if l := mustList(t, v, Filter{}); !slices.Equal(names(l.Items), firsts(1)) {
		t.Fatalf("listed %q", names(l.Items))
	}
	// However many jobs are held, the wait is bounded.
	q = newFakeQueue(200)
	v = viewOf(q)
	mustList(t, v, Filter{})
	q.busy = "all"
	if r, err := v.Kick(context.Background(), Filter{}); len(r.Jobs) != 0 || !errors.Is(err, queue.ErrBusy) {
		t.Fatalf("%+v, %v", r, err)
	}
	if limit := 200 + int(maxInsisted/firstPause); q.asked["peek"] > limit {
		t.Fatalf("asked %d times", q.asked["peek"])
	}
}

// A list without a keeper of its index reads no more jobs than it shows.
func TestBriefListReadsFew(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(100)
	read := 0
	q.listed = func(n int) { read += n }
	v := viewOf(q)
	v.Brief = true
	l := mustList(t, v, Filter{Limit: 5})
	if !slices.Equal(names(l.Items), firsts(0, 1, 2, 3, 4)) || !l.More || read != 6 {
		t.Errorf("%q, more %v, %d read", names(l.Items), l.More, read)
	}
	v.Index.rested()
	if l := mustList(t, v, Filter{Reason: "Reason 1", Limit: 5}); len(l.Items) != 5 || l.Items[4].Job != "first-13" || read != 106 {
		t.Errorf("%q, %d read", names(l.Items), read)
	}
}

func TestTimeOfBurial(t *testing.T) {
	t.Parallel()
	q := newFakeQueue(10) // buried at 2000 to 2009
	v := viewOf(q)
	if l := mustList(t, v, Filter{Since: time.Unix(2008, 0)}); !slices.Equal(names(l.Items), firsts(8, 9)) {
		t.Errorf("since: %q", names(l.Items))
	}
	r, err := v.Kick(t.Context(), Filter{Before: time.Unix(2002, 999)})
	if err != nil || !slices.Equal(r.Jobs, firsts(0, 1)) {
		t.Errorf("before: %+v, %v", r, err)
	}
}

// A buried job that calls itself by another's id is not taken for it, nor for a part of it,
// be it in its tube or in another.
func TestForgedEntries(t *testing.T) {
	x := NewIndex(slog.New(slog.DiscardHandler))
	put := func(tube, id, first, text string) {
		x.Told(tube, id, job.Burial{Job: first, Seed: job.SeedOf(first, []byte(text)), Reason: text})
	}
	put("another", "01", "7", "forged")
	put(tube, "05", "7", "forged")
	put(tube, "7", "7", "true")
	put(tube, "08", "7", "true") // the rest of its list
	put(tube, "11", "named", "true")
	put(tube, "12", "named", "forged")
	for job, want := range map[string]int{"7": 2, "named": 1} {
		found := x.Find(job)
		for _, e := range found {
			if e.Tube != tube || e.Reason != "true" {
				t.Errorf("%q is %+v", job, e)
			}
		}
		if byName := x.byName(tube)[job]; len(found) != want || len(byName) != want {
			t.Errorf("%q: %d and %d found, want %d", job, len(found), len(byName), want)
		}
	}
	if e := x.byName(tube)["05"]; len(e) != 1 {
		t.Errorf("the forged one: %v", e)
	}
}
