package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

	// idsAtOnce is how many jobs that are named by their ids are looked up
	// together: their bodies are in memory then.
	idsAtOnce = 100

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

// insist asks again while a job is said to be held: another process may have it
// in its hand for a moment, to list the next. The waiting is bounded for all
// jobs together: many may be held by workers, and for long.
type insist struct{ waited time.Duration }

const (
	firstPause  = 5 * time.Millisecond
	lastPause   = 80 * time.Millisecond // 155 ms in all for one job
	maxInsisted = 2 * time.Second
)

// on returns f's last error.
func (p *insist) on(ctx context.Context, f func() error) error {
	for pause := firstPause; ; pause *= 2 {
		err := f()
		if !errors.Is(err, queue.ErrBusy) || pause > lastPause || p.waited >= maxInsisted {
			return err
		}
		p.waited += pause
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
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
	cut      bool // the queue does not list all at once
	errs     limitedErrors
	buried   int     // jobs of the tube, as the queue counts them
	stale    []Entry // whose jobs are buried no more, or known by other ids
	failures int     // of the queue, in a row
	insist   insist
}

func (c *chooser) run() {
	switch {
	case len(c.f.IDs) > 0:
		c.byID()
	case c.v.Journal == nil || !c.fromJournal():
		c.fromQueue()
	}
	c.v.putAway(c.stale)
	c.more = c.more || c.cut
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
	for some := range slices.Chunk(c.f.IDs, idsAtOnce) {
		var buried []queue.BuriedJob
		for _, id := range some {
			if seen[id] || c.ctx.Err() != nil || c.failures == maxFailures {
				continue
			}
			seen[id] = true
			b, err := c.peek(id)
			if err != nil {
				c.errs.add(err)
				continue
			}
			buried = append(buried, b)
		}
		for _, it := range c.v.items(c.tube, buried) {
			if !c.f.match(it.Entry) {
				continue
			}
			if !c.room() {
				return
			}
			c.items = append(c.items, it)
		}
	}
}

// peek asks the queue for one job, and counts when it does not answer.
func (c *chooser) peek(id string) (b queue.BuriedJob, err error) {
	err = c.insist.on(c.ctx, func() (err error) {
		b, err = c.v.Queue.Peek(c.ctx, c.tube, id)
		return err
	})
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
	if c.cut = errors.Is(err, queue.ErrCut); !c.cut {
		c.errs.add(err)
	}
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
	// Entries without a job may stand for jobs without an entry. A look at those
	// with the right reason would show none of either.
	all := c.f.Reason != "" && c.buried > 0 && c.v.Journal.toCompare(c.tube)
	if err := c.scan(all); err != nil {
		c.items, c.more = nil, false
		return false
	}
	if all && c.ctx.Err() == nil && c.failures == 0 {
		c.v.Journal.noteCompared(c.tube)
	}
	if len(c.stale) == 0 || c.ctx.Err() != nil {
		return true
	}
	// There were as many entries as jobs, and yet some entries have no job: some
	// jobs may have no entry.
	c.v.putAway(c.stale)
	c.stale = nil
	if n, err := c.missing(); n == 0 || err != nil {
		return true // what could go wrong has been said by the first
	}
	c.items, c.more = nil, false
	return c.scan(false) == nil
}

// missing enters jobs in the journal when the queue has more buried ones, and
// returns how many.
func (c *chooser) missing() (n int, err error) {
	c.buried, n, err = c.v.rebuild(c.ctx, c.tube)
	if errors.Is(err, queue.ErrCut) {
		c.cut, err = true, nil
	}
	return n, err
}

// scan takes the entries that match and whose jobs are buried. With all, it
// looks after the jobs of the others too.
func (c *chooser) scan(all bool) error {
	return c.v.Journal.List(c.tube, func(e Entry) bool {
		match := c.f.match(e)
		switch {
		case c.ctx.Err() != nil:
			return false
		case match && !c.room():
			return all
		case match:
			if it, ok := c.verify(e); ok {
				c.items = append(c.items, it)
			}
		case all && c.failures < maxFailures:
			c.verify(e)
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
	case errors.Is(err, queue.ErrBusy): // a worker has it, or somebody lists for long
		return Item{}, false
	case errors.Is(err, queue.ErrNotFound):
		if time.Since(e.At) > settling {
			c.stale = append(c.stale, e)
		}
		return Item{}, false
	case errors.Is(err, queue.ErrRejected): // the id is of a queue that was configured before
		c.stale = append(c.stale, e)
		return Item{}, false
	}
	c.errs.add(fmt.Errorf("job %.80q: %w", e.ID, err))
	return Item{Entry: e, Unverified: true}, true
}
