package journal

import (
	"context"
	"errors"
	"strings"
	"time"

	"propeller/queue"
)

// NoReason is the reason of a buried job of which nothing is known.
const NoReason = "(not in the journal)"

// Jobs is the operator's view of buried jobs: the queue says which there are,
// the journal why.
type Jobs struct {
	Queue   queue.Admin
	Journal *Journal // nil: none, the queue is asked for everything

	// Explain finds the reason of a job that the journal does not know, from its
	// body; "" when it sees nothing wrong. nil: NoReason is all that is said.
	Explain func(body []byte) string
}

// Filter chooses buried jobs. The zero value chooses all, up to DefaultMany.
type Filter struct {
	Reason string   // part of the reason or the class, upper and lower case alike
	IDs    []string // these jobs; empty: any
	Limit  int      // at most so many; 0 means DefaultMany
}

// DefaultMany is the limit of a Filter that gives none.
const DefaultMany = 1000

// Item is one buried job.
type Item struct {
	Entry
	Body []byte        `json:"body"` // as it was put; nil when Unverified
	Age  time.Duration `json:"age"`  // since it was put; 0 when Unverified

	// Unverified: the queue could not be asked, so that the job may be gone.
	Unverified bool `json:"unverified,omitempty"`
}

// Result is what Kick and Delete did.
type Result struct {
	N    int  // jobs kicked or deleted
	More bool // the limit was reached, and there are more
}

func (f Filter) limit() int {
	if f.Limit > 0 {
		return f.Limit
	}
	return DefaultMany
}

// match says whether an entry has the filter's reason. IDs are not looked at.
func (f Filter) match(e Entry) bool {
	want := strings.ToLower(f.Reason)
	return strings.Contains(strings.ToLower(e.Reason), want) || strings.Contains(strings.ToLower(e.Class), want)
}

// List returns the buried jobs that f chooses, those buried first in front. A
// job whose entry cannot be verified, because the queue is away, is listed as
// Unverified. Errors: ErrRejected for a tube name that can never be; ErrNotFound
// for each of f.IDs that is no buried job; what the queue answers; ctx.Err().
// What could be found is returned beside the error. more says that the limit
// was reached and there are others.
func (v Jobs) List(ctx context.Context, tube string, f Filter) (items []Item, more bool, err error) {
	if err := queue.CheckTube(tube); err != nil {
		return nil, false, err
	}
	c := chooser{v: v, ctx: ctx, tube: tube, f: f}
	c.run()
	if err := ctx.Err(); err != nil {
		return c.items, c.more, err
	}
	return c.items, c.more, errors.Join(c.errs...)
}

// Show returns one buried job. Errors as queue.Admin's Peek.
func (v Jobs) Show(ctx context.Context, tube, id string) (Item, error) {
	c := chooser{v: v, ctx: ctx, tube: tube}
	b, err := c.peek(id)
	if err != nil {
		return Item{}, err
	}
	return v.items(tube, []queue.BuriedJob{b})[0], nil
}

// Kick gives the jobs that f chooses back to be served at once. The set is
// fixed at the beginning: a job that is buried again meanwhile is not kicked
// again. Errors as List; the other jobs are kicked nevertheless, unless the
// queue is away. When it is interrupted, each job is kicked or as it was.
func (v Jobs) Kick(ctx context.Context, tube string, f Filter) (Result, error) {
	return v.act(ctx, tube, f, v.Queue.Kick)
}

// Delete removes the jobs that f chooses for good. Otherwise it is as Kick.
func (v Jobs) Delete(ctx context.Context, tube string, f Filter) (Result, error) {
	return v.act(ctx, tube, f, v.Queue.Delete)
}

func (v Jobs) act(ctx context.Context, tube string, f Filter, do func(ctx context.Context, tube, id string) error) (Result, error) {
	items, more, err := v.List(ctx, tube, f)
	r := Result{More: more}
	errs := limitedErrors{err}
	var ended, gone []Entry // by us, and by others
	failures := 0           // in a row
	var insist insist
	for _, it := range items {
		if it.Unverified || ctx.Err() != nil || failures == maxFailures {
			continue // said in errs already
		}
		err := insist.on(ctx, func() error { return do(ctx, tube, it.ID) })
		switch {
		case err == nil:
			r.N++
			failures = 0
			ended = append(ended, it.Entry)
		case errors.Is(err, queue.ErrBusy): // it may be there still
			errs.add(err)
		case errors.Is(err, queue.ErrNotFound): // somebody else was quicker
			gone = append(gone, it.Entry)
		default:
			failures++
			errs.add(err)
		}
	}
	v.forget(ended)
	v.putAway(gone)
	if err := ctx.Err(); err != nil {
		return r, err
	}
	return r, errors.Join(errs...)
}

// forget removes entries whose jobs are buried no more. When that fails, which
// the journal says in the log, the next List finds them gone.
func (v Jobs) forget(entries []Entry) {
	if v.Journal != nil {
		_ = v.Journal.forget(entries)
	}
}

// putAway is forget for jobs that somebody else must have ended, if they are
// not in another queue.
func (v Jobs) putAway(entries []Entry) {
	if v.Journal != nil {
		_ = v.Journal.putAway(entries)
	}
}

// Rebuild enters the buried jobs of tube that the journal does not know, up to
// its limit, and returns how many, when the queue has more of them than the
// journal: after it was lost, or entries were. List, Kick and Delete do so
// themselves. It asks the queue for all of them, see queue.Admin's Buried.
// Errors: the queue's, and the journal's; queue.ErrCut when some jobs cannot be
// listed, which trying again does not change.
func (v Jobs) Rebuild(ctx context.Context, tube string) (n int, err error) {
	if v.Journal == nil {
		return 0, nil
	}
	_, n, err = v.rebuild(ctx, tube)
	return n, err
}

// rebuild also returns how many jobs are buried.
func (v Jobs) rebuild(ctx context.Context, tube string) (buried, n int, err error) {
	st, err := v.Queue.TubeStats(ctx, tube)
	have, jerr := v.Journal.Len(tube)
	if jerr != nil {
		return st.Buried, 0, jerr
	}
	// A full journal would drop as many as were entered.
	if st.Buried <= have || have >= v.Journal.limit {
		return st.Buried, 0, err
	}
	for {
		more, werr := v.enterAll(ctx, tube)
		n += more
		if more == 0 || !errors.Is(werr, queue.ErrCut) { // else the next list begins with others
			return st.Buried, n, errors.Join(err, werr)
		}
	}
}

// enterAll enters the jobs that the queue lists, and returns how many were new.
func (v Jobs) enterAll(ctx context.Context, tube string) (n int, err error) {
	before, err := v.Journal.Len(tube)
	if err != nil {
		return 0, err
	}
	buried, err := v.Queue.Buried(ctx, tube, v.Journal.limit)
	found, ferr := v.entriesOf(tube, buried)
	if ferr != nil {
		return 0, errors.Join(err, ferr)
	}
	entries := make([]Entry, 0, len(found))
	for _, e := range found {
		if e, berr := e.bounded(); berr == nil {
			entries = append(entries, e)
		}
	}
	if ferr := v.Journal.fill(entries); ferr != nil {
		return 0, errors.Join(err, ferr)
	}
	after, lerr := v.Journal.Len(tube)
	return max(after-before, 0), errors.Join(err, lerr)
}

// items joins buried jobs with what is known of them.
func (v Jobs) items(tube string, buried []queue.BuriedJob) []Item {
	entries, _ := v.entriesOf(tube, buried) // the journal says in the log when it cannot be read
	items := make([]Item, len(buried))
	for i, b := range buried {
		items[i] = Item{Entry: entries[i], Body: b.Body, Age: b.Age}
	}
	return items
}

// unknown is the entry of a buried job that the journal does not know.
func (v Jobs) unknown(tube string, b queue.BuriedJob) Entry {
	reason := ""
	if v.Explain != nil {
		reason = v.Explain(b.Body)
	}
	if reason == "" {
		reason = NoReason
	}
	return Entry{ID: b.ID, Tube: tube, Reason: reason, At: time.Now().Add(-b.Age), Sum: Sum(b.Body)}
}
