package jetstream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"propeller/queue/lease"
)

// Bury implements queue.Job: the job is copied to the stream of buried jobs, with
// the body that is given, and when it is safe there, removed. It is kept under its
// number there, so that it overwrites no other, and keeps its age. After a crash in
// between it is served again, and burying it again replaces the copy; so it does when an
// answer is lost.
func (j *job) Bury(ctx context.Context, body []byte) error {
	expired, err := j.begin(ctx)
	if err != nil {
		return err
	}
	if expired { // somebody else may be at it
		j.end(lease.Settled)
		return j.lost()
	}
	err = j.copyToBuried(ctx, body)
	switch {
	case err == nil:
		j.buried.Store(true)
		return j.finish(ctx, false)
	case ctx.Err() != nil || j.c.t.q.ctx.Err() != nil:
		j.end(lease.Settled) // it comes back when its reservation ends
		return err
	}
	j.end(lease.Reserved)
	return fmt.Errorf("jetstream: job %s: not buried: %w", j.ID(), inner(err))
}

// maxSilent is how often a server that is there may leave a burial unanswered
// before it counts as refused: one whose disk is full does so until somebody
// mends it.
const maxSilent = 2

// copyToBuried waits for a server that is away, not for one that refuses.
func (j *job) copyToBuried(ctx context.Context, body []byte) error {
	q := j.c.t.q
	silent := 0
	for retry := minPause; ; retry = min(retry*2, maxPause) {
		cn, err := q.link.get(ctx, untilFull)
		if err != nil {
			return err
		}
		m, err := j.buriedMsg(cn, body)
		if err != nil {
			return err
		}
		_, err = q.store(ctx, cn, m)
		if errors.Is(err, errNoAnswer) {
			silent++
		}
		if err == nil || refused(err) || ctx.Err() != nil || silent == maxSilent {
			return err
		}
		if err := q.sleep(ctx, retry); err != nil {
			return err
		}
	}
}

// buriedMsg is the message that buries the job. A body that is as large as one
// that is put leaves room for headers, and can be moved to another queue.
func (j *job) buriedMsg(cn *conn, body []byte) (*nats.Msg, error) {
	if body == nil {
		body = j.body
	} else if err := cn.fits(body); err != nil {
		return nil, err
	}
	return &nats.Msg{Subject: buriedSubject(j.c.t.name, j.key()), Data: body, Header: past(j.ID(), putTime(j.header, j.d.stored))}, nil
}
