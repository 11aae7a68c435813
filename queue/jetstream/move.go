package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"propeller/queue"
)

var _ queue.Mover = (*client)(nil)

// Tubes implements queue.Mover.
func (q *client) Tubes(ctx context.Context) ([]string, error) {
	cn, err := q.link.get(ctx, false)
	if err != nil {
		return nil, err
	}
	tubes := make(map[string]bool)
	for _, kind := range []struct {
		stream, prefix string
		numbered       bool // an id follows the tube's name
	}{
		{jobsStream, jobPrefix, false}, {jobsStream, schedPrefix, true}, {buriedStream, buriedPrefix, true},
	} {
		for offset := 0; ; {
			info, err := q.streamInfo(ctx, cn, kind.stream, kind.prefix+">", offset)
			if err != nil {
				return nil, adminError(ctx, err)
			}
			for subject := range info.State.Subjects {
				name := strings.TrimPrefix(subject, kind.prefix)
				if i := strings.LastIndexByte(name, '.'); kind.numbered && i >= 0 {
					name = name[:i]
				}
				tubes[name] = true
			}
			// The server lists up to 100,000 at a time (nats-server: JSMaxSubjectDetails).
			if offset += len(info.State.Subjects); offset >= info.Total || len(info.State.Subjects) == 0 {
				break
			}
		}
	}
	return slices.Sorted(maps.Keys(tubes)), nil
}

// Aside implements queue.Mover. Beside delayed and buried jobs there are those
// that died with their daemon or wait for another try: the server serves them
// when their time is over, and tells nobody when that is. They count as ready
// here, once nobody asks for the tube's jobs any more.
func (q *client) Aside(ctx context.Context, tube string, f func(queue.StoredJob) error) error {
	if err := queue.CheckTube(tube); err != nil {
		return err
	}
	cn, err := q.link.get(ctx, false)
	if err != nil {
		return err
	}
	walks := []struct {
		stream, pattern string
		job             func(string, queue.StoredJob, *jetstream.RawStreamMsg) (_ queue.StoredJob, skip bool, err error)
	}{
		{jobsStream, schedSubject(tube, "*"), scheduledJob},
		{buriedStream, buriedSubject(tube, "*"), buriedJob},
		{jobsStream, jobSubject(tube), readyJob},
	}
	for _, w := range walks {
		if w.pattern == jobSubject(tube) {
			if left, err := q.abandoned(ctx, cn, tube); !left || err != nil {
				return err
			}
		}
		s, err := cn.js.Stream(ctx, w.stream)
		if err != nil {
			return adminError(ctx, err)
		}
		one := func(m *jetstream.RawStreamMsg) error {
			j, skip, err := w.job(tube, stored(birthOf(s.CachedInfo()), m), m)
			if skip || err != nil {
				return err
			}
			if err := f(j); err != nil {
				return err
			}
			return deleteMsg(s, m.Sequence, q.opts.Timeout)
		}
		if err := walk(ctx, s, w.pattern, one); err != nil {
			return err
		}
	}
	return nil
}

// walkers is how many jobs of a walk are looked after at once.
const walkers = 32

// walk calls f for the messages of a stream whose subject matches, several at a
// time. An error that wraps queue.ErrRejected does not end it.
func walk(ctx context.Context, s jetstream.Stream, pattern string, f func(*jetstream.RawStreamMsg) error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	places, failed := make(chan struct{}, walkers), make(chan error, 1)
	for seq := uint64(1); ; seq++ {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(pattern))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			wg.Wait()
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		}
		if err != nil {
			return adminError(ctx, err)
		}
		seq = m.Sequence
		select {
		case places <- struct{}{}:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		wg.Go(func() {
			defer func() { <-places }()
			if err := f(m); err != nil && !errors.Is(err, queue.ErrRejected) {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
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

// stored is a message as a job, its id as Job.ID has it.
func stored(birth int64, m *jetstream.RawStreamMsg) queue.StoredJob {
	id := m.Header.Get(headerID)
	if id == "" {
		id = seqID(birth, m.Sequence)
	}
	put := putTime(m.Header.Get(headerPut), m.Time.UnixNano())
	return queue.StoredJob{ID: id, Body: m.Data, Age: max(time.Since(put), 0)}
}

func readyJob(_ string, j queue.StoredJob, _ *jetstream.RawStreamMsg) (queue.StoredJob, bool, error) {
	return j, false, nil
}

func buriedJob(_ string, j queue.StoredJob, _ *jetstream.RawStreamMsg) (queue.StoredJob, bool, error) {
	j.Buried = true
	return j, false, nil
}

// scheduledJob skips what is due soon. Schedules of other kinds than ours (@at)
// are somebody else's who may publish here: nothing can be done about them.
func scheduledJob(tube string, j queue.StoredJob, m *jetstream.RawStreamMsg) (queue.StoredJob, bool, error) {
	at, ok := strings.CutPrefix(m.Header.Get(jsSchedule), "@at ")
	due, err := time.Parse(time.RFC3339Nano, at)
	if !ok || err != nil {
		return j, false, fmt.Errorf("jetstream: tube %q: the message %d has the schedule %.40q, which is no job's", tube, m.Sequence, m.Header.Get(jsSchedule))
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
	if err := queue.CheckTube(tube); err != nil {
		return "", err
	}
	cn, err := q.link.get(ctx, false)
	if err != nil {
		return "", err
	}
	if limit := maxBody(cn.nc.MaxPayload()); len(j.Body) > limit {
		return "", fmt.Errorf("jetstream: job %s of %q: %d bytes, at most %d: %w", j.ID, tube, len(j.Body), limit, queue.ErrRejected)
	}
	id, m := restoreMsg(tube, j, time.Now())
	seq, err := q.store(ctx, cn, m)
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("jetstream: put in %q: %w", tube, err)
	}
	if id == "" {
		id = seqID(q.birth.Load(), seq)
	}
	return id, nil
}

// restoreMsg is putMsg for a job that has a past.
func restoreMsg(tube string, j queue.StoredJob, now time.Time) (id string, m *nats.Msg) {
	delay := j.Delay
	if j.Buried {
		delay = 0
	}
	id, m = putMsg(tube, j.Body, queue.PutOptions{Delay: delay}, now)
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	if j.Buried {
		id = newID()
		m.Subject = buriedSubject(tube, id)
		m.Header.Set(headerID, id)
	}
	m.Header.Set(headerPut, strconv.FormatInt(now.Add(-j.Age).UnixNano(), 10))
	return id, m
}

// newID is an id for a job that the stream does not number.
func newID() string { return "d" + nuid.Next() }
