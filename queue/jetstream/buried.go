package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

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
// nothing. queue.ErrBusy: it was kicked meanwhile, and is buried anew.
func (q *client) remove(ctx context.Context, s jetstream.Stream, tube, id string, seq uint64) error {
	err := s.DeleteMsg(ctx, seq)
	q.calls.changes.Add(1)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		_, m, perr := peek(ctx, s, tube, id)
		switch {
		case errors.Is(perr, queue.ErrNotFound):
			return perr
		case perr == nil && m.Sequence != seq:
			return fmt.Errorf("jetstream: tube %q: job %s: buried anew: %w", tube, id, queue.ErrBusy)
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
