package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/internal/backoff"
	"propeller/queue"
)

// A message that somebody publishes on the subject of schedules without the header that makes
// it one is stored and never becomes due. It is put into its tube with a header that has the
// worker bury it.

// maxSchedules is how many schedules are looked at in a row: each takes a question. Those that
// are more wait for the next time.
const maxSchedules = 1000

var errUnscheduled = fmt.Errorf("jetstream: it was published on %sTUBE.ID without a %s header, so that it never became due: publish jobs for now on %sTUBE",
	schedPrefix, jsSchedule, jobPrefix)

// Fault implements queue.FaultReporter.
func (j *job) Fault() error {
	if j.header.Get(headerUnscheduled) == "" {
		return nil
	}
	return errUnscheduled
}

// watchSchedules looks at what is new among the schedules, until the queue is closed.
func (q *client) watchSchedules() {
	seen := seenSchedules{next: 1}
	for q.sleep(q.ctx, backoff.Jitter(q.opts.lookEvery)) == nil {
		cn, _, _, err := q.link.ready()
		if err != nil {
			continue
		}
		if err := q.moveUnscheduled(cn, &seen); err != nil && q.ctx.Err() == nil && !leaderless(err) && !errors.Is(err, queue.ErrUnavailable) {
			q.opts.Log.Warn("queue: cannot look for jobs without a schedule", "queue", q.opts.String(), "err", err)
		}
	}
}

// seenSchedules is up to where the schedules of a stream were looked at.
type seenSchedules struct {
	made time.Time
	next uint64
}

func (q *client) moveUnscheduled(cn *conn, seen *seenSchedules) error {
	ctx, cancel := context.WithTimeout(q.ctx, orphansTime)
	defer cancel()
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return err
	}
	info := s.CachedInfo()
	if !info.Created.Equal(seen.made) {
		*seen = seenSchedules{info.Created, 1}
	}
	if seen.next > info.State.LastSeq {
		return nil // nothing is new
	}
	for range maxSchedules {
		m, err := s.GetMsg(ctx, seen.next, jetstream.WithGetMsgSubject(schedPrefix+">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			seen.next = info.State.LastSeq + 1
			return nil
		}
		if err != nil {
			return err
		}
		if m.Header.Get(jsSchedule) == "" {
			if err := q.moveOne(ctx, cn, s, m); err != nil {
				return err
			}
		}
		seen.next = m.Sequence + 1
	}
	return nil
}

// moveOne puts a message into its tube, to be buried there.
func (q *client) moveOne(ctx context.Context, cn *conn, s jetstream.Stream, m *jetstream.RawStreamMsg) error {
	tube := strings.TrimPrefix(m.Subject, schedPrefix)
	if q.tube(tube) == nil { // else the id is missing, too
		tube = tubeOf(m.Subject)
	}
	if queue.CheckTube(tube) != nil {
		q.opts.Log.Warn("a message without a schedule or a valid tube name stays on the subject of schedules", "queue", q.opts.String(), "subject", fmt.Sprintf("%.200s", m.Subject))
		return nil
	}
	moved := q.again("unscheduled", tube, seqID(s.CachedInfo().Created.UnixMilli(), m.Sequence), m)
	moved.Header.Set(headerUnscheduled, "1")
	if _, err := q.storeOnce(ctx, cn, moved); err != nil {
		return err
	}
	q.calls.changes.Add(1)
	return deleteMsg(s, m.Sequence, q.opts.timeout)
}
