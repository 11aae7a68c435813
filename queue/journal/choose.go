package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"propeller/queue"
)

const (
	// settling is how old an entry must be before it is forgotten because its
	// job is not buried: the worker writes the entry first and buries then.
	settling = time.Minute

	// maxFailures is how many questions in a row the queue may leave without an
	// answer before it is asked no more: each may cost a timeout of its own.
	maxFailures = 3

	// maxErrors bounds the errors that are returned together.
	maxErrors = 10
)

// limitedErrors are the first few errors of many.
type limitedErrors []error

func (l *limitedErrors) add(err error) {
	if err != nil && len(*l) < maxErrors {
		*l = append(*l, err)
	}
}

// chooser finds the buried jobs that a filter chooses.
type chooser struct {
	v    Jobs
	ctx  context.Context
	tube string
	f    Filter

	items    []Item
	more     bool
	errs     limitedErrors
	stale    []Entry // whose jobs are buried no more
	failures int     // of the queue, in a row
}

func (c *chooser) run() {
	switch {
	case len(c.f.IDs) > 0:
		c.byID()
	case c.v.Journal == nil || !c.fromJournal():
		c.fromQueue()
	}
	c.v.forget(c.stale)
}

// room says whether another item may be taken; if not, there are more.
func (c *chooser) room() bool {
	if len(c.items) < c.f.limit() {
		return true
	}
	c.more = true
	return false
}

// byID looks at the jobs that are named.
func (c *chooser) byID() {
	seen := make(map[string]bool)
	for _, id := range c.f.IDs {
		if seen[id] {
			continue
		}
		seen[id] = true
		if c.ctx.Err() != nil || c.failures == maxFailures || !c.room() {
			return
		}
		b, err := c.peek(id)
		if err != nil {
			c.errs.add(err)
			continue
		}
		if it := c.v.item(c.tube, b); c.f.match(it.Entry) {
			c.items = append(c.items, it)
		}
	}
}

// peek asks the queue for one job, and counts when it does not answer.
func (c *chooser) peek(id string) (queue.BuriedJob, error) {
	b, err := c.v.Queue.Peek(c.ctx, c.tube, id)
	if err == nil || errors.Is(err, queue.ErrNotFound) || errors.Is(err, queue.ErrRejected) {
		c.failures = 0
	} else {
		c.failures++
	}
	return b, err
}

// fromQueue asks the queue for all buried jobs.
func (c *chooser) fromQueue() {
	buried, err := c.v.Queue.Buried(c.ctx, c.tube, DefaultLimit)
	c.errs.add(err)
	for _, b := range buried {
		it := Item{Entry: c.v.unknown(c.tube, b), Body: b.Body, Age: b.Age}
		if !c.f.match(it.Entry) {
			continue
		}
		if !c.room() {
			return
		}
		c.items = append(c.items, it)
	}
}

// fromJournal goes through the journal. It reports false, and has found
// nothing, when the journal cannot be read.
func (c *chooser) fromJournal() bool {
	_, err := c.missing()
	c.errs.add(err)
	if err := c.scan(); err != nil {
		c.items, c.more = nil, false
		return false
	}
	if len(c.stale) == 0 || c.ctx.Err() != nil {
		return true
	}
	// There were as many entries as jobs, and yet some entries have no job: some
	// jobs may have no entry.
	c.v.forget(c.stale)
	c.stale = nil
	if n, err := c.missing(); n == 0 || err != nil {
		return true // what could go wrong has been said by the first
	}
	c.items, c.more = nil, false
	return c.scan() == nil
}

// missing enters jobs in the journal when the queue has more buried ones, and
// returns how many.
func (c *chooser) missing() (n int, err error) {
	st, err := c.v.Queue.TubeStats(c.ctx, c.tube)
	have, jerr := c.v.Journal.Len(c.tube)
	if jerr != nil {
		return 0, jerr
	}
	// A full journal would drop as many as were entered.
	if st.Buried <= have || have >= c.v.Journal.limit {
		return 0, err
	}
	n, rerr := c.v.Rebuild(c.ctx, c.tube)
	return n, errors.Join(err, rerr)
}

// scan takes the entries that match and whose jobs are buried.
func (c *chooser) scan() error {
	return c.v.Journal.List(c.tube, func(e Entry) bool {
		if !c.f.match(e) {
			return c.ctx.Err() == nil
		}
		if c.ctx.Err() != nil || !c.room() {
			return false
		}
		if it, ok := c.verify(e); ok {
			c.items = append(c.items, it)
		}
		return true
	})
}

// verify returns the job of an entry, if it is still buried or nobody knows.
func (c *chooser) verify(e Entry) (it Item, ok bool) {
	if c.failures == maxFailures {
		return Item{Entry: e, Unverified: true}, true
	}
	b, err := c.peek(e.ID)
	switch {
	case err == nil && e.is(b.Body):
		return Item{Entry: e, Body: b.Body, Age: b.Age}, true
	case err == nil: // the id is another job's by now
		c.stale = append(c.stale, e)
		return Item{}, false
	case errors.Is(err, queue.ErrNotFound):
		if time.Since(e.At) > settling {
			c.stale = append(c.stale, e)
		}
		return Item{}, false
	case errors.Is(err, queue.ErrRejected): // of a queue that was configured before
		return Item{}, false
	}
	c.errs.add(fmt.Errorf("job %.80q: %w", e.ID, err))
	return Item{Entry: e, Unverified: true}, true
}
