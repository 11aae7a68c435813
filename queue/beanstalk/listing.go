package beanstalk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
)

// List implements queue.Admin, one job at a time.
//
// beanstalkd shows one job of each state: the one that was buried first, and the one
// that is due first (protocol.txt, peek). What f does not delete is taken out of the
// way of the next.
//
// A buried job is reserved by its id and buried again, which makes it the last; after
// a whole round all are in the old order. This costs four commands a job, adds one to
// the reserves and the buries in its statistics, and if this process or the server
// dies between the two commands, the job is ready: it is tried once more. A server
// whose log cannot be written (disk full) may keep that one job out of reach until it
// is restarted. A single job needs none of this, nor does the one over which f fails.
// Others who list or bury in the same tube meanwhile may hide jobs from the list.
//
// A delayed job is reserved until the end of the list, and ready if this process dies
// before that or its TTR ends.
func (q *client) List(ctx context.Context, tube string, state queue.State, f func([]queue.StoredJob) error) error {
	if err := queue.CheckTube(tube); err != nil {
		return err
	}
	var ended error // by f
	var errs []error
	for _, srv := range q.servers {
		if err := srv.listed(ctx); err != nil {
			return err
		}
		l := &listing{srv: srv, ctx: ctx, tube: tube, state: state, seen: make(map[uint64]bool)}
		l.f = func(j queue.StoredJob) error {
			ended = f([]queue.StoredJob{j})
			return ended
		}
		err := l.run()
		<-srv.listing
		if ended != nil || ctx.Err() != nil {
			return cmp.Or(ended, ctx.Err())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// listed waits until no other listing of the server runs: two would take jobs out of
// each other's hands.
func (srv *server) listed(ctx context.Context) error {
	select {
	case srv.listing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// listing is one walk over a server's buried or delayed jobs of one tube.
type listing struct {
	srv   *server
	ctx   context.Context
	tube  string
	state queue.State
	f     func(queue.StoredJob) error // gets each; an error ends the listing

	s     *session // of its own: what it has in its hand goes back when it breaks
	total int      // jobs in this state when it began
	seen  map[uint64]bool
	held  []delayedJob // out of the way
}

// delayedJob is one that is to be released. There may be many: without their bodies.
type delayedJob struct {
	id  uint64
	pri uint32
	due time.Time
}

func (l *listing) run() (err error) {
	var st queue.TubeStats
	err = l.srv.call(l.ctx, func() error {
		got, err := l.srv.tubeStats(l.tube)
		st = got
		return err
	})
	if err != nil {
		return err // st may still be written
	}
	if l.total = st.Buried; l.state == queue.Delayed {
		l.total = st.Delayed
	}
	if l.total == 0 {
		return nil
	}
	if l.s, err = l.srv.connect(l.ctx, nil); err != nil {
		return err
	}
	defer l.s.fail(errClosed, false)
	defer func() { err = errors.Join(err, l.release()) }()
	// The use travels with a kick of no jobs, see putter.useLocked.
	err = l.s.do(func(bs *gobeanstalk.Conn) error {
		_, err := gobeanstalk.NewTube(bs, l.tube).Kick(0)
		return err
	})
	if err != nil {
		return err
	}
	for range l.total { // jobs that come meanwhile are behind these
		if more, err := l.step(); !more || err != nil {
			return err
		}
	}
	return nil
}

// step hands the first job to f and takes it out of the way.
func (l *listing) step() (more bool, err error) {
	if err := l.ctx.Err(); err != nil {
		return false, err
	}
	var id uint64
	var body []byte
	err = l.s.do(func(bs *gobeanstalk.Conn) (err error) {
		tube := gobeanstalk.NewTube(bs, l.tube)
		if l.state == queue.Delayed {
			id, body, err = tube.PeekDelayed()
		} else {
			id, body, err = tube.PeekBuried()
		}
		return err
	}, gobeanstalk.ErrNotFound)
	if errors.Is(err, gobeanstalk.ErrNotFound) || (err == nil && l.seen[id]) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	j, err := l.s.stored(id, l.tube, l.state)
	if errors.Is(err, gobeanstalk.ErrNotFound) || errors.Is(err, queue.ErrBusy) {
		return true, nil // kicked, deleted or ready meanwhile, or in another lister's hand
	}
	if err != nil {
		return false, err
	}
	l.seen[id], j.Body = true, body
	if why, large := tooLarge(body); large {
		j.Fault = fmt.Errorf("beanstalk: %s: %w", why, queue.ErrRejected)
	}
	deleted := false
	j.Delete = func() error {
		err := l.s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(id) }, gobeanstalk.ErrNotFound)
		deleted = err == nil
		if errors.Is(err, gobeanstalk.ErrNotFound) {
			return nil
		}
		return err
	}
	err = l.f(j)
	if err == nil && !deleted && l.total > 1 {
		err = l.rotate(id, j)
	}
	return err == nil, err
}

// rotate takes the first job out of the way of the next: a buried one becomes the
// last, a delayed one is held. Nobody in this process looks at a buried job while
// one is in the hand; others are told that it is held.
func (l *listing) rotate(id uint64, j queue.StoredJob) error {
	l.srv.rotating.Lock()
	defer l.srv.rotating.Unlock()
	err := l.s.do(func(bs *gobeanstalk.Conn) error {
		_, err := bs.ReserveJob(id)
		return err
	}, gobeanstalk.ErrNotFound, gobeanstalk.ErrUnknown)
	switch {
	case errors.Is(err, gobeanstalk.ErrNotFound):
		return nil // kicked or deleted meanwhile
	case errors.Is(err, gobeanstalk.ErrUnknown): // reserve-job came with 1.12
		return fmt.Errorf("beanstalk: server %s is older than 1.12 and shows only one of %d %s jobs", l.srv.addr, l.total, l.state)
	case err != nil:
		return err
	case l.state == queue.Delayed:
		l.held = append(l.held, delayedJob{id, j.Priority, time.Now().Add(j.Delay)})
		return nil
	}
	err = l.s.do(func(bs *gobeanstalk.Conn) error { return bs.Bury(id, j.Priority) }, gobeanstalk.ErrNotFound)
	switch {
	case errors.Is(err, gobeanstalk.ErrNotFound): // its TTR was over: it is ready
		l.srv.log.Warn("a buried job that was being listed is served again", "tube", l.tube, "job", j.ID)
		return nil
	case err != nil:
		l.srv.log.Warn("a buried job that was being listed may be served again, or is out of reach until the server is restarted",
			"tube", l.tube, "job", j.ID, "err", err)
	}
	return err
}

// release delays the jobs that were taken out of the way again.
func (l *listing) release() error {
	for _, h := range l.held {
		err := l.s.do(func(bs *gobeanstalk.Conn) error {
			return bs.Release(h.id, h.pri, wholeSeconds(time.Until(h.due)))
		}, gobeanstalk.ErrNotFound)
		if err != nil && !errors.Is(err, gobeanstalk.ErrNotFound) {
			return err
		}
	}
	return nil
}
