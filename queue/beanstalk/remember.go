package beanstalk

import (
	"bytes"
	"errors"
	"hash/maphash"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
)

// maxMemos bounds the finished jobs of either kind that a server remembers: as
// many as one consumer may have had in flight when a connection broke. With
// some 300 bytes each they take 600 KB.
const maxMemos = 1000

// minTTR is the shortest reservation (protocol.txt, put: 0 becomes 1).
const minTTR = time.Second

// memos are finished jobs, the last maxMemos of them, that the registry still
// knows: should one be reserved here again, it is deleted instead of run.
type memos struct {
	jobs []*job
	next int // the oldest, once there are maxMemos
}

// rememberLocked removes j from the registry, which was settled with the result
// err, and leaves a memo of it there if it was finished and may come again
// nevertheless:
//
//   - Somebody else holds it (ErrLost). That may be a connection of ours whose
//     answer is on its way, or one that gives the job back.
//   - It was deleted, but while it was settled it was not sure that it was still
//     held here. A connection of ours may have reserved it anew, and the answer
//     may have been read without having come to claim yet. That takes no longer
//     than a goroutine waits for its turn.
//
// The two are apart because there may be many of the second kind, a whole
// outage's, which would drive out the first.
func (srv *server) rememberLocked(j *job, err error) {
	known := srv.jobs[j.id] == j // else it was abandoned, or the id is another job's
	j.forgetLocked()
	if !known || !j.settle.removes() {
		return
	}
	switch {
	case errors.Is(err, queue.ErrLost):
		srv.elsewhere.addLocked(j)
	case err == nil && j.loose:
		srv.loose.addLocked(j)
	}
}

// looseLocked says that a connection of ours may have reserved the job anew
// without our knowing: none is known to hold it, or the one that does has not
// renewed its reservation for half as long as the shortest lasts: the server's time
// began before its answer was read here.
func (j *job) looseLocked(bound bool, now time.Time) bool {
	return !bound || now.Sub(j.touched) >= minTTR/2
}

// addLocked registers a memo of j, without its body.
func (m *memos) addLocked(j *job) {
	srv := j.src.srv
	memo := &job{
		id: j.id, src: j.src, reserved: j.reserved, instance: j.instance,
		sum:   maphash.Bytes(srv.seed, j.body),
		state: stateGone, settling: true, memo: true,
	}
	srv.jobs[j.id] = memo
	if len(m.jobs) < maxMemos {
		m.jobs = append(m.jobs, memo)
		return
	}
	m.jobs[m.next].unregisterLocked()
	m.jobs[m.next] = memo
	m.next = (m.next + 1) % maxMemos
}

// hasBody says whether body is the job's.
func (j *job) hasBody(body []byte) bool {
	if j.memo {
		return maphash.Bytes(j.src.srv.seed, body) == j.sum
	}
	return bytes.Equal(body, j.body)
}

// deleteFinished deletes a job that s has reserved and that was finished
// before. If s breaks, it is remembered on.
func (s *session) deleteFinished(j *job) {
	err := s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(j.id) }, gobeanstalk.ErrNotFound)
	if isBroken(err) {
		return
	}
	if err == nil { // else that was the end of it: its reserve had been answered late
		s.srv.log.Info("job deleted instead of served again: it had been finished", "tube", j.src.c.tube, "job", j.ID())
	}
	s.srv.mu.Lock()
	j.unregisterLocked()
	s.srv.mu.Unlock()
}
