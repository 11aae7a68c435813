package beanstalk

import (
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

// buried lists one server's. One listing runs at a time: two would take jobs
// out of each other's hands.
func (srv *server) buried(ctx context.Context, tube string, limit int) ([]queue.BuriedJob, error) {
	select {
	case srv.listing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l := &listing{srv: srv, ctx: ctx, tube: tube, limit: limit, seen: make(map[uint64]bool)}
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
		return l.jobs, err
	case <-ctx.Done():
	}
	t := time.NewTimer(listGrace)
	defer t.Stop()
	select {
	case err := <-result:
		return l.jobs, err
	case <-t.C: // the server is silent; the watchdog ends this
		return nil, ctx.Err()
	}
}

// listing is one walk over a server's buried jobs of one tube.
type listing struct {
	srv   *server
	ctx   context.Context
	tube  string
	limit int

	s     *session // of its own: what it has in its hand goes back when it breaks
	total int      // jobs buried when it began
	seen  map[uint64]bool
	jobs  []queue.BuriedJob
	bytes int
}

func (l *listing) run() error {
	st, err := l.srv.tubeStats(l.tube)
	if err != nil || st.Buried == 0 {
		return err
	}
	l.total = st.Buried
	if l.s, err = l.srv.connect(l.ctx, nil); err != nil {
		return err
	}
	defer l.s.fail(errClosed, false)
	// The use travels with a kick of no jobs, see putter.useLocked.
	err = l.s.do(func(bs *gobeanstalk.Conn) error {
		_, err := gobeanstalk.NewTube(bs, l.tube).Kick(0)
		return err
	})
	if err != nil {
		return err
	}
	for range l.total { // jobs buried meanwhile come behind these
		if more, err := l.step(); !more || err != nil {
			return err
		}
	}
	return nil
}

// step takes the first job in and makes it the last.
func (l *listing) step() (more bool, err error) {
	if err := l.ctx.Err(); err != nil {
		return false, err
	}
	var id uint64
	var body []byte
	err = l.s.do(func(bs *gobeanstalk.Conn) (err error) {
		id, body, err = gobeanstalk.NewTube(bs, l.tube).PeekBuried()
		return err
	}, gobeanstalk.ErrNotFound)
	if errors.Is(err, gobeanstalk.ErrNotFound) || (err == nil && l.seen[id]) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	st, pri, err := l.s.statBuried(id, l.tube)
	if errors.Is(err, gobeanstalk.ErrNotFound) || errors.Is(err, queue.ErrBusy) {
		return true, nil // kicked or deleted meanwhile, or in another lister's hand
	}
	if err != nil {
		return false, err
	}
	l.seen[id] = true
	l.jobs = append(l.jobs, queue.BuriedJob{ID: l.srv.jobID(id), Body: body, Age: st.Age})
	l.bytes += len(body)
	if (len(l.jobs) == l.limit && l.limit < l.total) || l.total == 1 {
		return false, nil
	}
	if l.bytes >= l.srv.q.maxListed && len(l.jobs) < l.total {
		// This one too, so that the next listing begins with the others.
		if err := l.rotate(id, pri); err != nil {
			return false, err
		}
		return false, fmt.Errorf("beanstalk: server %s has %d buried jobs in %q, %d are listed: %w",
			l.srv.addr, l.total, l.tube, len(l.jobs), queue.ErrCut)
	}
	return true, l.rotate(id, pri)
}

// rotate makes the first buried job the last. Nobody in this process looks at
// a buried job while one is in the hand; others are told that it is held.
func (l *listing) rotate(id uint64, pri uint32) error {
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
		return fmt.Errorf("beanstalk: server %s is older than 1.12 and shows only one of %d buried jobs", l.srv.addr, l.total)
	case err != nil:
		return err
	}
	err = l.s.do(func(bs *gobeanstalk.Conn) error { return bs.Bury(id, pri) }, gobeanstalk.ErrNotFound)
	switch {
	case errors.Is(err, gobeanstalk.ErrNotFound): // its TTR was over: it is ready
		l.jobs = l.jobs[:len(l.jobs)-1]
		l.srv.log.Warn("a buried job that was being listed is served again", "tube", l.tube, "job", l.srv.jobID(id))
		return nil
	case err != nil:
		l.srv.log.Warn("a buried job that was being listed may be served again, or is out of reach until the server is restarted",
			"tube", l.tube, "job", l.srv.jobID(id), "err", err)
	}
	return err
}
