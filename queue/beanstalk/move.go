package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
)

var _ queue.Mover = (*client)(nil)

// Tubes implements queue.Mover: those of all servers.
func (q *client) Tubes(ctx context.Context) ([]string, error) {
	tubes := make(map[string]bool)
	for _, srv := range q.servers {
		err := srv.call(ctx, func() error {
			names, err := srv.tubes()
			for _, name := range names {
				tubes[name] = true
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(tubes)), nil
}

// tubes are the server's tubes that have jobs. The server also lists those that
// somebody uses or watches.
func (srv *server) tubes() (tubes []string, err error) {
	var all []string
	err = srv.admin.run(func(s *session) error {
		return s.do(func(bs *gobeanstalk.Conn) (err error) {
			s.in.listing.Add(1)
			defer s.in.listing.Add(-1)
			all, err = bs.ListTubes()
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	for _, name := range all {
		name = unquote(name)
		st, err := srv.tubeStats(name)
		if err != nil {
			return nil, err
		}
		if st.Ready+st.Delayed+st.Reserved+st.Buried > 0 {
			tubes = append(tubes, name)
		}
	}
	return tubes, nil
}

// Aside implements queue.Mover. Jobs that are due soon are among those that f
// gets: beanstalkd shows no others before them.
//
// A job is not reserved while f has it, so that it stays what it is if this
// process dies: delete works on delayed and buried jobs as they are
// (protocol.txt). But one that f refuses is in the way of the next, and is
// taken into the hand until the walk's end; if the process dies in between, or
// the job's TTR is over, it is ready.
func (q *client) Aside(ctx context.Context, tube string, f func(queue.StoredJob) error) error {
	if err := queue.CheckTube(tube); err != nil {
		return err
	}
	for _, srv := range q.servers {
		if err := srv.aside(ctx, tube, f); err != nil {
			return err
		}
	}
	return nil
}

func (srv *server) aside(ctx context.Context, tube string, f func(queue.StoredJob) error) error {
	st, err := srv.tubeStats(tube)
	if err != nil || st.Delayed+st.Buried == 0 {
		return err
	}
	s, err := srv.connect(ctx, nil)
	if err != nil {
		return err
	}
	defer s.fail(errClosed, false)
	// The use travels with a kick of no jobs, see putter.useLocked.
	err = s.do(func(bs *gobeanstalk.Conn) error {
		_, err := gobeanstalk.NewTube(bs, tube).Kick(0)
		return err
	})
	if err != nil {
		return err
	}
	for _, peek := range []func(*gobeanstalk.Tube) (uint64, []byte, error){(*gobeanstalk.Tube).PeekDelayed, (*gobeanstalk.Tube).PeekBuried} {
		w := &asideWalk{s: s, tube: tube, peek: peek, f: f}
		err := w.run(ctx)
		if err = errors.Join(err, w.giveBack()); err != nil {
			return err
		}
	}
	return nil
}

// asideWalk goes through the delayed or the buried jobs of a tube.
type asideWalk struct {
	s    *session
	tube string
	peek func(*gobeanstalk.Tube) (uint64, []byte, error) // the first of them
	f    func(queue.StoredJob) error

	held []heldJob // refused
}

// heldJob is a job in the hand, to become again what it was. There may be many:
// without their bodies.
type heldJob struct {
	id     uint64
	job    queue.StoredJob
	due    time.Time
	buried bool
}

func (w *asideWalk) run(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var id uint64
		var body []byte
		err := w.s.do(func(bs *gobeanstalk.Conn) (err error) {
			id, body, err = w.peek(gobeanstalk.NewTube(bs, w.tube))
			return err
		}, gobeanstalk.ErrNotFound)
		if errors.Is(err, gobeanstalk.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.one(id, body); err != nil {
			return err
		}
	}
}

// one hands a job to f. That it is not as it was a moment ago is no error.
func (w *asideWalk) one(id uint64, body []byte) error {
	stats, err := w.s.statsJob(id)
	if errors.Is(err, gobeanstalk.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	j, err := w.s.storedJob(id, body, stats)
	if err != nil {
		return err
	}
	if !j.Buried && j.Delay == 0 {
		return nil // ready by now
	}
	if why, large := tooLarge(body); large {
		w.s.srv.log.Warn("a job that is too large stays where it is", "tube", w.tube, "job", j.ID, "why", why)
		return w.hold(id, j)
	}
	err = w.f(j)
	switch {
	case errors.Is(err, queue.ErrRejected):
		return w.hold(id, j)
	case err != nil:
		return err
	}
	err = w.s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(id) }, gobeanstalk.ErrNotFound)
	if errors.Is(err, gobeanstalk.ErrNotFound) {
		return nil
	}
	return err
}

// storedJob makes a job of its statistics.
func (s *session) storedJob(id uint64, body []byte, stats map[string]string) (queue.StoredJob, error) {
	j := queue.StoredJob{ID: s.srv.jobID(id), Body: body}
	st, err := parseStat(stats)
	if err != nil {
		return j, err
	}
	j.Age, j.Priority = st.Age, st.Priority
	switch unquote(stats["state"]) {
	case "buried":
		j.Buried = true
	case "delayed":
		left, err := statNumber(stats, "time-left", 32)
		if err != nil {
			return j, err
		}
		// It is cut to whole seconds (beanstalkd: prot.c), and no job may come early.
		j.Delay = time.Duration(left+1) * time.Second
	}
	return j, nil
}

// hold takes a refused job out of the way.
func (w *asideWalk) hold(id uint64, j queue.StoredJob) error {
	err := w.s.do(func(bs *gobeanstalk.Conn) error {
		_, err := bs.ReserveJob(id)
		return err
	}, gobeanstalk.ErrNotFound, gobeanstalk.ErrUnknown)
	switch {
	case errors.Is(err, gobeanstalk.ErrNotFound):
		return nil
	case errors.Is(err, gobeanstalk.ErrUnknown): // reserve-job came with 1.12
		return fmt.Errorf("beanstalk: job %s of %q stays, and server %s, older than 1.12, shows none behind it", j.ID, w.tube, w.s.srv.addr)
	case err != nil:
		return err
	}
	j.Body = nil
	w.held = append(w.held, heldJob{id: id, job: j, due: time.Now().Add(j.Delay), buried: j.Buried})
	return nil
}

// giveBack makes the refused jobs what they were.
func (w *asideWalk) giveBack() error {
	for _, h := range w.held {
		err := w.s.do(func(bs *gobeanstalk.Conn) error {
			if h.buried {
				return bs.Bury(h.id, h.job.Priority)
			}
			return bs.Release(h.id, h.job.Priority, wholeSeconds(time.Until(h.due)))
		}, gobeanstalk.ErrNotFound)
		if err != nil && !errors.Is(err, gobeanstalk.ErrNotFound) {
			return err
		}
	}
	w.held = nil
	return nil
}

// buryDelay keeps a job that is to be buried from everybody until it is. Should
// this process die in between, the job is served after that, or at once if it
// was reserved to be buried just then: only the holder can bury, and what a
// connection holds is ready when it ends (protocol.txt).
const buryDelay = time.Hour

// Restore implements queue.Mover. It drops the age, which beanstalkd cannot store: the
// job's age starts again.
func (q *client) Restore(ctx context.Context, tube string, j queue.StoredJob) (string, error) {
	o := queue.PutOptions{Delay: j.Delay, Priority: j.Priority}
	if j.Buried {
		o.Delay = buryDelay
	}
	id, err := q.Put(ctx, tube, j.Body, o)
	if err != nil || !j.Buried {
		return id, err
	}
	srv, n, err := q.locate(id)
	if err != nil {
		return "", err
	}
	err = srv.call(ctx, func() error {
		return srv.admin.run(func(s *session) error { return s.buryNew(n, j.Priority) })
	})
	return id, err
}

// buryNew buries a job that was just put. If that fails the job is removed, if
// possible.
func (s *session) buryNew(n uint64, pri uint32) error {
	err := s.do(func(bs *gobeanstalk.Conn) error {
		if _, err := bs.ReserveJob(n); err != nil {
			return err
		}
		return bs.Bury(n, pri)
	}, gobeanstalk.ErrNotFound, gobeanstalk.ErrUnknown)
	if err == nil || isBroken(err) {
		return err
	}
	_ = s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(n) }, gobeanstalk.ErrNotFound)
	if errors.Is(err, gobeanstalk.ErrUnknown) { // reserve-job came with 1.12
		return fmt.Errorf("beanstalk: server %s is older than 1.12 and can bury no job: %w", s.srv.addr, queue.ErrRejected)
	}
	return fmt.Errorf("beanstalk: job %s: not buried: %w: %w", s.srv.jobID(n), queue.ErrUnavailable, err)
}
