package beanstalk

import (
	"fmt"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/lease"
)

// A job that is finished after its reservation was lost is not served again by
// an answer to a reserve that has been read by then and not been looked at.
func TestFinishedJobIsNotServedByALateAnswer(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*testing.T, *beanstalktest.Server, *consumer, *job){
		"connection cut": func(t *testing.T, _ *beanstalktest.Server, c *consumer, j *job) {
			c.cut()
			_ = j.Touch(ctxOf(t)) // makes c see it
		},
		"TTR over": func(*testing.T, *beanstalktest.Server, *consumer, *job) {}, // in s.reserve below
		"server restarted": func(t *testing.T, srv *beanstalktest.Server, _ *consumer, j *job) {
			srv.Restart()
			_ = j.Touch(ctxOf(t))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := beanstalktest.Start(t, beanstalktest.WithBinlog())
			other := srv.Dial()
			other.Tube.Name = "tube"
			if _, err := other.Put([]byte("x"), 1, 0, time.Second); err != nil {
				t.Fatal(err)
			}
			q := openTest(t, Options{Addrs: []string{srv.Addr()}})
			c := consumeTest(t, q, "tube")
			j := mustReceive(t, c, 1)[0].(*job)
			c.Pause()
			lose(t, srv, c, j)

			s, id, body := reserveRaw(t, c)
			mustDone(t, j)
			if again := s.claim(reservation{id: id, body: body}); again != nil {
				t.Errorf("job %s is served again after its end", again.ID())
			}
			if st, err := q.TubeStats(ctxOf(t), "tube"); err != nil || st != (queue.TubeStats{}) {
				t.Errorf("left: %+v, %v", st, err)
			}
		})
	}
}

// reserveRaw reserves a job of the paused c and stops where its answer has been
// read.
func reserveRaw(t *testing.T, c *consumer) (s *session, id uint64, body []byte) {
	t.Helper()
	loop := c.loops[0]
	eventually(t, "job reserved", func() bool {
		loop.srv.mu.Lock()
		s = loop.sess
		alive := s.aliveLocked()
		loop.srv.mu.Unlock()
		if !alive {
			return false
		}
		r, _, err := s.reserve(false)
		id, body = r.id, r.body
		return err == nil
	})
	return s, id, body
}

// What is remembered of finished jobs is bounded and has no bodies; the oldest
// go first.
func TestTombstonesAreBounded(t *testing.T) {
	t.Parallel()
	q := openTest(t, Options{Addrs: []string{(&fake{script: answers(nil)}).listen(t)}})
	srv := q.servers[0]
	loop := consumeTest(t, q, "tube").loops[0]
	const n = 2*maxTombstones + maxTombstones/2
	for _, err := range []error{nil, queue.ErrLost} {
		srv.mu.Lock()
		for i := range n {
			j := &job{loop: loop, body: fmt.Append(nil, i), maybeReserved: true}
			j.Number, j.Job, j.Owner = uint64(i), j, &loop.owner
			srv.jobs.Add(&j.Lease, nil, time.Now())
			srv.entombLocked(j, err)
		}
		if n := srv.jobs.Len(); n != maxTombstones {
			t.Errorf("%v: %d jobs are remembered, want %d", err, n, maxTombstones)
		}
		for l := range srv.jobs.All() {
			id, j := l.Number, l.Job
			if id < n-maxTombstones || l.State() != lease.Tombstone || j.body != nil || !j.hasBody(fmt.Append(nil, id)) || j.hasBody(nil) {
				t.Errorf("%v: remembered: %+v", err, j)
			}
		}
		srv.jobs = lease.Table[*job]{}
		srv.mu.Unlock()
	}
}

// A job that ended as it should leaves nothing behind.
func TestDoneIsForgotten(t *testing.T) {
	t.Parallel()
	q := openTest(t, Options{Addrs: []string{beanstalktest.Start(t).Addr()}})
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "x")
	j := mustReceive(t, c, 1)[0].(*job)
	srv := q.servers[0]
	srv.mu.Lock()
	j.Touched = time.Now() // however slow this machine is
	srv.mu.Unlock()
	mustDone(t, j)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if n := srv.jobs.Len(); n != 0 && time.Since(j.Touched) < minTTR {
		t.Errorf("%d jobs known after the end of the only one", n)
	}
}
