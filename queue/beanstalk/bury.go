package beanstalk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
)

// copyDelay keeps the job that takes the place of a buried one from everybody
// until it is buried too. Should this process or its connection end in between,
// it is served after that, to somebody who reads in its body that it is to be
// buried.
const copyDelay = 10 * time.Second

// maxLost is how often one burial puts its job though the answer to the last put
// was lost.
const maxLost = 2

// replacement is the job that takes the place of one that is buried with
// another body. Only who drives the settlement touches it.
type replacement struct {
	body []byte

	id   uint64   // 0: none is known to be stored
	on   *session // where it was last known to be
	lost int      // puts whose answer was lost
	// safe: it is buried, or in the hand of somebody who will bury it.
	safe bool
}

// Bury implements queue.Job: the job keeps its priority. beanstalkd cannot
// change a body. So another body is put as a job of its own, delayed, reserved
// by its id, and buried; then the old one is deleted. It has another id, and its
// age and its number of tries begin anew. A server older than 1.12 knows no
// reserve-job: there the job is buried as it is.
//
// At every moment one of the two is there. When a connection breaks, all goes
// on over the next one, from where it was; only if that was a put without an
// answer, nobody can tell whether there is a copy. Then it is put again, once: a
// second buried copy is better than none. Whoever is served a copy buries it.
func (j *job) Bury(ctx context.Context, body []byte) error {
	how := settlement{verdict: verdictBury}
	if body != nil && !bytes.Equal(body, j.body) {
		how.copy = &replacement{body: body}
	}
	err := j.finish(ctx, how)
	if err == nil && how.copy != nil {
		j.buriedAs.Store(how.copy.id)
	}
	return err
}

// bury sets the job aside. Only the holder can: a job that nobody holds after
// an outage is reserved by its id first.
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
	stats, err := s.statsJob(j.id)
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

// retake reserves a job by its id that no connection of ours holds any more.
func (s *session) retake(j *job) error {
	if err := s.recognise(j); err != nil {
		return err
	}
	err := s.do(func(bs *gobeanstalk.Conn) error {
		_, err := bs.ReserveJob(j.id)
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
	if s.err == nil && j.state != stateGone {
		j.bindLocked(s, time.Now())
	}
	return nil
}

// errBound: a connection of ours holds the job after all.
var errBound = errors.New("bound again")

// maxBinding is how long the answer to a reserve of ours, which may have brought
// the job, takes to come to claim.
const maxBinding = 100 * time.Millisecond

// awaitBound waits for a connection of ours to hold the job, and reports whether
// one does.
func (j *job) awaitBound() bool {
	srv := j.src.srv
	end := time.Now().Add(maxBinding)
	for {
		srv.mu.Lock()
		bound := j.sess.aliveLocked()
		srv.mu.Unlock()
		if bound || time.Now().After(end) || !sleep(srv.ctx, time.Millisecond) {
			return bound
		}
	}
}

// knowsReserveJob says whether the server knows reserve-job, which came with
// 1.12. No job has the id 0.
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

// buryAsIs buries the job with the body it has.
func (s *session) buryAsIs(j *job, pri uint32) error {
	if s.binlog {
		if err := s.srv.tryLog(); err != nil {
			return fmt.Errorf("beanstalk: job %s: not buried: %w", j.ID(), err)
		}
	}
	s.srv.mu.Lock()
	j.unregisterLocked()
	s.srv.mu.Unlock()
	err := s.do(func(bs *gobeanstalk.Conn) error { return bs.Bury(j.id, pri) },
		gobeanstalk.ErrNotFound, gobeanstalk.ErrInternal)
	if errors.Is(err, gobeanstalk.ErrInternal) { // see tryLog; no use or watch stands in front of a bury
		return fmt.Errorf("beanstalk: job %s: server %s could not write its log, and nobody can reach the job until it is restarted: %w",
			j.ID(), s.srv.addr, queue.ErrLost)
	}
	return j.explain(err)
}

const (
	trialTube = "propeller-trial" // where nobody looks for jobs
	trialSize = 1 << 10           // many times what the log takes for a bury
)

// tryLog says why the server cannot write its log. A bury that it cannot write
// is answered by INTERNAL_ERROR and leaves the job reserved by nobody until the
// server is restarted (beanstalkd: prot.c, bury_job); a put is refused, and
// leaves nothing. The put takes from the log's file so much more than the bury
// that hardly ever the one is written and not the other.
func (srv *server) tryLog() error {
	err := srv.admin.run(func(s *session) error {
		t := gobeanstalk.NewTube(s.bs, trialTube)
		// The use travels with a kick of no jobs, see putter.useLocked.
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
	return nil // of anything else the bury itself will tell
}

// replace puts c in the job's place. The connection watches the tube, so that
// the use that go-beanstalk sends in front of the put finds it there and cannot
// be refused.
func (s *session) replace(j *job, pri uint32, c *replacement) error {
	if err := s.findCopy(j, c); err != nil {
		return err
	}
	if c.id == 0 {
		if err := s.touch(j.id); err != nil { // no copy of a job that is somebody else's by now
			return j.explain(err)
		}
		id, err := s.put(j.src.c.tube, c.body, queue.PutOptions{Priority: pri, Delay: copyDelay})
		if errors.Is(err, queue.ErrUncertain) {
			s.srv.log.Warn("a job was to be buried, and nobody knows whether the server has stored it: there may be two buried copies of it",
				"tube", j.src.c.tube, "job", j.ID(), "err", err)
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

// findCopy looks for a copy that was stored by way of another connection: it may
// be ready by now, or in somebody's hand, or the server has been restarted and
// has forgotten it.
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
	same := unquote(stats["tube"]) == j.src.c.tube
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

// buryCopy buries the copy. When somebody else has it in the hand, it is theirs
// to bury.
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
	case errors.Is(err, gobeanstalk.ErrInternal): // see tryLog: the copy is served after the restart
		c.id = 0
		return fmt.Errorf("beanstalk: job %s: not buried: server %s could not write its log: %w", j.ID(), s.srv.addr, queue.ErrUnavailable)
	case err != nil && !errors.Is(err, gobeanstalk.ErrNotFound):
		return err
	}
	c.safe = true
	return nil
}
