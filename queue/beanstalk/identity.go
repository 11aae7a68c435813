package beanstalk

import (
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
)

// claim makes a job known that s has just reserved, and returns it when it is
// a new delivery. It returns nil when the job belongs to a holder in this
// process, who lost its reservation with a connection or to a TTR: the job is
// bound to that holder again, or deleted if the holder has finished it. It also
// returns nil when s has died: the server gives the job back by itself.
func (s *session) claim(id uint64, body []byte) *job {
	srv := s.srv
	now := time.Now()
	srv.mu.Lock()
	old := srv.jobs[id]
	for old != nil && !old.sameServerLocked(s) {
		srv.mu.Unlock()
		same, err := s.isJob(old, body)
		if err != nil { // s has died, or the job has been deleted meanwhile
			return nil
		}
		srv.mu.Lock()
		if now := srv.jobs[id]; now != old { // settled while we looked
			old = now
			continue
		}
		if !same { // the id has been given to another job
			old.abandonLocked()
			old = nil
			continue
		}
		break
	}
	if s.err != nil {
		srv.mu.Unlock()
		return nil
	}
	if old == nil {
		j := &job{id: id, body: body, src: s.src, reserved: now}
		srv.jobs[id] = j
		j.bindLocked(s, now)
		srv.mu.Unlock()
		return j
	}
	if old.memo {
		srv.mu.Unlock()
		s.deleteFinished(old)
		return nil
	}
	old.bindLocked(s, now)
	_, pending := old.src.pending[old]
	delete(old.src.pending, old)
	srv.mu.Unlock()
	if pending {
		old.drive()
	}
	return nil
}

// abandonLocked gives a job up whose id is another job's by now.
func (j *job) abandonLocked() {
	if _, pending := j.src.pending[j]; pending {
		delete(j.src.pending, j)
		j.result <- j.lost()
	}
	j.forgetLocked()
}

// sameServerLocked says that s leads to the very server process that the job
// was reserved from, where its id is its own for ever.
func (j *job) sameServerLocked(s *session) bool {
	return j.instance != "" && j.instance == s.instance
}

// recognise returns ErrLost unless the job's id still means this job on s.
func (s *session) recognise(j *job) error {
	s.srv.mu.Lock()
	same := j.sameServerLocked(s)
	s.srv.mu.Unlock()
	if same {
		return nil
	}
	same, err := s.isJob(j, nil)
	if err != nil {
		return j.explain(err)
	}
	if !same {
		return j.lost()
	}
	s.srv.mu.Lock()
	j.instance = s.instance
	s.srv.mu.Unlock()
	return nil
}

// isJob says whether the job that s knows under j's id is j, after the server
// was restarted. body is that job's if known. gobeanstalk.ErrNotFound: no job
// has that id any more.
//
// The id in stats is drawn anew by every server process, so it cannot tell a
// restart with a binlog, which keeps jobs and ids, from one without, after
// which ids begin at 1 again. It is the same job when there is a binlog, the
// tube and the body are equal, and the job is older than our reservation of
// it. (Its age is counted in whole seconds, rounded down, and goes on over a
// restart: the binlog holds the time of the put.)
func (s *session) isJob(j *job, body []byte) (bool, error) {
	if !s.binlog {
		return false, nil
	}
	held := time.Since(j.reserved) // before the command: the age is taken later
	stats, err := s.statsJob(j.id)
	if err != nil {
		return false, err
	}
	st, err := parseStat(stats)
	if err != nil {
		return false, err
	}
	if unquote(stats["tube"]) != j.src.c.tube || st.Age+time.Second <= held {
		return false, nil
	}
	if body == nil {
		err := s.do(func(bs *gobeanstalk.Conn) (err error) {
			body, err = bs.Peek(j.id)
			return err
		}, gobeanstalk.ErrNotFound)
		if err != nil {
			return false, err
		}
	}
	return j.hasBody(body), nil
}
