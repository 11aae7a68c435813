package beanstalk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
)

// Peek implements queue.Admin.
func (q *client) Peek(ctx context.Context, tube, id string) (queue.StoredJob, error) {
	var b queue.StoredJob
	err := q.onBuried(ctx, tube, id, func(s *session, n uint64, j queue.StoredJob) error {
		return s.do(func(bs *gobeanstalk.Conn) error {
			body, err := bs.Peek(n)
			b = queue.StoredJob{ID: id, Body: body, Age: j.Age}
			return err
		}, gobeanstalk.ErrNotFound)
	})
	if err != nil {
		return queue.StoredJob{}, err // b may still be written
	}
	return b, nil
}

// Kick implements queue.Admin: the job keeps its id and its priority. A tube that sleeps
// wakes if the job may be ready.
func (q *client) Kick(ctx context.Context, tube, id string) error {
	// kick-job takes delayed jobs too (protocol.txt), hence the look before it.
	err := q.endBuried(ctx, tube, id, (*gobeanstalk.Conn).KickJob)
	if err == nil || maybeRun(err) {
		q.wake(tube)
	}
	return err
}

// Delete implements queue.Admin.
func (q *client) Delete(ctx context.Context, tube, id string) error {
	return q.endBuried(ctx, tube, id, (*gobeanstalk.Conn).Delete)
}

// endBuried runs a command that takes the job out of the buried state.
func (q *client) endBuried(ctx context.Context, tube, id string, cmd func(*gobeanstalk.Conn, uint64) error) error {
	sent := false // on a connection that then broke
	err := q.onBuried(ctx, tube, id, func(s *session, n uint64, _ queue.StoredJob) error {
		err := s.do(func(bs *gobeanstalk.Conn) error { return cmd(bs, n) }, gobeanstalk.ErrNotFound)
		sent = sent || maybeRun(err)
		return err
	})
	if errors.Is(err, queue.ErrNotFound) && sent {
		return nil // the first command did it, only its answer was lost
	}
	return err
}

// maxLooks bounds how often List looks at a job that is there whenever it is
// peeked at, and gone when it is to be reserved.
const maxLooks = 3

// onBuried runs f when the job is buried in tube, else it returns ErrNotFound.
// f may be run again when it says not found, or its connection broke (see
// link.run), and after ctx has ended, see server.call.
func (q *client) onBuried(ctx context.Context, tube, id string, f func(*session, uint64, queue.StoredJob) error) error {
	if err := queue.CheckTube(tube); err != nil {
		return err
	}
	srv, n, err := q.locate(id)
	if err != nil {
		return err
	}
	err = srv.call(ctx, func() error {
		return srv.admin.run(func(s *session) error {
			srv.rotating.RLock() // not across the dial
			defer srv.rotating.RUnlock()
			for range maxLooks {
				j, err := s.stored(n, tube, queue.Buried)
				if err != nil {
					return err
				}
				if err := f(s, n, j); !errors.Is(err, gobeanstalk.ErrNotFound) {
					return err
				} // gone between the look and the command, or in another lister's hand
			}
			return queue.ErrBusy
		})
	})
	switch {
	case errors.Is(err, queue.ErrBusy):
		return fmt.Errorf("beanstalk: job %.80q in %q: %w", id, tube, queue.ErrBusy)
	case errors.Is(err, gobeanstalk.ErrNotFound):
		return fmt.Errorf("beanstalk: job %.80q in %q: %w", id, tube, queue.ErrNotFound)
	}
	return err
}

// stored asks about a job. Unless it is in that state in tube, the error is
// queue.ErrBusy when it is reserved there, else gobeanstalk.ErrNotFound.
func (s *session) stored(n uint64, tube string, state queue.State) (j queue.StoredJob, err error) {
	stats, err := s.statsJob(n)
	if err != nil {
		return j, err
	}
	is := unquote(stats["state"])
	switch {
	case unquote(stats["tube"]) != tube:
		return j, gobeanstalk.ErrNotFound
	case is == "reserved": // perhaps by a program that lists the tube's jobs
		return j, queue.ErrBusy
	case is != string(state):
		return j, gobeanstalk.ErrNotFound
	}
	st, err := parseStat(stats)
	if err != nil {
		return j, err
	}
	j = queue.StoredJob{ID: s.srv.jobID(n), Priority: st.Priority, Age: st.Age}
	if state == queue.Delayed {
		left, err := statNumber(stats, "time-left", 32)
		if err != nil {
			return j, err
		}
		// It is cut to whole seconds (beanstalkd: prot.c), and no job may come early.
		j.Delay = time.Duration(left+1) * time.Second
	}
	return j, nil
}

// locate returns the server that an id speaks of, and its number there. With
// one server the address is taken too, if it is that server's: the id may have
// been written down when there were several.
func (q *client) locate(id string) (*server, uint64, error) {
	addr, number := "", id
	if i := strings.LastIndexByte(id, '/'); i >= 0 {
		addr, number = id[:i], id[i+1:]
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err == nil {
		for _, srv := range q.servers {
			if srv.addr == addr || (addr == "" && !q.several()) {
				return srv, n, nil
			}
		}
	}
	want := "a number"
	if q.several() {
		want = "host:port/number, of one of the servers"
	}
	return nil, 0, fmt.Errorf("beanstalk: job id %.80q: want %s: %w", id, want, queue.ErrRejected)
}

// List implements queue.Admin, one job at a time.
//
// beanstalkd shows one job in each state: the one that was buried first, and the one
// that is due first (protocol.txt, peek). What f does not delete is taken out of the
// way of the next.
//
// A buried job is reserved by its id and buried again, which makes it the last; after
// a whole round all are in the old order. This costs four commands a job, adds one to
// the reserves and the buries in its statistics, and if this process or the server
// dies between the two commands, the job is ready: it is tried once more. A server
// whose log cannot be written (disk full) may keep that one job out of reach until it
// is restarted. None of this is done for a single job, or for the one at which f fails.
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

	s        *session // of its own: what it has in its hand goes back when it breaks
	total    int      // jobs in this state when it began
	seen     map[uint64]bool
	reserved []delayedJob // out of the way
}

// delayedJob is a job to release. There may be many, so their bodies are not kept.
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
// it is reserved here; other clients find it reserved.
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
		l.reserved = append(l.reserved, delayedJob{id, j.Priority, time.Now().Add(j.Delay)})
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
	for _, h := range l.reserved {
		err := l.s.do(func(bs *gobeanstalk.Conn) error {
			return bs.Release(h.id, h.pri, wholeSeconds(time.Until(h.due)))
		}, gobeanstalk.ErrNotFound)
		if err != nil && !errors.Is(err, gobeanstalk.ErrNotFound) {
			return err
		}
	}
	return nil
}
