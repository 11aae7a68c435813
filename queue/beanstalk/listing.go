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

const (
	// maxListed bounds the bytes of bodies that one server's listing holds:
	// a job may have 64 KiB, and there may be 100,000.
	maxListed = 64 << 20

	// listGrace is how long a listing that is called off is waited for, so that
	// it buries the job in its hand before anybody closes the connection.
	listGrace = 2 * time.Second
)

// Buried implements queue.Admin.
//
// beanstalkd shows one buried job of a tube, the one buried first (peek-buried,
// protocol.txt). To see the next, the first is reserved by its id and buried
// again, which makes it the last; after a whole round all are in the old order.
// So listing costs four commands a job, adds one to the reserves and the buries
// in the statistics of each, and if this process or the server dies between
// the two commands, one job is ready: it is tried once more. A server whose log
// cannot be written (disk full) may keep that one job out of reach until it is
// restarted. One job, or a limit of 1, needs none of this. Others who list or
// bury in the same tube meanwhile may hide jobs from the list. At most 64 MiB
// of bodies per server are returned (then ErrCut); the next listing begins with
// the others.
func (q *client) Buried(ctx context.Context, tube string, limit int) ([]queue.BuriedJob, error) {
	if err := queue.CheckTube(tube); err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, fmt.Errorf("beanstalk: list of %d buried jobs: must be 1 or more: %w", limit, queue.ErrRejected)
	}
	var all []queue.BuriedJob
	var errs []error
	var cut error
	for _, srv := range q.servers {
		if len(all) == limit {
			break
		}
		some, err := srv.buried(ctx, tube, limit-len(all))
		all = append(all, some...)
		switch {
		case ctx.Err() != nil:
			return all, ctx.Err()
		case errors.Is(err, queue.ErrCut):
			cut = err
		default:
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return all, err
	}
	return all, cut
}

// buried lists one server's.
func (srv *server) buried(ctx context.Context, tube string, limit int) ([]queue.BuriedJob, error) {
	if err := srv.listed(ctx); err != nil {
		return nil, err
	}
	var jobs []queue.BuriedJob
	bytes := 0
	l := &listing{srv: srv, ctx: ctx, tube: tube, state: queue.Buried, seen: make(map[uint64]bool)}
	l.f = func(j queue.StoredJob) error {
		jobs = append(jobs, queue.BuriedJob{ID: j.ID, Body: j.Body, Age: j.Age})
		bytes += len(j.Body)
		switch {
		case len(jobs) == limit && limit < l.total, l.total == 1:
			return errEnough
		case bytes >= srv.q.maxListed && len(jobs) < l.total:
			return fmt.Errorf("beanstalk: server %s has %d buried jobs in %q, %d are listed: %w", srv.addr, l.total, tube, len(jobs), queue.ErrCut)
		}
		return nil
	}
	l.lost = func() { jobs = jobs[:len(jobs)-1] }
	result := make(chan error, 1)
	run := func() {
		defer func() { <-srv.listing }()
		result <- l.run()
	}
	if !srv.spawn(run) {
		<-srv.listing
		return nil, errQueueClosed
	}
	select {
	case err := <-result:
		return jobs, err
	case <-ctx.Done():
	}
	t := time.NewTimer(listGrace)
	defer t.Stop()
	select {
	case err := <-result:
		return jobs, err
	case <-t.C: // the server is silent; the watchdog ends this
		return nil, ctx.Err()
	}
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

// List implements queue.Admin, one job at a time. beanstalkd shows the job that was
// buried first and the one that is due first: what is not deleted is taken out of the
// way. If its TTR ends meanwhile, a delayed job is ready.
func (q *client) List(ctx context.Context, tube string, state queue.State, f func([]queue.StoredJob) error) error {
	if err := queue.CheckTube(tube); err != nil {
		return err
	}
	for _, srv := range q.servers {
		if err := srv.listed(ctx); err != nil {
			return err
		}
		l := &listing{srv: srv, ctx: ctx, tube: tube, state: state, seen: make(map[uint64]bool), lost: func() {}}
		l.f = func(j queue.StoredJob) error { return f([]queue.StoredJob{j}) }
		err := l.run()
		<-srv.listing
		if err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a listing and leaves the job where it is.
var errEnough = errors.New("enough is listed")

// listing is one walk over a server's buried or delayed jobs of one tube.
type listing struct {
	srv   *server
	ctx   context.Context
	tube  string
	state queue.State
	f     func(queue.StoredJob) error // gets each. After an error the listing ends; after ErrCut with others in front
	lost  func()                      // the job that f got last is no longer in this state

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
	st, err := l.srv.tubeStats(l.tube)
	if err != nil {
		return err
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
	switch err = l.f(j); {
	case err == errEnough:
		return false, nil
	case err != nil && !errors.Is(err, queue.ErrCut):
		return false, err
	case !deleted:
		err = cmp.Or(l.rotate(id, j), err)
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
		l.lost()
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
