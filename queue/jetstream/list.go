package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// Tubes implements queue.Admin.
func (q *client) Tubes(ctx context.Context) ([]string, error) {
	cn, err := q.link.get(ctx, untilTried)
	if err != nil {
		return nil, err
	}
	tubes := make(map[string]bool)
	for _, stream := range []string{jobsStream, buriedStream} {
		err := q.eachSubject(ctx, cn, stream, ">", func(subject string) error {
			tubes[tubeOf(subject)] = true
			return nil
		})
		if err != nil {
			return nil, adminError(ctx, err)
		}
	}
	delete(tubes, "")
	return slices.Sorted(maps.Keys(tubes)), nil
}

// listedAtOnce is how many jobs List hands out together.
const listedAtOnce = 32

// List implements queue.Admin. Jobs that died with their daemon or wait for another
// try are among the delayed ones, once nobody asks for the tube's jobs any more: the
// server serves them when their time is over, and tells nobody when that is. Their
// Delay is 0.
func (q *client) List(ctx context.Context, tube string, state queue.State, f func([]queue.StoredJob) error) error {
	cn, err := q.reach(ctx, tube)
	if err != nil {
		return err
	}
	if state == queue.Buried {
		return q.walk(ctx, cn, buriedStream, buriedSubject(tube, "*"), f)
	}
	if err := q.walk(ctx, cn, jobsStream, schedSubject(tube, "*"), f); err != nil {
		return err
	}
	if left, err := q.abandoned(ctx, cn, tube); !left || err != nil {
		return err
	}
	return q.walk(ctx, cn, jobsStream, jobSubject(tube), f)
}

// walk lists the jobs of a stream whose subject matches.
func (q *client) walk(ctx context.Context, cn *conn, stream, pattern string, f func([]queue.StoredJob) error) error {
	s, err := cn.js.Stream(ctx, stream)
	if err != nil {
		return adminError(ctx, err)
	}
	q.expectLarge()
	var jobs []queue.StoredJob
	for m, err := range messages(ctx, s, pattern) {
		if err != nil {
			return adminError(ctx, err)
		}
		j := q.storedJob(s, m)
		if j.Fault == nil && j.Delay < queue.Soon && strings.HasPrefix(m.Subject, schedPrefix) {
			continue // it becomes ready by itself
		}
		if jobs = append(jobs, j); len(jobs) == listedAtOnce {
			if err := f(jobs); err != nil {
				return err
			}
			jobs = nil
		}
	}
	if len(jobs) == 0 {
		return nil
	}
	return f(jobs)
}

// storedJob is a message as a job. Schedules of other kinds than ours (@at) are
// somebody else's who may publish here.
func (q *client) storedJob(s jetstream.Stream, m *jetstream.RawStreamMsg) queue.StoredJob {
	j := queue.StoredJob{
		ID: idOf(m.Header, s.CachedInfo().Created.UnixMilli(), m.Sequence), Body: m.Data,
		Age: max(time.Since(putTime(m.Header, m.Time.UnixNano())), 0),
		Delete: func() error {
			q.calls.changes.Add(1)
			return deleteMsg(s, m.Sequence, q.opts.timeout)
		},
	}
	switch {
	case strings.HasPrefix(m.Subject, buriedPrefix):
		j.ID = m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	case strings.HasPrefix(m.Subject, schedPrefix):
		at, ok := strings.CutPrefix(m.Header.Get(jsSchedule), "@at ")
		due, err := time.Parse(time.RFC3339Nano, at)
		if !ok || err != nil {
			j.Fault = fmt.Errorf("jetstream: the schedule %.40q is no job's: %w", m.Header.Get(jsSchedule), queue.ErrRejected)
			break
		}
		j.Delay = time.Until(due)
	}
	return j
}

// deleteMsg removes a message. One that is gone is no error: a schedule that
// fired meanwhile, a job that was kicked.
func deleteMsg(s jetstream.Stream, seq uint64, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := s.DeleteMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		if _, gone := s.GetMsg(ctx, seq); errors.Is(gone, jetstream.ErrMsgNotFound) {
			return nil
		}
	}
	return adminError(ctx, err)
}

// unattended is how long nobody may have asked for a tube's jobs before those
// that are held count as abandoned. A daemon asks whenever it has room.
const unattended = time.Second

// abandoned says whether the tube has jobs that are held, or were, by somebody
// who is gone.
func (q *client) abandoned(ctx context.Context, cn *conn, tube string) (bool, error) {
	for end := time.Now().Add(unattended); ; {
		c, err := cn.js.Consumer(ctx, jobsStream, durable(tube))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false, nil // what there is is ready
		}
		if err != nil {
			return false, adminError(ctx, err)
		}
		info := c.CachedInfo()
		if info.NumPending > 0 || info.NumAckPending == 0 || info.NumWaiting > 0 {
			return false, nil
		}
		if time.Now().After(end) {
			return true, nil
		}
		if err := q.sleep(ctx, unattended/10); err != nil {
			return false, err
		}
	}
}
