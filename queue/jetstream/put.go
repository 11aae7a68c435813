package jetstream

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// headerRoom is kept free in a message for the headers that a delayed or buried
// job gets: a body that can be put can be buried.
const headerRoom = 16 << 10

// maxBody is the largest body in bytes for a server with the given
// max_payload.
func maxBody(maxPayload int64) int { return int(maxPayload) - headerRoom }

// Put implements queue.Queue. It waits until the stream has stored the job: on
// a cluster, on most of its replicas.
func (q *client) Put(ctx context.Context, tube string, body []byte, o queue.PutOptions) (string, error) {
	cn, err := q.reach(ctx, tube)
	if err != nil {
		return "", err
	}
	id, m, err := q.newPut(cn, tube, body, o)
	if err != nil {
		return "", err
	}
	a, err := q.request(ctx, cn, m)
	return q.stored(ctx, tube, id, o, a, err)
}

// reach is the connection for a request about a tube.
func (q *client) reach(ctx context.Context, tube string) (*conn, error) {
	if err := cmp.Or(queue.CheckTube(tube), ctx.Err()); err != nil {
		return nil, err
	}
	return q.link.get(ctx, untilTried)
}

// fits says why the server takes no job with such a body.
func (cn *conn) fits(body []byte) error {
	if limit := maxBody(cn.nc.MaxPayload()); len(body) > limit {
		return fmt.Errorf("%d bytes, at most %d: %w", len(body), limit, queue.ErrRejected)
	}
	return nil
}

// newPut is putMsg for a body of a size that the server takes, if there is room.
func (q *client) newPut(cn *conn, tube string, body []byte, o queue.PutOptions) (id string, m *nats.Msg, err error) {
	if err := cn.fits(body); err != nil {
		return "", nil, fmt.Errorf("jetstream: put in %q: %w", tube, inner(err))
	}
	id, m = putMsg(tube, body, o, time.Now())
	if q.embedded != nil {
		if err := q.embedded.capacity.refuses(len(body), o.Settling); err != nil {
			return "", nil, fmt.Errorf("jetstream: put in %q: %w", tube, inner(err))
		}
		m.Subject = q.embedded.capacity.subjectFor(m.Subject, o.Settling)
	}
	return id, m, nil
}

// stored is what becomes of a put that the stream has answered with a, or that
// failed with err. id is of a delayed or buried job.
func (q *client) stored(ctx context.Context, tube, id string, o queue.PutOptions, a *nats.Msg, err error) (string, error) {
	seq, err := q.sequence(a, err)
	uncertain := err != nil && !refused(err) && !notDone(err)
	if uncertain {
		err = fmt.Errorf("%w: %w", queue.ErrUncertain, err)
	}
	if (err == nil || uncertain) && o.Delay <= 0 && !o.Buried {
		q.woken(tube)
	}
	switch {
	case err != nil && ctx.Err() != nil && !errors.Is(err, queue.ErrUncertain):
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("jetstream: put in %q: %w", tube, inner(err))
	case id == "":
		id = seqID(q.birth.Load(), seq)
	}
	return id, nil
}

// putMsg is the message that puts a job. A delayed one has an id of its own,
// because the stream gives it a new number when its time has come, and a buried one, because
// its id is part of its subject.
func putMsg(tube string, body []byte, o queue.PutOptions, now time.Time) (id string, m *nats.Msg) {
	m = &nats.Msg{Subject: jobSubject(tube), Data: body}
	if o.Delay <= 0 && !o.Buried {
		if o.Age > 0 {
			m.Header = nats.Header{headerPut: {strconv.FormatInt(now.Add(-o.Age).UnixNano(), 10)}}
		}
		return "", m
	}
	id = newID()
	m.Header = past(id, now.Add(-o.Age))
	if o.Buried {
		m.Subject = buriedSubject(tube, id)
		return id, m
	}
	// With its fraction: nats.go's own option cuts to whole seconds.
	m.Header.Set(jsSchedule, "@at "+now.Add(o.Delay).UTC().Format(time.RFC3339Nano))
	m.Header.Set(jsScheduleTarget, jobSubject(tube))
	m.Subject = schedSubject(tube, id)
	return id, m
}

// Headers of JetStream (nats-server: stream.go).
const (
	jsSchedule       = "Nats-Schedule"
	jsScheduleTarget = "Nats-Schedule-Target"
	jsMsgID          = "Nats-Msg-Id"
)

// store publishes m and waits for the stream's word that it has it.
func (q *client) store(ctx context.Context, cn *conn, m *nats.Msg) (seq uint64, err error) {
	a, err := q.request(ctx, cn, m)
	if err == errNoResponders && strings.HasPrefix(m.Subject, buriedPrefix) {
		q.link.look() // only burials wait for that stream
		return 0, err
	}
	return q.sequence(a, err)
}

// sequence reads the answer to a request that publishes.
func (q *client) sequence(a *nats.Msg, err error) (uint64, error) {
	if err != nil {
		if err == errNoResponders {
			q.link.suspect(err)
		}
		return 0, err
	}
	return parsePubAck(a.Data)
}

// parsePubAck reads {"stream":"…","seq":N} or an error of the stream.
func parsePubAck(data []byte) (uint64, error) {
	// The common answer by hand: encoding/json would be a tenth of a put.
	if _, rest, ok := bytes.Cut(data, []byte(`"seq":`)); ok && !bytes.Contains(data, []byte(`"error"`)) {
		end := bytes.IndexAny(rest, ",} ")
		if end > 0 {
			if seq, err := strconv.ParseUint(string(rest[:end]), 10, 64); err == nil && seq > 0 {
				return seq, nil
			}
		}
	}
	var ack struct {
		Seq   uint64    `json:"seq"`
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, fmt.Errorf("answer %.80q: %w: %w", data, queue.ErrUnavailable, err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Seq == 0 {
		return 0, fmt.Errorf("answer %.80q: no sequence number: %w", data, queue.ErrUnavailable)
	}
	return ack.Seq, nil
}

// apiError is an error as JetStream's answers have it.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// Error codes (nats-server: errors.json).
const (
	errCodeTooLarge    = 10054 // the message exceeds the stream's own limit
	errCodeInProcess   = 10158 // the same Nats-Msg-Id is being stored right now
	errCodeAccountFull = 10002 // the account stores as much as it may
	errCodeNoRoom      = 10023 // the server does, or an embedded one will soon
	errCodeNoStorage   = 10047

	errCodeNotAvailable     = 10008 // JetStream system temporarily unavailable
	errCodeNoLeader         = 10009 // the server knows of no leader that could answer
	errCodeOffline          = 10118 // no server that has a copy of the stream is there
	errCodeTooManyConsumers = 10026 // for the stream
)

// codeOf is the server's code for an error, ours or nats.go's; 0 for none.
func codeOf(err error) int {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e.ErrCode
	}
	if e, ok := errors.AsType[jetstream.JetStreamError](err); ok && e.APIError() != nil {
		return int(e.APIError().ErrorCode)
	}
	return 0
}

func (e *apiError) Error() string {
	text := fmt.Sprintf("%s (%d)", e.Description, e.ErrCode)
	switch e.ErrCode {
	case errCodeAccountFull:
		text += ": the storage of the queue's account is full: finish or delete jobs, or raise its max_file"
	case errCodeNoStorage:
		text += ": the storage of the queue's servers is full: finish or delete jobs, or raise their max_file"
	}
	return text
}

// Unwrap says whether waiting can help. It nearly always can: full storage
// empties when jobs are done, and the rest is for an operator to repair.
func (e *apiError) Unwrap() error {
	switch e.ErrCode {
	case errCodeTooLarge:
		return queue.ErrRejected
	case errCodeAccountFull, errCodeNoRoom, errCodeNoStorage:
		return queue.ErrFull
	}
	return queue.ErrUnavailable
}

// refused says whether err is the stream's own word that it has not stored a
// message.
func refused(err error) bool {
	_, ok := errors.AsType[*apiError](err)
	return ok || errors.Is(err, queue.ErrRejected)
}

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
			out[i].ID, out[i].Err = q.stored(ctx, jobs[i].Tube, p.id, jobs[i].PutOptions, p.answer, p.err)
		}
	}
	return out
}

// batch are puts that are under way together.
type batch struct {
	puts []batched
	open atomic.Int64  // puts without an answer
	all  chan struct{} // closed when all have one
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
