package beanstalk

import (
	"bytes"
	"errors"
	"hash/maphash"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/lease"
)

// maxTombstones bounds the finished jobs of either kind that a server remembers: as
// many as one consumer may have had in flight when a connection broke. With
// some 300 bytes each they take 600 KB.
const maxTombstones = 1000

// minTTR is the shortest reservation (protocol.txt, put: 0 becomes 1).
const minTTR = time.Second

// entombLocked ends j, which was settled with the result err. A tombstone takes its place if it
// was finished and may come again nevertheless:
//
//   - Somebody else holds it (ErrLost). That may be a connection of ours whose
//     answer is on its way, or one that gives the job back.
//   - It was deleted, but while it was settled it was not sure that it was still
//     held here. Another connection of ours may have reserved it, and the answer
//     may have been read without having come to claim yet. That takes no longer
//     than a goroutine waits for its turn.
//
// The two are apart because there may be many of the second kind, a whole
// outage's, which would drive out the first.
func (srv *server) entombLocked(j *job, err error) {
	var among *lease.List[*job]
	switch {
	case !j.settle.removes():
	case errors.Is(err, queue.ErrLost):
		among = &srv.lostElsewhere
	case err == nil && j.maybeReserved:
		among = &srv.maybeReserved
	}
	if among == nil {
		j.endLocked(lease.Settled)
		return
	}
	tomb := &job{
		loop: j.loop, reservedAt: j.reservedAt, instance: j.instance,
		tombstone: true, sum: maphash.Bytes(srv.seed, j.body),
	}
	tomb.Job = tomb
	srv.jobs.Entomb(&j.Lease, &tomb.Lease, among, maxTombstones, time.Now())
	j.sess = nil
}

// maybeReservedLocked says that another connection of ours may have reserved the job
// without our knowing: none is known to hold it, or the one that does has not
// renewed its reservation for half as long as the shortest lasts: the server's time
// began before its answer was read here.
func (j *job) maybeReservedLocked(bound bool, now time.Time) bool {
	return !bound || now.Sub(j.Touched) >= minTTR/2
}

// hasBody says whether body is the job's.
func (j *job) hasBody(body []byte) bool {
	if j.tombstone {
		return maphash.Bytes(j.loop.srv.seed, body) == j.sum
	}
	return bytes.Equal(body, j.body)
}

// deleteFinished deletes a job that s has reserved and that was finished
// before. If s breaks, it is remembered on.
func (s *session) deleteFinished(j *job) {
	err := s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(j.Number) }, gobeanstalk.ErrNotFound)
	if isBroken(err) {
		return
	}
	if err == nil { // else that was the end of it: its reserve had been answered late
		s.srv.log.Info("job deleted instead of served again: it had been finished", "tube", j.loop.c.tube, "job", j.ID())
	}
	s.srv.mu.Lock()
	j.endLocked(lease.Settled)
	s.srv.mu.Unlock()
}

// claim makes a job known that s has just reserved, and returns it when it is
// a new delivery. It returns nil when the job belongs to a holder in this
// process, who lost its reservation with a connection or to a TTR: the job is
// bound to that holder again, or deleted if the holder has finished it. It also
// returns nil when s has died: the server gives the job back by itself.
func (s *session) claim(r reservation) *job {
	srv := s.srv
	now := time.Now()
	srv.mu.Lock()
	old := srv.listedLocked(r.id)
	for old != nil && !old.sameServerLocked(s) {
		srv.mu.Unlock()
		same, err := s.isJob(old, r.body)
		srv.mu.Lock()
		if err != nil { // s has died, or the job has been deleted meanwhile
			s.claimedLocked(r.number)
			srv.mu.Unlock()
			return nil
		}
		if now := srv.listedLocked(r.id); now != old { // settled while we looked
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
		s.claimedLocked(r.number)
		srv.mu.Unlock()
		return nil
	}
	if old == nil {
		s.claimedLocked(r.number)
		j := &job{body: r.body, loop: s.loop, reservedAt: now, sess: s, instance: s.instance}
		j.Number, j.Job, j.Owner = r.id, j, &s.loop.owner
		srv.jobs.Add(&j.Lease, &s.reserved, now)
		srv.mu.Unlock()
		return j
	}
	s.claimedLocked(r.number)
	if old.tombstone {
		srv.mu.Unlock()
		s.deleteFinished(old)
		return nil
	}
	old.bindLocked(s, now)
	_, pending := old.loop.pending[old]
	delete(old.loop.pending, old)
	srv.mu.Unlock()
	if pending {
		old.drive()
	}
	return nil
}

// listedLocked returns the job or the tombstone that the registry has under an id, or nil.
func (srv *server) listedLocked(id uint64) *job {
	if l := srv.jobs.Find(id); l != nil {
		return l.Job
	}
	return nil
}

// abandonLocked gives a job up whose id is another job's by now.
func (j *job) abandonLocked() {
	if _, pending := j.loop.pending[j]; pending {
		delete(j.loop.pending, j)
		j.result <- j.lost()
	}
	j.endLocked(lease.Lost)
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
// Every server process draws a new id for its stats, so it cannot tell a
// restart with a binlog, which keeps jobs and ids, from one without, after
// which ids begin at 1 again. It is the same job when there is a binlog, the
// tube and the body are equal, and the job is older than our reservation of
// it. (Its age is counted in whole seconds, rounded down, and goes on over a
// restart: the binlog holds the time of the put.)
func (s *session) isJob(j *job, body []byte) (bool, error) {
	if !s.binlog {
		return false, nil
	}
	held := time.Since(j.reservedAt) // before the command: the age is taken later
	stats, err := s.statsJob(j.Number)
	if err != nil {
		return false, err
	}
	st, err := parseStat(stats)
	if err != nil {
		return false, err
	}
	if unquote(stats["tube"]) != j.loop.c.tube || st.Age+time.Second <= held {
		return false, nil
	}
	if body == nil {
		err := s.do(func(bs *gobeanstalk.Conn) (err error) {
			body, err = bs.Peek(j.Number)
			return err
		}, gobeanstalk.ErrNotFound)
		if err != nil {
			return false, err
		}
	}
	return j.hasBody(body), nil
}
