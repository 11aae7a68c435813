package beanstalk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/internal/backoff"
	"propeller/queue"
)

// copyDelay hides the copy of a job until it is buried. If this process or its
// connection dies before that, the server hands the copy out afterwards, and its
// receiver reads in the body that it is to be buried.
const copyDelay = 10 * time.Second

// maxLost is how often one burial puts its copy when answers get lost.
const maxLost = 2

// replacement is the copy, with another body, that replaces a job when it is buried.
// Only the goroutine that settles the job touches it.
type replacement struct {
	body []byte

	id   uint64   // 0 if no copy is known to be stored
	on   *session // the connection that last saw it
	lost int      // puts whose answer was lost
	// safe: it is buried, or reserved by a client that will bury it.
	safe bool
}

// Bury implements queue.Job. The job keeps its priority. beanstalkd cannot change a
// body, so Bury puts a copy with the new body, delayed, reserves it by id, buries it
// and then deletes the original. The copy has a new id; its age and number of tries
// start again. A server before 1.12 has no reserve-job: there the original is buried
// unchanged.
//
// At any moment at least one of the two exists. If the connection breaks, the burial
// continues on the next one where it stopped. If a put was not answered, the copy may
// exist or not; then it is put once more, since a second buried copy is better than
// none. Every consumer that receives a copy buries it.
func (j *job) Bury(ctx context.Context, body []byte) error {
	how := settlement{action: actionBury}
	if body != nil && !bytes.Equal(body, j.body) {
		how.copy = &replacement{body: body}
	}
	err := j.finish(ctx, how)
	if err == nil && how.copy != nil {
		j.buriedAs.Store(how.copy.id)
	}
	return err
}

// bury buries the job. Only its holder can do that, so after an outage a job that
// nobody holds is reserved by id first.
func (s *session) bury(j *job, bound bool) error {
	err := s.setAside(j, bound)
	if errors.Is(err, queue.ErrLost) {
		return s.deletedBefore(j, err)
	}
	return err
}

func (s *session) setAside(j *job, bound bool) error {
	if !bound {
		if err := s.retake(j); err != nil {
			return err
		}
	}
	stats, err := s.statsJob(j.Number)
	if err != nil {
		return j.explain(err)
	}
	pri, err := parsePriority(stats)
	if err != nil {
		return err
	}
	if j.settle.copy == nil {
		return s.buryAsIs(j, pri)
	}
	knows, err := s.knowsReserveJob()
	if err != nil {
		return err
	}
	if !knows {
		j.settle.copy = nil
		return s.buryAsIs(j, pri)
	}
	return s.replace(j, pri, j.settle.copy)
}

// retake reserves, by its id, a job that none of our connections holds any more.
func (s *session) retake(j *job) error {
	if err := s.recognise(j); err != nil {
		return err
	}
	err := s.do(func(bs *gobeanstalk.Conn) error {
		_, err := bs.ReserveJob(j.Number)
		return err
	}, gobeanstalk.ErrNotFound, gobeanstalk.ErrUnknown)
	switch {
	case errors.Is(err, gobeanstalk.ErrUnknown): // older than 1.12: it has gone back to the tube
		return j.lost()
	case errors.Is(err, gobeanstalk.ErrNotFound) && j.awaitBound():
		return errBound
	case err != nil:
		return j.explain(err)
	}
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if s.err == nil && !j.Over() {
		j.bindLocked(s, time.Now())
	}
	return nil
}

// errBound: one of our connections holds the job after all.
var errBound = errors.New("bound again")

// maxBinding bounds the wait for the answer to a reserve that waits in the server. Others
// are answered at once.
const maxBinding = 100 * time.Millisecond

// awaitBound waits until one of our connections holds the job, and reports whether one
// does. The server has just said that somebody has reserved the job, or that it does not
// exist. If it is ours, the reserve that brought it was under way by then. So only those are
// waited for: a job that is really lost costs next to nothing, and there may be an outage's.
func (j *job) awaitBound() bool {
	srv := j.loop.srv
	end := time.Now().Add(maxBinding)
	srv.mu.Lock()
	var asked []underWay
	for s := range srv.sessions {
		if s.loop != nil && s.loop.c.tube == j.loop.c.tube && len(s.unclaimed) > 0 {
			asked = append(asked, underWay{s, s.reserves})
		}
	}
	for {
		bound, claimed := j.sess.aliveLocked(), !slices.ContainsFunc(asked, underWay.stillLocked)
		srv.mu.Unlock()
		if bound || claimed || time.Now().After(end) || backoff.Sleep(srv.ctx, time.Millisecond) != nil {
			return bound
		}
		srv.mu.Lock()
	}
}

// underWay are the reserves of a session up to a number.
type underWay struct {
	s    *session
	last uint64
}

// stillLocked says that one of them may yet bring a job.
func (u underWay) stillLocked() bool {
	return u.s.aliveLocked() && len(u.s.unclaimed) > 0 && u.s.unclaimed[0] <= u.last
}

// knowsReserveJob reports whether the server has reserve-job, as 1.12 and later do. It
// asks for job 0, which never exists.
func (s *session) knowsReserveJob() (bool, error) {
	s.srv.mu.Lock()
	knows := s.reservesByID
	s.srv.mu.Unlock()
	if knows {
		return true, nil
	}
	err := s.do(func(bs *gobeanstalk.Conn) error {
		_, err := bs.ReserveJob(0)
		return err
	}, gobeanstalk.ErrNotFound, gobeanstalk.ErrUnknown)
	if isBroken(err) {
		return false, err
	}
	knows = !errors.Is(err, gobeanstalk.ErrUnknown)
	s.srv.mu.Lock()
	s.reservesByID = knows
	s.srv.mu.Unlock()
	return knows, nil
}

// buryAsIs buries the job without changing its body.
func (s *session) buryAsIs(j *job, pri uint32) error {
	if s.binlog {
		if err := s.srv.tryLog(); err != nil {
			return fmt.Errorf("beanstalk: job %s: not buried: %w", j.ID(), err)
		}
	}
	s.srv.mu.Lock()
	j.unlistLocked()
	s.srv.mu.Unlock()
	err := s.do(func(bs *gobeanstalk.Conn) error { return bs.Bury(j.Number, pri) },
		gobeanstalk.ErrNotFound, gobeanstalk.ErrInternal)
	if errors.Is(err, gobeanstalk.ErrInternal) { // see tryLog; go-beanstalk sends no use or watch before a bury
		return fmt.Errorf("beanstalk: job %s: server %s could not write its log, and the job is out of reach until it is restarted: %w",
			j.ID(), s.srv.addr, queue.ErrLost)
	}
	return j.explain(err)
}

const (
	trialTube = "propeller-trial" // a tube that nobody consumes
	trialSize = 1 << 10           // many times what a bury adds to the log
)

// tryLog returns an error if the server cannot write its log. If it cannot write a bury,
// it answers INTERNAL_ERROR and the job stays reserved by nobody until the server is
// restarted (beanstalkd: prot.c, bury_job). A put that it cannot write it refuses
// cleanly. A trial put takes far more of the log file than a bury, so if the put fits
// the bury almost certainly does.
func (srv *server) tryLog() error {
	err := srv.admin.run(func(s *session) error {
		t := gobeanstalk.NewTube(s.bs, trialTube)
		// A kick of no jobs carries the use, see putter.useLocked.
		err := s.do(func(*gobeanstalk.Conn) error {
			_, err := t.Kick(0)
			return err
		})
		if err != nil {
			return err
		}
		var id uint64
		err = s.do(func(*gobeanstalk.Conn) (err error) {
			id, err = t.Put(make([]byte, trialSize), 1<<31, buryDelay, minTTR)
			return err
		}, gobeanstalk.ErrOOM, gobeanstalk.ErrDraining, gobeanstalk.ErrJobTooBig)
		if err != nil {
			return err
		}
		return s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(id) }, gobeanstalk.ErrNotFound)
	})
	if errors.Is(err, gobeanstalk.ErrOOM) && !isBroken(err) {
		return fmt.Errorf("server %s is out of memory or disk, finish or delete jobs or give it more: %w", srv.addr, queue.ErrFull)
	}
	return nil // the bury itself reports any other error
}

// replace puts c in the job's place. The connection watches the tube, so the tube exists
// and the server cannot refuse the use that go-beanstalk sends before the put.
func (s *session) replace(j *job, pri uint32, c *replacement) error {
	if err := s.findCopy(j, c); err != nil {
		return err
	}
	if c.id == 0 {
		if err := s.touch(j.Number); err != nil { // a job that somebody else holds by now gets no copy
			return j.explain(err)
		}
		id, err := s.put(j.loop.c.tube, c.body, queue.PutOptions{Priority: pri, Delay: copyDelay})
		if errors.Is(err, queue.ErrUncertain) {
			s.srv.few.Log(slog.LevelWarn, "the put of a buried job's copy was not answered: there may be two buried copies",
				"tube", j.loop.c.tube, "job", j.ID(), "err", err)
			if c.lost++; c.lost == maxLost && isBroken(err) {
				err = fmt.Errorf("%d answers were lost, the last with: %s: %w", c.lost, err.Error(), queue.ErrUnavailable)
			}
		}
		switch {
		case isBroken(err):
			return err
		case err != nil:
			return fmt.Errorf("beanstalk: job %s: not buried: %w", j.ID(), err)
		}
		c.id, c.on = id, s
	}
	if !c.safe {
		if err := s.buryCopy(j, pri, c); err != nil {
			return err
		}
	}
	err := s.delete(j, true)
	if maybeRun(err) {
		s.srv.mu.Lock()
		j.sent = true
		s.srv.mu.Unlock()
	}
	return err
}

// findCopy looks for a copy that was put over another connection. By now it may be ready
// or reserved, or the server has restarted and lost it.
func (s *session) findCopy(j *job, c *replacement) error {
	if c.id == 0 || c.on == s {
		return nil
	}
	id := c.id
	stats, err := s.statsJob(id)
	if errors.Is(err, gobeanstalk.ErrNotFound) {
		c.id, c.safe = 0, false
		return nil
	}
	if err != nil {
		return err
	}
	same := unquote(stats["tube"]) == j.loop.c.tube
	if same && (s.instance == "" || c.on.instance != s.instance) { // the id may be another job's
		var body []byte
		err := s.do(func(bs *gobeanstalk.Conn) (err error) {
			body, err = bs.Peek(id)
			return err
		}, gobeanstalk.ErrNotFound)
		if isBroken(err) {
			return err
		}
		same = err == nil && bytes.Equal(body, c.body)
	}
	if !same {
		c.id, c.safe = 0, false
		return nil
	}
	state := unquote(stats["state"])
	c.on, c.safe = s, state == "buried" || state == "reserved"
	return nil
}

// buryCopy buries the copy. If another client has reserved it, that client buries it.
func (s *session) buryCopy(j *job, pri uint32, c *replacement) error {
	id := c.id
	err := s.do(func(bs *gobeanstalk.Conn) error {
		_, err := bs.ReserveJob(id)
		return err
	}, gobeanstalk.ErrNotFound)
	if err == nil {
		err = s.do(func(bs *gobeanstalk.Conn) error { return bs.Bury(id, pri) },
			gobeanstalk.ErrNotFound, gobeanstalk.ErrInternal)
	}
	switch {
	case errors.Is(err, gobeanstalk.ErrInternal): // see tryLog: the server hands the copy out after its restart
		c.id = 0
		return fmt.Errorf("beanstalk: job %s: not buried: server %s could not write its log: %w", j.ID(), s.srv.addr, queue.ErrUnavailable)
	case err != nil && !errors.Is(err, gobeanstalk.ErrNotFound):
		return err
	}
	c.safe = true
	return nil
}
