package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
	"propeller/queue/lease"
)

// A server that could not write once removes nothing until it is started again
// (nats-server: filestore.go, removeMsg), but takes every word that a job is
// finished: its consumers are done with jobs that the stream still has. The new
// server serves them to nobody, and a daemon that runs on does not start. So an
// embedded queue looks for such jobs as long as it runs: a job that its tube's
// consumer was done with some time ago, and that is still there, stays for ever.
//
// A server that is killed may have written that a consumer is done with a job, and
// not yet that the job is gone. So they are looked for at the start, too, before any
// job is served. A cluster's servers do so by themselves (nats-server: stream.go,
// checkInterestState).
//
// Who finished it was told that it is gone, be it a program beside the daemon. Those
// that this process finished are known for a while and are removed; the rest runs
// again, because what the consumer knows may be wrong, and counts as possible duplicates.

const (
	// orphansEvery is how often left jobs are looked for. That takes a question, or,
	// while there are jobs, one for each tube that has some and for each 256 of all
	// tubes.
	orphansEvery = time.Minute
	// orphansSettle is the same after a new server was started, and far more than
	// passes between a consumer's being done with a job and the job's removal.
	orphansSettle = 5 * time.Second

	// orphansTime bounds the search for left jobs: it takes a question for each tube,
	// some 50 µs, and two more for each job.
	orphansTime = time.Minute
)

// ackFloors are the numbers up to which the consumers of those tubes that have jobs
// are done, by subject.
type ackFloors struct {
	made      time.Time // the stream
	bySubject map[string]uint64
}

// upTo is how far a tube's consumer was done at both times.
func (f *ackFloors) upTo(subject string, now *ackFloors) uint64 {
	if !f.made.Equal(now.made) {
		return 0
	}
	return min(f.bySubject[subject], now.bySubject[subject])
}

// watchOrphans puts jobs again that their consumers have left behind, until the queue
// is closed.
func (q *client) watchOrphans() {
	last := &ackFloors{}
	timer := time.NewTimer(orphansEvery)
	defer timer.Stop()
	for soon := 0; ; {
		select {
		case <-q.ctx.Done():
			return
		case <-q.embedded.restarted:
			soon = 2               // one to see how far the consumers are
			_ = q.removeFinished() // lookForOrphans will see to the rest
		case <-timer.C:
			now, err := q.lookForOrphans(last)
			if err == nil {
				last, soon = now, max(soon-1, 0)
			} else if q.ctx.Err() == nil && !errors.Is(err, queue.ErrUnavailable) { // that is reported elsewhere
				q.opts.Log.Warn("queue: cannot look for jobs that the server no longer serves", "err", err)
			}
		}
		if soon > 0 {
			timer.Reset(orphansSettle)
		} else {
			timer.Reset(orphansEvery)
		}
	}
}

// lookForOrphans is recoverOrphans while the queue is at work.
func (q *client) lookForOrphans(last *ackFloors) (now *ackFloors, err error) {
	cn, _, _, err := q.link.ready()
	if err != nil {
		return nil, err
	}
	return q.recoverOrphans(q.ctx, cn, last)
}

// recoverOrphans puts those jobs again that are there though their consumers are done with
// them, and were the last time; nil: there was none. It returns how far they are now.
func (q *client) recoverOrphans(ctx context.Context, cn *conn, last *ackFloors) (now *ackFloors, err error) {
	ctx, cancel := context.WithTimeout(ctx, orphansTime)
	defer cancel()
	jobs, err := q.streamInfo(ctx, cn, jobsStream, jobPrefix+">", 0) // of 100,000 tubes, see Tubes
	if err != nil {
		return nil, err
	}
	now = &ackFloors{made: jobs.Created, bySubject: make(map[string]uint64)}
	if len(jobs.State.Subjects) == 0 {
		return now, nil
	}
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return nil, err
	}
	var again, removed int
	consumers := s.ListConsumers(ctx)
	for c := range consumers.Info() {
		subject, done := c.Config.FilterSubject, c.AckFloor.Stream
		if jobs.State.Subjects[subject] == 0 {
			continue
		}
		now.bySubject[subject] = done
		if last != nil {
			done = last.upTo(subject, now)
		}
		a, r, failed := q.recoverTubeOrphans(ctx, cn, s, subject, done)
		again, removed = again+a, removed+r
		if failed != nil {
			err = fmt.Errorf("consumer %s: %w", c.Name, failed)
		}
	}
	if again+removed > 0 {
		q.opts.Log.Warn("found jobs in the queue that its server no longer serves: they run again, and those known to be finished are removed",
			"queue", q.opts.String(), "jobs", again, "removed", removed)
	}
	return now, errors.Join(err, consumers.Err())
}

// recoverTubeOrphans puts those jobs of a tube again that its consumer is done with, up
// to a number. Those that this process has finished are removed instead.
func (q *client) recoverTubeOrphans(ctx context.Context, cn *conn, s jetstream.Stream, subject string, done uint64) (again, removed int, err error) {
	tube, ours := strings.CutPrefix(subject, jobPrefix)
	if done == 0 || !ours {
		return 0, 0, nil
	}
	for m, err := range messages(ctx, s, subject) {
		if err != nil || m.Sequence > done {
			return again, removed, err
		}
		held, finished := q.holds(tube, m)
		if held {
			continue
		}
		if !finished {
			birth := s.CachedInfo().Created.UnixMilli()
			id := idOf(m.Header, birth, m.Sequence)
			left := q.again("orphan", tube, id, m)
			left.Header.Set(headerLeft, "1")
			if _, err := q.storeOnce(ctx, cn, left); err != nil {
				return again, removed, err
			}
		}
		if err := deleteMsg(s, m.Sequence, q.opts.timeout); err != nil {
			return again, removed, err
		}
		if finished {
			removed++
		} else {
			again++
		}
	}
	return again, removed, nil
}

// holds says whether a stored job is in the hands of this process, or was
// finished by it.
func (q *client) holds(tube string, m *jetstream.RawStreamMsg) (held, finished bool) {
	stored := m.Time.UnixNano()
	if t := q.tube(tube); t != nil {
		t.mu.Lock()
		j := t.listedLocked(m.Sequence)
		known := j != nil && j.d.stored == stored
		held = known && j.State() != lease.Tombstone
		finished = known && !held
		t.mu.Unlock()
	}
	return held, finished || q.finished.has(numbered{m.Sequence, stored})
}
