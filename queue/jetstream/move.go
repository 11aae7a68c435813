package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

var _ queue.Mover = (*client)(nil)

// Tubes implements queue.Mover.
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

// Aside implements queue.Mover. Beside delayed and buried jobs there are those
// that died with their daemon or wait for another try: the server serves them
// when their time is over, and tells nobody when that is. They count as ready
// here, once nobody asks for the tube's jobs any more.
func (q *client) Aside(ctx context.Context, tube string, f func(queue.StoredJob) error) error {
	cn, err := q.reach(ctx, tube)
	if err != nil {
		return err
	}
	if err := q.walk(ctx, cn, jobsStream, schedSubject(tube, "*"), f); err != nil {
		return err
	}
	if err := q.walk(ctx, cn, buriedStream, buriedSubject(tube, "*"), f); err != nil {
		return err
	}
	if left, err := q.abandoned(ctx, cn, tube); !left || err != nil {
		return err
	}
	return q.walk(ctx, cn, jobsStream, jobSubject(tube), f)
}

// walkers is how many jobs of a walk are looked after at once.
const walkers = 32

// walk calls f for the jobs of a stream whose subject matches, several at a time,
// and removes them. An error that wraps queue.ErrRejected does not end it.
func (q *client) walk(ctx context.Context, cn *conn, stream, pattern string, f func(queue.StoredJob) error) error {
	s, err := cn.js.Stream(ctx, stream)
	if err != nil {
		return adminError(ctx, err)
	}
	q.expectLarge()
	birth := s.CachedInfo().Created.UnixMilli()
	return each(ctx, walkers, messages(ctx, s, pattern), func(m *jetstream.RawStreamMsg, err error) error {
		if err != nil {
			return adminError(ctx, err)
		}
		j, soon, err := stored(birth, m)
		if soon || err != nil {
			return err
		}
		switch err := f(j); {
		case errors.Is(err, queue.ErrRejected):
			return nil
		case err != nil:
			return err
		}
		return deleteMsg(s, m.Sequence, q.opts.timeout)
	})
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

// stored is a message as a job. soon: it becomes ready by itself. Schedules of other
// kinds than ours (@at) are somebody else's who may publish here: nothing can be
// done about them.
func stored(birth int64, m *jetstream.RawStreamMsg) (j queue.StoredJob, soon bool, err error) {
	j = queue.StoredJob{
		ID: idOf(m.Header, birth, m.Sequence), Body: m.Data,
		Age:    max(time.Since(putTime(m.Header, m.Time.UnixNano())), 0),
		Buried: strings.HasPrefix(m.Subject, buriedPrefix),
	}
	if j.Buried {
		j.ID = m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	}
	if !strings.HasPrefix(m.Subject, schedPrefix) {
		return j, false, nil
	}
	at, ok := strings.CutPrefix(m.Header.Get(jsSchedule), "@at ")
	due, err := time.Parse(time.RFC3339Nano, at)
	if !ok || err != nil {
		return j, false, fmt.Errorf("jetstream: %s: the message %d has the schedule %.40q, which is no job's", m.Subject, m.Sequence, m.Header.Get(jsSchedule))
	}
	j.Delay = time.Until(due)
	return j, j.Delay < queue.Soon, nil
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

// Restore implements queue.Mover. Priority is left out; the age is kept, but not
// how often the job was tried.
func (q *client) Restore(ctx context.Context, tube string, j queue.StoredJob) (string, error) {
	cn, err := q.reach(ctx, tube)
	if err != nil {
		return "", err
	}
	if j.Buried {
		j.Delay = 0
	}
	id, m, err := q.newPut(cn, tube, j.Body, queue.PutOptions{Delay: j.Delay})
	if err != nil {
		return "", err
	}
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	if j.Buried {
		id = newID()
		m.Subject = buriedSubject(tube, id)
		m.Header.Set(headerID, id)
	}
	m.Header.Set(headerPut, strconv.FormatInt(time.Now().Add(-j.Age).UnixNano(), 10))
	a, err := q.request(ctx, cn, m)
	return q.stored(ctx, tube, id, a, err)
}
