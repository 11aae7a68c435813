package beanstalk

import (
	"errors"
	"log/slog"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
)

const (
	// touchEvery: a held job's reservation is renewed at least this often. The
	// protocol does not tell a job's TTR, so this must be short for any
	// sensible one; 1000 touches cost the server about 7 ms.
	touchEvery = 4 * time.Second

	// keeperTick is how often the keeper looks, at most; tests with a short
	// Timeout make it shorter.
	keeperTick = time.Second
)

// keep is the keeper of all sessions of a server: it ends those whose server
// has fallen silent, and touches jobs that are held long.
//
// go-beanstalk has no deadlines, and per-command ones could not work: an
// answer that comes late would be taken for the next command's.
func (srv *server) keep() {
	tick := time.NewTicker(min(keeperTick, srv.q.opts.timeout/4))
	defer tick.Stop()
	for {
		select {
		case <-srv.ctx.Done():
			return
		case now := <-tick.C:
			srv.check(now)
		}
	}
}

// check is one round of the keeper. It never waits for the server.
func (srv *server) check(now time.Time) {
	var silent []*session
	srv.mu.Lock()
	for s := range srv.sessions {
		if s.outstanding > 0 && now.Sub(s.progress) > srv.q.opts.timeout+s.patience {
			silent = append(silent, s)
			continue
		}
		s.touchLocked(now, touchEvery-keeperTick)
	}
	if !srv.closed {
		srv.hands.dismiss()
	}
	srv.mu.Unlock()
	for _, s := range silent {
		s.fail(errWatchdog, true)
	}
}

// touchLocked starts a toucher for the jobs that nobody touched for age,
// unless one is at work.
func (s *session) touchLocked(now time.Time, age time.Duration) {
	if s.err != nil || s.touching {
		return
	}
	var due []*job
	for j := range s.held.Due(now, age) {
		j.Lease.Touch(now)
		due = append(due, j)
	}
	if len(due) == 0 {
		return
	}
	s.touching = true
	s.wg.Go(func() {
		parallel(reservers, due, s.touchHeld)
		s.srv.mu.Lock()
		s.touching = false
		s.srv.mu.Unlock()
	})
}

// touchHeld renews one reservation and notes it when it is gone.
func (s *session) touchHeld(j *job) {
	s.srv.mu.Lock()
	mine := j.sess == s && j.Unsettled()
	s.srv.mu.Unlock()
	if !mine {
		return
	}
	err := s.touch(j.Number)
	if !errors.Is(err, gobeanstalk.ErrNotFound) {
		return // renewed, or the session is dead and everybody will know
	}
	s.srv.mu.Lock()
	gone := j.sess == s && j.Unsettled()
	if gone {
		j.unbindLocked()
	}
	s.srv.mu.Unlock()
	if gone {
		s.srv.few.Log(slog.LevelWarn, "reservation lost while its job was held: TTR too short, or the server clock jumped",
			"tube", s.src.c.tube, "job", j.ID())
	}
}

func (s *session) touch(id uint64) error {
	return s.do(func(bs *gobeanstalk.Conn) error { return bs.Touch(id) }, gobeanstalk.ErrNotFound)
}
