package jetstream

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// maxReason bounds the reason kept with a buried job, in bytes. Quoted it may be
// four times as long, and must fit in headerRoom with the other headers.
const maxReason = 3 << 10

// Bury implements queue.Job: the job is copied to the stream of buried jobs,
// and when it is safe there, removed. After a crash in between it is served
// again, and burying it again replaces the copy.
func (j *job) Bury(ctx context.Context, reason string) error {
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
	if err := j.copyToBuried(ctx, reason); err != nil {
		j.end(stateSettled) // it comes back when its reservation ends
		return err
	}
	return j.finish(ctx, false)
}

func (j *job) copyToBuried(ctx context.Context, reason string) error {
	q := j.c.t.q
	put := putTime(j.header.Get(headerPut), j.d.stored)
	header := nats.Header{
		headerID:     {j.ID()},
		headerPut:    {strconv.FormatInt(put.UnixNano(), 10)},
		headerReason: {quoteReason(reason)},
	}
	for retry := minPause; ; retry = min(retry*2, maxPause) {
		cn, err := q.link.get(ctx, true)
		if err != nil {
			return err
		}
		_, err = q.store(ctx, cn, &nats.Msg{Subject: buriedSubject(j.c.t.name, j.ID()), Data: j.body, Header: header})
		if err == nil || errors.Is(err, queue.ErrRejected) || ctx.Err() != nil {
			return err
		}
		if err := q.sleep(ctx, retry); err != nil {
			return err
		}
	}
}

// quoteReason is a reason as a header can hold it: most are themselves, those
// that would be spoilt are quoted as in Go.
func quoteReason(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason-3] + "…"
	}
	q := strconv.Quote(s)
	if q == `"`+s+`"` && s == strings.TrimSpace(s) {
		return s
	}
	return q
}

func unquoteReason(s string) string {
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s
}
