package jetstream

import (
	"bytes"
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

// buriedOf is the stream of buried jobs, for a request about a tube.
func (q *client) buriedOf(ctx context.Context, tube string) (*conn, jetstream.Stream, error) {
	cn, err := q.reach(ctx, tube)
	if err != nil {
		return nil, nil, err
	}
	q.expectLarge()
	s, err := cn.js.Stream(ctx, buriedStream)
	return cn, s, adminError(ctx, err)
}

// peek reads one buried job; the message is what the stream has.
func peek(ctx context.Context, s jetstream.Stream, tube, id string) (queue.StoredJob, *jetstream.RawStreamMsg, error) {
	m, err := s.GetLastMsgForSubject(ctx, buriedSubject(tube, id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return queue.StoredJob{}, nil, fmt.Errorf("jetstream: tube %q: job %s: %w", tube, id, queue.ErrNotFound)
	}
	if err != nil {
		return queue.StoredJob{}, nil, adminError(ctx, err)
	}
	put := putTime(m.Header, m.Time.UnixNano())
	return queue.StoredJob{ID: id, Body: m.Data, Age: max(time.Since(put), 0)}, m, nil
}

// find is peek for an operator's tube and id. A bare number may also be of a job
// that was put when ids were that, and buried since.
func (q *client) find(ctx context.Context, tube, id string) (cn *conn, s jetstream.Stream, b queue.StoredJob, m *jetstream.RawStreamMsg, err error) {
	if err = checkID(id); err != nil {
		return
	}
	if cn, s, err = q.buriedOf(ctx, tube); err != nil {
		return
	}
	b, m, err = peek(ctx, s, tube, id)
	if seq, perr := strconv.ParseUint(id, 10, 64); perr == nil && errors.Is(err, queue.ErrNotFound) {
		b, m, err = peek(ctx, s, tube, seqID(q.birth.Load(), seq))
	}
	return
}

// Peek implements queue.Admin.
func (q *client) Peek(ctx context.Context, tube, id string) (queue.StoredJob, error) {
	_, _, b, _, err := q.find(ctx, tube, id)
	return b, err
}

// Delete implements queue.Admin.
func (q *client) Delete(ctx context.Context, tube, id string) error {
	_, s, b, m, err := q.find(ctx, tube, id)
	if err != nil {
		return err
	}
	return q.remove(ctx, s, tube, b.ID, m.Sequence)
}

// remove deletes a buried job. Of two who do it at the same time one finds
// nothing. queue.ErrBusy: it was kicked meanwhile and buried again.
func (q *client) remove(ctx context.Context, s jetstream.Stream, tube, id string, seq uint64) error {
	err := s.DeleteMsg(ctx, seq)
	q.calls.changes.Add(1)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		_, m, perr := peek(ctx, s, tube, id)
		switch {
		case errors.Is(perr, queue.ErrNotFound):
			return perr
		case perr == nil && m.Sequence != seq:
			return fmt.Errorf("jetstream: tube %q: job %s: buried again meanwhile: %w", tube, id, queue.ErrBusy)
		}
	}
	return adminError(ctx, err)
}

// adminError is an error of an operator's request.
func adminError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, queue.ErrUnavailable), errors.Is(err, queue.ErrRejected):
		return err
	}
	return unavailable(err)
}

// Kick implements queue.Admin. The job gets a new number, with its id as a label. A kick
// that is repeated because its answer was lost puts the job once.
func (q *client) Kick(ctx context.Context, tube, id string) error {
	for {
		err := q.kick(ctx, tube, id)
		if codeOf(err) != errCodeInProcess {
			return err
		}
		// Somebody else is kicking it.
		if err := q.sleep(ctx, minPause); err != nil {
			return err
		}
	}
}

func (q *client) kick(ctx context.Context, tube, id string) error {
	cn, s, b, m, err := q.find(ctx, tube, id)
	if err != nil {
		return err
	}
	label := b.ID
	if id := m.Header.Get(headerID); jobID.MatchString(id) {
		label = id
	}
	again := q.again("kick", tube, label, m)
	again.Header.Set(headerKicked, "1")
	_, err = q.storeOnce(ctx, cn, again)
	if !refused(err) && !notDone(err) { // it is there, or may be
		q.woken(tube)
	}
	if err != nil {
		return adminError(ctx, err)
	}
	err = q.remove(ctx, s, tube, b.ID, m.Sequence)
	if errors.Is(err, queue.ErrBusy) {
		return nil // it has been served and buried since
	}
	return err
}

// again is the message that puts a stored job once more, under its id and with its
// age. why tells apart what may be done with it, each of which is done once.
func (q *client) again(why, tube, id string, m *jetstream.RawStreamMsg) *nats.Msg {
	h := past(id, putTime(m.Header, m.Time.UnixNano()))
	once := onceID(why, m)
	h.Set(jsMsgID, once)
	q.labels.note(once, id) // before it can be served
	for _, name := range [...]string{headerKicked, headerLeft} {
		if v := m.Header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	return &nats.Msg{Subject: q.backSubject(tube), Data: m.Data, Header: h}
}

// storeOnce stores a job that has a Nats-Msg-Id. What the stream calls a
// duplicate is stored if it is this job, or is gone, because it was done: no
// other has that Nats-Msg-Id, unless somebody has made it up.
func (q *client) storeOnce(ctx context.Context, cn *conn, m *nats.Msg) (seq uint64, err error) {
	a, err := q.request(ctx, cn, m)
	seq, err = q.sequence(a, err)
	if err != nil || !bytes.Contains(a.Data, []byte(`"duplicate"`)) {
		return seq, err
	}
	q.expectLarge()
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return 0, err
	}
	first, err := s.GetMsg(ctx, seq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return seq, nil
	case err != nil:
		return 0, err
	case first.Subject == m.Subject && first.Header.Get(headerID) == m.Header.Get(headerID) && bytes.Equal(first.Data, m.Data):
		return seq, nil
	}
	m.Header.Set(jsMsgID, newID())
	return q.store(ctx, cn, m)
}

// Tubes implements queue.Admin.
func (q *client) Tubes(ctx context.Context) ([]string, error) {
	cn, err := q.link.get(ctx, untilTried)
	if err != nil {
		return nil, err
	}
	tubes := make(map[string]bool)
	for _, stream := range []string{jobsStream, buriedStream} {
		err := q.eachSubject(ctx, cn, stream, ">", func(subject string, _ int) error {
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
// try are among the delayed ones once no consumer asks for the tube's jobs any more: the
// server serves them when their AckWait or delay is over, and does not say when that is. Their
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
