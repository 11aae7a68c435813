package buried

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"propeller/queue"
)

// Jobs is the view of one tube's buried jobs: the index says which there are, and
// the queue settles them. Where the two have another number of jobs, the tube is
// walked over first.
type Jobs struct {
	Queue queue.Admin
	Index *Index
	Tube  string
	Topic string // of its app
	// Wait bounds that walk. 0: it may take as long as the request.
	Wait time.Duration
}

// Filter chooses buried jobs. The zero value chooses all, up to DefaultMany.
type Filter struct {
	Reason string            // part of the reason or the class, upper and lower case alike
	Only   func(*Entry) bool // of these; nil: any
	IDs    []string          // these jobs, by their first ids or the queue's; empty: any
	Limit  int               // at most so many; 0 means DefaultMany
}

// DefaultMany is the limit of a Filter that gives none.
const DefaultMany = 1000

// Listing is what is known of the jobs that a filter chooses, those buried first in
// front.
type Listing struct {
	Items    []Item
	More     bool // the limit was reached, and there are others
	Complete bool // all buried jobs of the tube have been looked at
}

// Item is one buried job.
type Item struct {
	Entry
	Body []byte // as the queue has it; of Show only

	// Unverified: the queue could not be asked, so that the job may be gone.
	Unverified bool
}

// Result is what Kick and Delete did.
type Result struct {
	N    int  // jobs kicked or deleted
	More bool // the limit was reached, and there are more
}

// match says whether an entry has the filter's reason. IDs are not looked at.
func (f Filter) match(e *Entry) bool {
	want := strings.ToLower(f.Reason)
	return (f.Only == nil || f.Only(e)) && (strings.Contains(strings.ToLower(e.Reason), want) || strings.Contains(strings.ToLower(e.Class), want))
}

// List lists the jobs that f chooses. Errors: ErrRejected for a tube name that can
// never be; what the queue answers; ctx.Err(). What is known is returned beside it.
func (v Jobs) List(ctx context.Context, f Filter) (l Listing, err error) {
	if err := queue.CheckTube(v.Tube); err != nil {
		return l, err
	}
	counted, err := v.refresh(ctx, restAfter)
	entries, more := f.choose(v.Index.all(v.Tube))
	l.More = more
	for _, e := range entries {
		l.Items = append(l.Items, Item{Entry: e.public(), Unverified: counted < 0})
	}
	n, whole := v.Index.count(v.Tube)
	l.Complete = whole && counted <= n
	return l, err
}

// choose picks those of a list.
func (f Filter) choose(all []*Entry) (some []*Entry, more bool) {
	for _, e := range all {
		if !f.match(e) {
			continue
		}
		if len(some) == cmp.Or(f.Limit, DefaultMany) {
			return some, true
		}
		some = append(some, e)
	}
	return some, false
}

// refresh walks over the tube when the queue has another number of jobs, or not all
// has been read; rest is as of stale. It returns the queue's number, -1 if it has
// said nothing at all. The error is the queue's.
func (v Jobs) refresh(ctx context.Context, rest time.Duration) (counted int, err error) {
	st, err := v.Queue.TubeStats(ctx, v.Tube)
	switch {
	case err != nil && st == (queue.TubeStats{}):
		return -1, err
	case v.Index.stale(v.Tube, st.Buried, err != nil, rest):
		err = cmp.Or(err, v.walk(ctx))
	}
	return st.Buried, err
}

// walk is the index's. That there was no time for all of it is no error.
func (v Jobs) walk(ctx context.Context) error {
	within, cancel := ctx, context.CancelFunc(func() {})
	if v.Wait > 0 {
		within, cancel = context.WithTimeout(ctx, v.Wait)
	}
	defer cancel()
	err := v.Index.walk(within, v.Queue, v.Tube, v.Topic)
	if errors.Is(err, queue.ErrCut) || within.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// A walk for a list has its rest: after one there is no other for so long, nor for
// restTimes as long as it took.
const (
	restAfter = time.Second
	restTimes = 10
	// tellTime is how long the numbers may differ because a worker is burying.
	tellTime = time.Second
)

// stale says whether a request is to walk over a tube of which the queue has counted
// so many jobs; partly: some of its servers have. It is not when the last walk ended
// less than rest ago, 0: however lately.
func (x *Index) stale(tube string, counted int, partly bool, rest time.Duration) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.shelfLocked(tube)
	if s.whole && (partly || counted == len(s.entries) || rest > 0 && time.Since(s.told) < tellTime) || x.fullLocked() {
		return false
	}
	return rest == 0 || s.ended.IsZero() || time.Since(s.ended) > max(rest, restTimes*s.ended.Sub(s.began))
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

// Kick gives the jobs that f chooses back to be served at once. The set is
// fixed at the beginning: a job that is buried again meanwhile is not kicked
// again. Errors as List, and ErrNotFound for each of f.IDs that is no buried job;
// the other jobs are kicked nevertheless, unless the queue is away. When it is
// interrupted, each job is kicked or as it was.
func (v Jobs) Kick(ctx context.Context, f Filter) (Result, error) {
	return v.act(ctx, f, v.Queue.Kick)
}

// Delete removes the jobs that f chooses for good. Otherwise it is as Kick.
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
	} else {
		_, err = v.refresh(ctx, restAfter)
		entries, errs = v.Index.all(v.Tube), append(errs, err)
	}
	entries, r.More = f.choose(entries)
	for _, e := range entries {
		if ctx.Err() != nil || s.failures == maxFailures {
			break // said in errs already
		}
		switch err := s.act(e, do); {
		case err == nil:
			r.N++
		case gone(err) && len(f.IDs) == 0: // somebody else was quicker
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

// gone says that a job is certainly not buried.
func gone(err error) bool { return errors.Is(err, queue.ErrNotFound) && !errors.Is(err, queue.ErrBusy) }

// seeker finds jobs in the queue for one request.
type seeker struct {
	v        Jobs
	ctx      context.Context
	looked   bool // for a job that is not known
	ended    []*Entry
	failures int           // questions without an answer, in a row
	waited   time.Duration // for jobs that somebody held
}

// act does something with the job of an entry.
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

// named are the entries of jobs by their first ids, or the queue's, in the order of
// ids, and an error for each of which there is none.
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
		if e != nil && known[id] == nil { // by another name of it
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

// learn looks for a job that the index does not know by this name.
func (s *seeker) learn(id string) (*Entry, error) {
	b, err := s.peek(id)
	if err == nil {
		return s.v.Index.learn(entryOf(s.v.Tube, s.v.Topic, b)), nil
	}
	if !s.looked && (gone(err) || errors.Is(err, queue.ErrRejected)) {
		s.looked = true
		if _, rerr := s.v.refresh(s.ctx, 0); rerr != nil {
			return nil, errors.Join(err, rerr)
		}
	}
	if found := s.v.Index.byName(s.v.Tube)[id]; found != nil {
		return found[0], nil
	}
	return nil, err
}

// body is that of an entry's job, as the queue has it. An entry whose job has gone
// is forgotten.
func (s *seeker) body(e *Entry) ([]byte, error) {
	b, err := s.peek(e.ID)
	if err == nil && entryOf(e.Tube, s.v.Topic, b).Job != e.Job {
		err = fmt.Errorf("job %.80q: %w", e.ID, queue.ErrNotFound) // the id is another job's by now
	}
	if gone(err) {
		s.v.Index.forget(e)
	}
	return b.Body, err
}

const (
	// maxFailures is how many questions in a row the queue may leave without an
	// answer before it is asked no more: each may cost a timeout of its own.
	maxFailures = 3
	// A job that is held is asked for again: another process may have it in its hand
	// for a moment, to list the next. The waiting is bounded for all jobs together:
	// many may be held by workers, and for long.
	firstPause  = 5 * time.Millisecond
	lastPause   = 80 * time.Millisecond // 155 ms in all for one job
	maxInsisted = 2 * time.Second
)

// peek asks the queue for one job.
func (s *seeker) peek(id string) (b queue.BuriedJob, err error) {
	err = s.ask(func() (err error) {
		b, err = s.v.Queue.Peek(s.ctx, s.v.Tube, id)
		return err
	})
	return b, err
}

// ask asks the queue, again while a job is said to be held, and counts when it does
// not answer.
func (s *seeker) ask(f func() error) (err error) {
	for pause := firstPause; ; pause *= 2 {
		err = f()
		if !errors.Is(err, queue.ErrBusy) || pause > lastPause || s.waited >= maxInsisted || s.ctx.Err() != nil {
			break
		}
		s.waited += pause
		sleep(s.ctx, pause)
	}
	s.failures++
	if err == nil || errors.Is(err, queue.ErrNotFound) || errors.Is(err, queue.ErrRejected) {
		s.failures = 0
	}
	return err
}
