package buried

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"propeller/queue"
	"propeller/worker/job"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tube  = "the-tube"
	topic = "com.example.app"
)

// fakeQueue is an engine with one tube of buried jobs.
type fakeQueue struct {
	queue.Admin // of what nobody asks it
	mu          sync.Mutex
	jobs        []queue.StoredJob // in the order they were buried
	down        bool              // it does not answer
	half        bool              // one of two servers is away
	before      func()            // called before each kick or delete
	during      func()            // called after a list was made
	listed      func(n int)       // called with the length of each list
	busy        string            // the id of a held job, or "all"
	cut         int               // after so many a list ends, if not 0
	asked       map[string]int
}

// body is the body of buried job n, whose producer got the id first-n.
func body(n int, reason string) []byte {
	return fmt.Appendf(nil, `{"token":"%064x","title":"t","ref":"ref %d","again":{"job":"first-%d","seed":"%032d","put":%d,"attempt":3,"bury":%q,"class":"rejected","status":400,"apns_id":"ID-%d","at":%d}}`,
		n, n, n, 0, 1000+n, reason, n, 2000+n)
}

// reason returns one of three reasons.
func reason(n int) string { return fmt.Sprint("400 Reason ", n%3) }

func newFakeQueue(n int) *fakeQueue {
	q := &fakeQueue{asked: make(map[string]int)}
	for i := range n {
		q.jobs = append(q.jobs, queue.StoredJob{ID: fmt.Sprint(i), Body: body(i, reason(i)), Age: time.Hour})
	}
	return q
}

func (q *fakeQueue) ask(ctx context.Context, what string) error {
	q.asked[what]++
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if q.down {
		return fmt.Errorf("%s: %w", what, queue.ErrUnavailable)
	}
	return nil
}

func (q *fakeQueue) away() error {
	if q.half {
		return fmt.Errorf("one server: %w", queue.ErrUnavailable)
	}
	return nil
}

func (q *fakeQueue) TubeStats(ctx context.Context, name string) (st queue.TubeStats, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.ask(ctx, "stats"); err != nil || name != tube {
		return st, err
	}
	return queue.TubeStats{Buried: len(q.jobs), Ready: 1}, q.away()
}

func (q *fakeQueue) List(ctx context.Context, name string, _ queue.State, f func([]queue.StoredJob) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.ask(ctx, "walk "+name); err != nil || name != tube {
		return err
	}
	n, err := 0, error(nil)
	for _, b := range q.jobs {
		if n++; n > q.cut && q.cut > 0 {
			err = queue.ErrCut
			break
		}
		if err = f([]queue.StoredJob{b}); err != nil {
			break
		}
	}
	if q.during != nil {
		q.during()
	}
	if q.listed != nil {
		q.listed(n)
	}
	return cmp.Or(err, q.away())
}

func (q *fakeQueue) find(name, id string) (int, error) {
	id = strings.TrimPrefix(id, "also ") // the engine has two names for each job
	i := slices.IndexFunc(q.jobs, func(b queue.StoredJob) bool { return b.ID == id })
	switch {
	case q.busy == "all" || id == q.busy && i >= 0:
		return 0, fmt.Errorf("job %q: %w", id, queue.ErrBusy)
	case strings.HasPrefix(id, "other"):
		return 0, fmt.Errorf("id %q: %w", id, queue.ErrRejected)
	case i < 0 || name != tube:
		return 0, fmt.Errorf("job %q: %w", id, queue.ErrNotFound)
	}
	return i, nil
}

func (q *fakeQueue) Peek(ctx context.Context, name, id string) (queue.StoredJob, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.ask(ctx, "peek"); err != nil {
		return queue.StoredJob{}, err
	}
	i, err := q.find(name, id)
	if err != nil {
		return queue.StoredJob{}, err
	}
	return q.jobs[i], nil
}

func (q *fakeQueue) Kick(ctx context.Context, name, id string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.before != nil {
		q.before()
	}
	if err := q.ask(ctx, "kick"); err != nil {
		return err
	}
	i, err := q.find(name, id)
	if err == nil {
		q.jobs = slices.Delete(q.jobs, i, i+1)
	}
	return err
}

func (q *fakeQueue) Delete(ctx context.Context, name, id string) error { return q.Kick(ctx, name, id) }

// viewOf returns the view of a queue with an empty index.
func viewOf(q queue.Admin) Jobs {
	return Jobs{Queue: q, Index: NewIndex(slog.New(slog.DiscardHandler)), Tube: tube, Topic: topic}
}

// told reports a job as buried by a worker, under that id.
func (q *fakeQueue) told(v Jobs, n int, id string) {
	b := job.BurialOf(body(n, reason(n)), topic)
	v.Index.Told(tube, id, b)
	q.jobs = append(q.jobs, queue.StoredJob{ID: id, Body: body(n, reason(n))})
}

func names(items []Item) []string {
	out := []string{}
	for _, it := range items {
		out = append(out, it.Job)
	}
	return out
}

func firsts(ids ...int) []string {
	out := []string{}
	for _, id := range ids {
		out = append(out, fmt.Sprint("first-", id))
	}
	return out
}

// mustList lists, and fails on an error.
func mustList(t *testing.T, v Jobs, f Filter) Listing {
	t.Helper()
	l, err := v.List(context.Background(), f)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return l
}

// rested moves the last walk far into the past.
func (x *Index) rested() {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.shelfLocked(tube)
	s.began, s.ended = s.began.Add(-time.Hour), s.ended.Add(-time.Hour)
}
