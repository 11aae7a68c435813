package jetstream

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// Bury implements queue.Job: the job is copied to the stream of buried jobs,
// and when it is safe there, removed. After a crash in between it is served
// again, and burying it again replaces the copy.
func (j *job) Bury(ctx context.Context, body []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	expired, err := j.begin(time.Now())
	if err != nil {
		return err
	}
	if expired { // somebody else may be at it
		j.end(stateSettled)
		return j.lost()
	}
	if body == nil {
		body = j.body
	}
	if err := j.copyToBuried(ctx, body); err != nil {
		j.end(stateSettled) // it comes back when its reservation ends
		return err
	}
	return j.finish(ctx, false)
}

func (j *job) copyToBuried(ctx context.Context, body []byte) error {
	q := j.c.t.q
	put := putTime(j.header.Get(headerPut), j.d.stored)
	header := nats.Header{
		headerID:  {j.ID()},
		headerPut: {strconv.FormatInt(put.UnixNano(), 10)},
	}
	for retry := minPause; ; retry = min(retry*2, maxPause) {
		cn, err := q.link.get(ctx, true)
		if err != nil {
			return err
		}
		_, err = q.store(ctx, cn, &nats.Msg{Subject: buriedSubject(j.c.t.name, j.ID()), Data: body, Header: header})
		if err == nil || errors.Is(err, queue.ErrRejected) || ctx.Err() != nil {
			return err
		}
		if err := q.sleep(ctx, retry); err != nil {
			return err
		}
	}
}
