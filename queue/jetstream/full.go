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
	// roomEvery is how often the disk is looked at. We do it sooner when this
	// process has put roomBytes more.
	roomEvery = 250 * time.Millisecond
	roomBytes = 4 << 20

	// noLimit is the server's own limit in bytes: more than there is anywhere.
	noLimit = 1 << 60

	ourPrefix    = "propeller."
	fullPrefix   = "propeller.full."   // where refused jobs end up
	settlePrefix = "propeller.settle." // the way in while the queue is full
)

// room is whether an embedded queue takes jobs.
type room struct {
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
func (r *room) blame(err error) error {
	if err == nil || !r.none.Load() {
		return err
	}
	return unavailable(fmt.Errorf("the queue's disk is full: %w", inner(err)))
}

// refuses is why a put of so many bytes is refused; nil when it is not.
func (r *room) refuses(bytes int, settling bool) error {
	if e := r.full.Load(); e != nil && (!settling || e.closed) {
		return e
	}
	if r.came.Add(int64(bytes)) > roomBytes {
		r.look.raise()
	}
	return nil
}

// way is the subject by which a job gets in that is to be stored on the given one.
func (r *room) way(subject string, settling bool) string {
	if !settling || r.full.Load() == nil {
		return subject
	}
	return settlePrefix + strings.TrimPrefix(subject, ourPrefix)
}

// backSubject is where a job of a tube is stored that the queue has had before.
func (q *client) backSubject(tube string) string {
	if q.embedded == nil {
		return jobSubject(tube)
	}
	return q.embedded.room.way(jobSubject(tube), true)
}

// watchRoom looks at the disk until the queue is closed.
func (q *client) watchRoom() {
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for {
		select {
		case <-q.ctx.Done():
			return
		case <-tick.C:
		case <-q.embedded.room.look:
		}
		_ = q.embedded.show() // it was said that it failed before
		q.lookAtRoom()
	}
}

// lookAtRoom notes whether the queue takes jobs. It waits for the link: left jobs
// are put again before that.
func (q *client) lookAtRoom() {
	r := &q.embedded.room
	r.mu.Lock()
	free, unknown := r.free(q.embedded.dir)
	r.mu.Unlock()
	if unknown != nil {
		return // the server says so when it matters
	}
	r.none.Store(free < trialSize)
	cn, _, _, err := q.link.ready()
	s, _ := q.embedded.running()
	if err != nil || s == nil {
		return
	}
	r.came.Store(0)
	used := int64(s.GlobalAccount().JetStreamUsage().Store)
	was := r.full.Load()
	now := fullness(used, free, was != nil, was != nil && was.closed)
	if now != nil {
		r.last.Store(now)
		if err := r.close(q, cn, s); err != nil {
			q.opts.Log.Warn("queue: its subjects cannot be mapped", "err", err)
		}
	}
	r.full.Store(now)
	if now == nil {
		r.open()
	}
	switch {
	case now != nil && (was == nil || was.closed != now.closed):
		q.opts.Log.Warn("the queue is full", "queue", q.opts.String(), "err", now)
	case now == nil && was != nil:
		q.opts.Log.Info("the queue takes jobs again", "queue", q.opts.String(), "stored", size(used), "free", size(free))
	}
}

// close keeps new jobs out of the server s.
func (r *room) close(q *client, cn *conn, s *server.Server) error {
	if r.sub == nil {
		sub, err := cn.nc.Subscribe(fullPrefix+">", q.refuse)
		if err != nil {
			return err
		}
		r.sub = sub
		// Before the server knows of it a put would find nobody to answer.
		if err := cn.nc.FlushTimeout(q.opts.timeout); err != nil {
			return err
		}
	}
	if r.mapped == s && r.shut {
		return nil
	}
	r.mapped, r.shut = s, true
	acc := s.GlobalAccount()
	return errors.Join(
		acc.AddMapping(settlePrefix+">", ourPrefix+">"),
		acc.AddMapping(jobPrefix+">", fullPrefix+">"),
		acc.AddMapping(schedPrefix+">", fullPrefix+">"))
}

// open lets new jobs in again, and when it is called the next time closes the
// special way: something may just have been on it.
func (r *room) open() {
	switch {
	case r.mapped == nil:
	case r.shut:
		r.mapped.GlobalAccount().RemoveMapping(jobPrefix + ">")
		r.mapped.GlobalAccount().RemoveMapping(schedPrefix + ">")
		r.shut = false
	default:
		r.mapped.GlobalAccount().RemoveMapping(settlePrefix + ">")
		r.mapped = nil
	}
}

// refuse answers a put as the stream would.
func (q *client) refuse(m *nats.Msg) {
	text, err := json.Marshal(map[string]any{"stream": jobsStream, "seq": 0, "error": apiError{
		Code: http.StatusServiceUnavailable, ErrCode: errCodeNoRoom, Description: q.embedded.room.last.Load().Error(),
	}})
	if err == nil {
		_ = m.Respond(text)
	}
}
