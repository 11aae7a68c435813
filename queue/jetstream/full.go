package jetstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// An embedded queue takes no new jobs some time before its disk is full: to
// finish a job, records and the rest of its list have to be stored first, and a
// queue that refused those, too, could never become empty again.
//
// The server's own limits are the same for all that is published, so it has none.
// We look at what is stored and what is free, and while the queue is full the
// server maps the subjects of jobs to one where we answer that it is. That goes
// for every publisher, of this process or another. What belongs to a job that is
// being settled goes by a subject that is mapped to the real one.

const (
	// capacityEvery is how often the disk is looked at. We do it sooner when this
	// process has put capacityBytes more.
	capacityEvery = 250 * time.Millisecond
	capacityBytes = 4 << 20

	// noLimit is the server's own limit in bytes: more than there is anywhere.
	noLimit = 1 << 60

	ourPrefix    = "propeller."
	fullPrefix   = "propeller.full."   // where refused jobs end up
	settlePrefix = "propeller.settle." // the way in while the queue is full
)

// capacity is whether an embedded queue takes jobs.
type capacity struct {
	full atomic.Pointer[fullError] // nil: it takes all
	last atomic.Pointer[fullError] // of the last time that it did not
	came atomic.Int64              // bytes put since the disk was looked at
	none atomic.Bool               // the disk had less than trialSize left
	look event                     // they are many

	mu   sync.Mutex
	free func(dir string) (int64, error) // what the disk has left in bytes

	// Of the goroutine that watches.
	mapped *server.Server // whose subjects are mapped; nil for none
	shut   bool           // those of new jobs, too
	sub    *nats.Subscription
}

// fullError says that the queue has no room for new jobs.
type fullError struct {
	used, free int64 // in bytes
	closed     bool  // for nothing at all
}

func (e *fullError) Error() string {
	what := "new jobs"
	if e.closed {
		what = "jobs or records"
	}
	return fmt.Sprintf("the queue's disk is nearly full: %s of jobs are stored, and %s are free; it takes no %s until some jobs are done, or the disk has more room",
		size(e.used), size(max(e.free, 0)), what)
}

func (e *fullError) Unwrap() error { return queue.ErrFull }

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// fullness is what a queue that has stored used bytes takes while its disk has so
// much free. Of what the disk has for it, three quarters are for jobs, and the
// rest is for what settling needs, but for the little without which the server
// could not write down that a job is gone. Once full, a sixteenth has to become
// free before it takes jobs again.
func fullness(used, free int64, wasFull, wasClosed bool) *fullError {
	limit := (used + free) / 4 * 3
	if wasFull {
		limit -= limit / 16
	}
	if used < limit {
		return nil
	}
	least := int64(2 * trialSize)
	if wasClosed {
		least *= 2
	}
	return &fullError{used: used, free: free, closed: free < least}
}

// blame is why the queue is away, which err says in the server's words: they do not tell
// that the disk is full, which is what most follows from.
func (c *capacity) blame(err error) error {
	if err == nil || !c.none.Load() {
		return err
	}
	return unavailable(fmt.Errorf("the queue's disk is full: %w", inner(err)))
}

// refuses is why a put of so many bytes is refused; nil when it is not.
func (c *capacity) refuses(bytes int, settling bool) error {
	if e := c.full.Load(); e != nil && (!settling || e.closed) {
		return e
	}
	if c.came.Add(int64(bytes)) > capacityBytes {
		c.look.raise()
	}
	return nil
}

// subjectFor is the subject by which a job gets in that is to be stored on the given one.
func (c *capacity) subjectFor(subject string, settling bool) string {
	if !settling || c.full.Load() == nil {
		return subject
	}
	return settlePrefix + strings.TrimPrefix(subject, ourPrefix)
}

// backSubject is where a job of a tube is stored that the queue has had before.
func (q *client) backSubject(tube string) string {
	if q.embedded == nil {
		return jobSubject(tube)
	}
	return q.embedded.capacity.subjectFor(jobSubject(tube), true)
}

// watchCapacity looks at the disk until the queue is closed.
func (q *client) watchCapacity() {
	tick := time.NewTicker(capacityEvery)
	defer tick.Stop()
	for {
		select {
		case <-q.ctx.Done():
			return
		case <-tick.C:
		case <-q.embedded.capacity.look:
		}
		_ = q.embedded.show() // it was said that it failed before
		q.checkCapacity()
	}
}

// checkCapacity notes whether the queue takes jobs. It waits for the link: left jobs
// are put again before that.
func (q *client) checkCapacity() {
	c := &q.embedded.capacity
	c.mu.Lock()
	free, unknown := c.free(q.embedded.dir)
	c.mu.Unlock()
	if unknown != nil {
		return // the server says so when it matters
	}
	c.none.Store(free < trialSize)
	cn, _, _, err := q.link.ready()
	s, _ := q.embedded.running()
	if err != nil || s == nil {
		return
	}
	c.came.Store(0)
	used := int64(s.GlobalAccount().JetStreamUsage().Store)
	was := c.full.Load()
	now := fullness(used, free, was != nil, was != nil && was.closed)
	if now != nil {
		c.last.Store(now)
		if err := c.close(q, cn, s); err != nil {
			q.opts.Log.Warn("queue: its subjects cannot be mapped", "err", err)
		}
	}
	c.full.Store(now)
	if now == nil {
		c.open()
	}
	switch {
	case now != nil && (was == nil || was.closed != now.closed):
		q.opts.Log.Warn("the queue is full", "queue", q.opts.String(), "err", now)
	case now == nil && was != nil:
		q.opts.Log.Info("the queue takes jobs again", "queue", q.opts.String(), "stored", size(used), "free", size(free))
	}
}

// close keeps new jobs out of the server s.
func (c *capacity) close(q *client, cn *conn, s *server.Server) error {
	if c.sub == nil {
		sub, err := cn.nc.Subscribe(fullPrefix+">", q.refuse)
		if err != nil {
			return err
		}
		c.sub = sub
		// Before the server knows of it a put would find nobody to answer.
		if err := cn.nc.FlushTimeout(q.opts.timeout); err != nil {
			return err
		}
	}
	if c.mapped == s && c.shut {
		return nil
	}
	c.mapped, c.shut = s, true
	acc := s.GlobalAccount()
	return errors.Join(
		acc.AddMapping(settlePrefix+">", ourPrefix+">"),
		acc.AddMapping(jobPrefix+">", fullPrefix+">"),
		acc.AddMapping(schedPrefix+">", fullPrefix+">"))
}

// open lets new jobs in again, and when it is called the next time closes the
// subjects of settling: something may just have been on it.
func (c *capacity) open() {
	switch {
	case c.mapped == nil:
	case c.shut:
		c.mapped.GlobalAccount().RemoveMapping(jobPrefix + ">")
		c.mapped.GlobalAccount().RemoveMapping(schedPrefix + ">")
		c.shut = false
	default:
		c.mapped.GlobalAccount().RemoveMapping(settlePrefix + ">")
		c.mapped = nil
	}
}

// refuse answers a put as the stream would.
func (q *client) refuse(m *nats.Msg) {
	text, err := json.Marshal(map[string]any{"stream": jobsStream, "seq": 0, "error": apiError{
		Code: http.StatusServiceUnavailable, ErrCode: errCodeNoRoom, Description: q.embedded.capacity.last.Load().Error(),
	}})
	if err == nil {
		_ = m.Respond(text)
	}
}
