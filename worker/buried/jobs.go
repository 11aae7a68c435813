package buried

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"propeller/internal/backoff"
	"propeller/queue"
)

// Jobs is the view of one tube's buried jobs. The index knows which there are, and the
// queue kicks and deletes them. If their numbers differ, the tube is read first.
type Jobs struct {
	Queue queue.Admin
	Index *Index
	Tube  string
	Topic string // of the tube's app
	// Wait bounds that reading; 0 means as long as the request.
	Wait time.Duration
	// Brief: a list reads no more jobs than it shows. It is for an index that nobody keeps.
	Brief bool
}

// Filter selects buried jobs. The zero value selects all, up to DefaultMany.
type Filter struct {
	Reason string            // a part of the reason or class, ignoring case
	Only   func(*Entry) bool // if it returns true; nil selects all
	IDs    []string          // by the producer's ids or the queue's; empty selects all
	Limit  int               // 0 means DefaultMany
	Since  time.Time         // buried in this second or later; zero means no bound
	Before time.Time         // buried in an earlier second than this; zero means no bound
}

// DefaultMany is the limit of a Filter without one.
const DefaultMany = 1000

// Listing has the known jobs that match a filter, the oldest burial first.
type Listing struct {
	Items    []Item
	More     bool // the limit was reached, and more match
	Complete bool // all buried jobs of the tube were considered
}

// Item is one buried job.
type Item struct {
	Entry
	Body []byte // as in the queue; set only by Show

	// Unverified: the queue did not answer, so the job may be gone.
	Unverified bool
}

// Result is what Kick and Delete did.
type Result struct {
	Jobs []string // the jobs kicked or deleted, by their producer's ids
	More bool     // the limit was reached, and there are more
}

// List lists the jobs that f selects. Errors: ErrRejected for an invalid tube name, the
// queue's errors, ctx.Err(). Even with an error it returns the jobs it knows.
func (v Jobs) List(ctx context.Context, f Filter) (l Listing, err error) {
	if err := queue.CheckTube(v.Tube); err != nil {
		return l, err
	}
	read := v.Index.limit
	if v.Brief && f.selectsAll() {
		read = f.limit() + 1
	}
	counted, err := v.refresh(ctx, pauseAfter, read)
	entries, more := v.Index.oldest(v.Tube, f)
	l.More = more
	for _, e := range entries {
		l.Items = append(l.Items, Item{Entry: e.public(), Unverified: counted < 0})
	}
	n, whole := v.Index.count(v.Tube)
	l.Complete = whole && counted <= n
	return l, err
}

// refresh reads up to limit jobs of the tube if the queue's number of jobs differs from the
// index, or if the index is incomplete; pause is as in stale. It returns the queue's number, or -1 if the
// queue did not answer at all, and the queue's error.
func (v Jobs) refresh(ctx context.Context, pause time.Duration, limit int) (counted int, err error) {
	st, err := v.Queue.TubeStats(ctx, v.Tube)
	switch {
	case err != nil && st == (queue.TubeStats{}):
		return -1, err
	case v.Index.stale(v.Tube, st.Buried, err != nil, pause):
		err = cmp.Or(err, v.walk(ctx, limit))
	}
	return st.Buried, err
}

// walk reads up to limit jobs of the tube into the index. Running out of time is no error.
func (v Jobs) walk(ctx context.Context, limit int) error {
	within, cancel := ctx, context.CancelFunc(func() {})
	if v.Wait > 0 {
		within, cancel = context.WithTimeout(ctx, v.Wait)
	}
	defer cancel()
	err := v.Index.walk(within, v.Queue, v.Tube, v.Topic, limit)
	if errors.Is(err, queue.ErrCut) || within.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// After a walk for a list there is no other for at least pauseAfter, and at least pauseTimes as
// long as the walk took.
const (
	pauseAfter = time.Second
	pauseTimes = 10
	// tellTime is how long the numbers may differ while a worker buries a job.
	tellTime = time.Second
)

// stale reports whether a request should read a tube in which the queue counted so many
// buried jobs. partly says that only some servers answered. It returns false if the last
// walk ended less than pause ago; a pause of 0 ignores that.
func (x *Index) stale(tube string, counted int, partly bool, pause time.Duration) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.shelfLocked(tube)
	if s.whole && (partly || counted == len(s.entries) || pause > 0 && time.Since(s.told) < tellTime) || x.fullLocked() {
		return false
	}
	return pause == 0 || s.ended.IsZero() || time.Since(s.ended) > max(pause, pauseTimes*s.ended.Sub(s.began))
}

// Show returns one buried job. Errors as queue.Admin's Peek.
func (v Jobs) Show(ctx context.Context, id string) (Item, error) {
	s := seeker{v: v, ctx: ctx}
	entries, errs := s.named([]string{id})
	if len(entries) == 0 {
		return Item{}, errors.Join(errs...)
	}
	body, err := s.body(entries[0])
	if err != nil {
		return Item{}, err
	}
	return Item{Entry: entries[0].public(), Body: body}, nil
}

// Kick makes the jobs that f selects ready at once. The set is fixed at the start: a job
// that is buried again meanwhile is not kicked again. Errors as for List, and ErrNotFound
// for each of f.IDs that is not a buried job; the others are kicked nevertheless, unless
// the queue is away. If Kick is interrupted, each job is either kicked or unchanged.
func (v Jobs) Kick(ctx context.Context, f Filter) (Result, error) {
	return v.act(ctx, f, v.Queue.Kick)
}

// Delete deletes the jobs that f selects. Otherwise it works like Kick.
func (v Jobs) Delete(ctx context.Context, f Filter) (Result, error) {
	return v.act(ctx, f, v.Queue.Delete)
}

// maxErrors bounds the errors that are returned together.
const maxErrors = 10

func (v Jobs) act(ctx context.Context, f Filter, do func(ctx context.Context, tube, id string) error) (r Result, err error) {
	if err := queue.CheckTube(v.Tube); err != nil {
		return r, err
	}
	s := seeker{v: v, ctx: ctx}
	var entries []*Entry
	var errs []error
	if len(f.IDs) > 0 {
		entries, errs = s.named(f.IDs)
		entries, r.More = f.choose(entries)
	} else {
		_, err = v.refresh(ctx, pauseAfter, v.Index.limit)
		errs = append(errs, err)
		entries, r.More = v.Index.oldest(v.Tube, f)
	}
	for _, e := range entries {
		if ctx.Err() != nil || s.failures == maxFailures {
			break // errs already says why
		}
		switch err := s.act(e, do); {
		case err == nil:
			r.Jobs = append(r.Jobs, e.Job)
		case gone(err) && len(f.IDs) == 0: // another client was faster
		default:
			errs = append(errs, err)
		}
	}
	v.Index.forget(s.ended...)
	if err := ctx.Err(); err != nil {
		return r, err
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	return r, errors.Join(errs[:min(len(errs), maxErrors)]...)
}

// gone reports whether a job is certainly not buried.
func gone(err error) bool { return errors.Is(err, queue.ErrNotFound) && !errors.Is(err, queue.ErrBusy) }

// seeker finds jobs in the queue for one request.
type seeker struct {
	v        Jobs
	ctx      context.Context
	looked   bool // refreshed for a job not in the index
	ended    []*Entry
	failures int           // unanswered questions in a row
	waited   time.Duration // for jobs held by another client
}

// act applies do to the job of an entry.
func (s *seeker) act(e *Entry, do func(ctx context.Context, tube, id string) error) error {
	if _, err := s.body(e); err != nil {
		return err
	}
	err := s.ask(func() error { return do(s.ctx, e.Tube, e.ID) })
	if err == nil || gone(err) {
		s.ended = append(s.ended, e)
	}
	return err
}

// named returns the entries of jobs by the producer's ids or the queue's, in the order of
// ids, and an error for each id without an entry.
func (s *seeker) named(ids []string) (out []*Entry, errs []error) {
	known := s.v.Index.byName(s.v.Tube)
	learned := make(map[string]*Entry)
	for _, id := range ids {
		if _, asked := learned[id]; known[id] == nil && !asked && s.failures < maxFailures {
			e, err := s.learn(id)
			learned[id], errs = e, append(errs, err)
		}
	}
	if len(learned) > 0 {
		known = s.v.Index.byName(s.v.Tube)
	}
	for id, e := range learned {
		if e != nil && known[id] == nil { // it has another Job
			known[id] = []*Entry{e}
		}
	}
	taken := make(map[*Entry]bool)
	for _, id := range ids {
		for _, e := range known[id] {
			if !taken[e] {
				taken[e] = true
				out = append(out, e)
			}
		}
	}
	return out, errs
}

// learn looks in the queue for a job that the index does not have by this id.
func (s *seeker) learn(id string) (*Entry, error) {
	b, err := s.peek(id)
	if err == nil {
		return s.v.Index.learn(entryOf(s.v.Tube, s.v.Topic, b)), nil
	}
	if !s.looked && (gone(err) || errors.Is(err, queue.ErrRejected)) {
		s.looked = true
		if _, rerr := s.v.refresh(s.ctx, 0, s.v.Index.limit); rerr != nil {
			return nil, errors.Join(err, rerr)
		}
	}
	if found := s.v.Index.byName(s.v.Tube)[id]; found != nil {
		return found[0], nil
	}
	return nil, err
}

// body returns the body of an entry's job from the queue. If the job is gone, it forgets
// the entry.
func (s *seeker) body(e *Entry) ([]byte, error) {
	b, err := s.peek(e.ID)
	if err == nil && entryOf(e.Tube, s.v.Topic, b).Job != e.Job {
		err = fmt.Errorf("job %.80q: %w", e.ID, queue.ErrNotFound) // by now the id belongs to another job
	}
	if gone(err) {
		s.v.Index.forget(e)
	}
	return b.Body, err
}

const (
	// maxFailures is how many questions in a row may go unanswered before the request
	// gives up: each may cost a timeout.
	maxFailures = 3
	// A held job is asked for again, because another process may hold it only for a moment,
	// while it lists buried jobs. All jobs of a request share one bound: workers may hold
	// many of them for long.
	firstPause  = 5 * time.Millisecond
	lastPause   = 80 * time.Millisecond
	maxTries    = 6 // 155 ms or so in all for one job
	maxInsisted = 2 * time.Second
)

// peek asks the queue for one job.
func (s *seeker) peek(id string) (b queue.StoredJob, err error) {
	err = s.ask(func() (err error) {
		b, err = s.v.Queue.Peek(s.ctx, s.v.Tube, id)
		return err
	})
	return b, err
}

// ask asks the queue, repeats while the job is held, and counts unanswered questions.
func (s *seeker) ask(f func() error) (err error) {
	pauses := backoff.Backoff{Min: firstPause, Max: lastPause}
	for try := 1; ; try++ {
		err = f()
		if !errors.Is(err, queue.ErrBusy) || try == maxTries || s.waited >= maxInsisted {
			break
		}
		pause := pauses.Next()
		s.waited += pause
		if backoff.Sleep(s.ctx, pause) != nil {
			break
		}
	}
	s.failures++
	if err == nil || errors.Is(err, queue.ErrNotFound) || errors.Is(err, queue.ErrRejected) {
		s.failures = 0
	}
	return err
}
