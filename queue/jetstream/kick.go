package jetstream

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// Kick implements queue.Admin. The job keeps its id. A kick that is repeated
// because its answer was lost puts the job once.
func (q *client) Kick(ctx context.Context, tube, id string) error {
	for {
		err := q.kick(ctx, tube, id)
		if !isInProcess(err) {
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
	put := putTime(m.Header.Get(headerPut), m.Time.UnixNano())
	again := &nats.Msg{Subject: q.backSubject(tube), Data: m.Data, Header: nats.Header{
		headerID:     {b.ID},
		headerPut:    {strconv.FormatInt(put.UnixNano(), 10)},
		headerKicked: {"1"},
		jsMsgID:      {onceID("kick", m)},
	}}
	if err := q.storeOnce(ctx, cn, again); err != nil {
		return adminError(ctx, err)
	}
	err = q.remove(ctx, s, tube, b.ID, m.Sequence)
	if errors.Is(err, queue.ErrBusy) {
		return nil // it has been served and buried since
	}
	return err
}

// storeOnce stores a job that has a Nats-Msg-Id. What the stream calls a
// duplicate is stored if it is this job, or is gone, because it was done: no
// other has that Nats-Msg-Id, unless somebody has made it up.
func (q *client) storeOnce(ctx context.Context, cn *conn, m *nats.Msg) error {
	a, err := q.request(ctx, cn, m)
	seq, err := q.sequence(a, err)
	if err != nil || !bytes.Contains(a.Data, []byte(`"duplicate"`)) {
		return err
	}
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return err
	}
	first, err := s.GetMsg(ctx, seq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil
	case err != nil:
		return err
	case first.Subject == m.Subject && first.Header.Get(headerID) == m.Header.Get(headerID) && bytes.Equal(first.Data, m.Data):
		return nil
	}
	m.Header.Set(jsMsgID, newID())
	_, err = q.store(ctx, cn, m)
	return err
}
