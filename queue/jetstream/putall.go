package jetstream

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

var _ queue.ManyPutter = (*client)(nil)

// PutAll implements queue.ManyPutter: it publishes all jobs and then waits for
// the stream's word about each, without a goroutine for each to be woken.
func (q *client) PutAll(ctx context.Context, jobs []queue.NewJob) []queue.Stored {
	out := make([]queue.Stored, len(jobs))
	if len(jobs) == 0 {
		return out
	}
	cn, err := q.link.get(ctx, untilTried)
	b := &batch{puts: make([]batched, len(jobs)), all: make(chan struct{})}
	b.open.Store(int64(len(jobs)))
	until := time.Now().Add(q.opts.timeout)
	for i := range jobs {
		p := &b.puts[i]
		p.b = b
		if fault := cmp.Or(queue.CheckTube(jobs[i].Tube), ctx.Err(), err); fault != nil {
			p.done(nil, fault)
			continue
		}
		q.send(cn, p, &jobs[i], until)
	}
	select {
	case <-b.all:
	case <-ctx.Done():
		q.giveUp(b, ctx.Err())
	}
	for i := range out {
		p := &b.puts[i]
		out[i].ID, out[i].Err = p.id, p.err
		if p.sent {
			out[i].ID, out[i].Err = q.stored(ctx, jobs[i].Tube, p.id, p.answer, p.err)
		}
	}
	return out
}

// batch are puts that are under way together.
type batch struct {
	puts []batched
	open atomic.Int64  // puts without an answer
	all  chan struct{} // closed when there is none
}

// batched is one of them.
type batched struct {
	b    *batch
	id   string // of a delayed job
	sent bool
	call uint64 // if it was sent

	answer *nats.Msg // or
	err    error
}

// done takes the put's answer, once.
func (p *batched) done(m *nats.Msg, err error) {
	p.answer, p.err = m, err
	if p.b.open.Add(-1) == 0 {
		close(p.b.all)
	}
}

// send publishes one job.
func (q *client) send(cn *conn, p *batched, j *queue.NewJob, until time.Time) {
	id, m, err := q.newPut(cn, j.Tube, j.Body, j.PutOptions)
	if err != nil {
		p.done(nil, err)
		return
	}
	p.id, p.sent = id, true
	p.call, m.Reply = q.calls.start(&call{until: until, done: p.done})
	if err := cn.publish(m); err != nil && q.calls.end(p.call) != nil {
		p.done(nil, err)
	}
}

// giveUp ends what has no answer yet, and waits for answers that are just being
// taken.
func (q *client) giveUp(b *batch, err error) {
	for i := range b.puts {
		if p := &b.puts[i]; p.sent && q.calls.end(p.call) != nil {
			p.done(nil, err)
		}
	}
	<-b.all
}
