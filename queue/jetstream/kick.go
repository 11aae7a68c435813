package jetstream

import (
	"bytes"
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

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
	if _, err := q.storeOnce(ctx, cn, again); err != nil {
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
