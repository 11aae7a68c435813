package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/internal/backoff"
	"propeller/queue"
	"propeller/queue/lease"
)

// begin starts a settle call. expired says that the reservation is no longer
// surely ours.
func (j *job) begin(ctx context.Context) (expired bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	t := j.c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	switch err := t.jobs.Settle(&j.Lease); {
	case errors.Is(err, queue.ErrLost):
		return true, j.lost()
	case err != nil:
		return false, fmt.Errorf("jetstream: job %s: %w", j.ID(), err)
	}
	j.c.owner.Enter()
	return time.Now().After(j.until), nil
}

// end ends a settle call. The job is Settled, or stays Reserved because it was refused; it is
// Late when the server has yet to be told, and leaves a Tombstone when it may arrive again.
func (j *job) end(as lease.State) {
	t := j.c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	switch as {
	case lease.Late:
		t.jobs.Postpone(&j.Lease, &t.late)
	case lease.Tombstone:
		j.entombLocked(time.Now())
	case lease.Reserved:
		t.jobs.Refused(&j.Lease)
	default:
		t.jobs.End(&j.Lease, as)
	}
	j.c.owner.Leave()
}

// Done implements queue.Job. When ctx ends first, the job is still removed as
// soon as the server can be reached.
func (j *job) Done(ctx context.Context) error {
	expired, err := j.begin(ctx)
	if err != nil {
		return err
	}
	return j.finish(ctx, expired)
}

// finish has the job removed, which may take as long as the server is away: by
// then it may have been served to somebody else.
func (j *job) finish(ctx context.Context, expired bool) error {
	repeated, err := j.acknowledge(ctx)
	if errors.Is(err, queue.ErrLost) {
		j.end(lease.Settled)
		return err
	}
	if err != nil {
		j.end(lease.Late)
		return err
	}
	shared := expired || j.servedElsewhere(ctx)
	if shared || repeated {
		j.end(lease.Tombstone)
	} else {
		j.end(lease.Settled)
	}
	if shared {
		return j.lost()
	}
	return nil
}

// serving is one try of a job.
type serving struct {
	numbered
	tries int
}

const (
	maxMissing  = 100                    // servings that are looked for
	missingTime = 200 * time.Millisecond // for a serving that nats.go has read to be looked at
	missingLook = time.Millisecond
)

// servedElsewhere reports whether somebody else may have the job, or had it. A serving that
// is missing may be in the hands of another goroutine of ours: it is given a moment from when
// it was missed. So many jobs that miss one, settled one after the other, wait no longer.
func (j *job) servedElsewhere(ctx context.Context) bool {
	for {
		now := time.Now()
		j.c.t.mu.Lock()
		shared, missing, end := j.shared || now.After(j.until), j.missing > 0, j.missed.Add(missingTime)
		j.c.t.mu.Unlock()
		if shared || !missing || now.After(end) || j.c.t.q.sleep(ctx, missingLook) != nil {
			return shared || missing
		}
	}
}

// ackTime is how long the answer to an acknowledgement is waited for before it
// is sent again, perhaps to a new leader.
const ackTime = 2 * time.Second

// acknowledge tells the server that the job is finished, until it has heard it.
// That may be repeated: who holds the job now is of no account. The error is
// ctx.Err(), that the queue is closed, or queue.ErrLost: the stream is gone.
//
// On a cluster the answer is waited for: an acknowledgement that is lost with a
// connection or a leader would be a push sent twice. Inside the process there
// is nothing that could lose it but the process.
func (j *job) acknowledge(ctx context.Context) (repeated bool, err error) {
	q := j.c.t.q
	pauses := backoff.Backoff{Min: minPause, Max: maxPause}
	for {
		cn, err := q.link.get(ctx, untilReady)
		if err != nil {
			return repeated, err
		}
		address, err := j.ackAddress()
		if err != nil {
			return repeated, err
		}
		m, sent := &nats.Msg{Subject: address, Data: wordAck}, time.Now()
		if q.embedded != nil {
			err = cn.publish(m)
			j.c.t.noteAcked(address)
		} else {
			_, err = q.requestWithin(ctx, cn, m, min(ackTime, q.opts.timeout))
		}
		if err == nil {
			q.finished.add(j.d.numbered())
			return repeated, nil
		}
		repeated = true
		if errors.Is(err, errNoResponders) { // the stream may be another, with other jobs
			if err := q.link.confirm(ctx); err != nil {
				return repeated, err
			}
			j.c.t.gone(sent)
		}
		if err := q.sleep(ctx, pauses.Next()); err != nil {
			return repeated, err
		}
	}
}

// address is where to settle the job: it changes when the job is served again.
func (j *job) address() string {
	j.c.t.mu.Lock()
	defer j.c.t.mu.Unlock()
	return j.ack
}

// ackAddress is address for an acknowledgement. The error is queue.ErrLost.
func (j *job) ackAddress() (string, error) {
	j.c.t.mu.Lock()
	defer j.c.t.mu.Unlock()
	if j.Over() { // its stream is gone
		return "", j.lost()
	}
	return j.ack, nil
}

// noteAcked notes what barrier is to ask for, once it was sent: a barrier that takes
// the note earlier would leave nothing for the next one.
func (t *tube) noteAcked(address string) {
	t.mu.Lock()
	t.acked = address
	t.mu.Unlock()
}

// Retry implements queue.Job. A retry that has to wait is sent a little later.
// When the answer to one that has not is lost it is not repeated, because the
// job may be held by somebody else by then. At worst the job comes back when its
// reservation ends.
func (j *job) Retry(ctx context.Context, after time.Duration) error {
	expired, err := j.begin(ctx)
	if errors.Is(err, queue.ErrLost) {
		return nil // it is back
	}
	if err != nil {
		return err
	}
	if expired {
		j.end(lease.Settled)
		return nil
	}
	if after > 0 {
		j.retryAt(time.Now().Add(after))
		return nil
	}
	pauses := backoff.Backoff{Min: minPause, Max: maxPause}
	for {
		err = j.nak(ctx)
		if !notDone(err) {
			break
		}
		if err = j.c.t.q.sleep(ctx, pauses.Next()); err != nil {
			break
		}
	}
	j.end(lease.Settled)
	if errors.Is(err, queue.ErrUnavailable) && ctx.Err() == nil && j.c.t.q.ctx.Err() == nil {
		return nil
	}
	return err
}

// retryAt has the job served again at a time.
func (j *job) retryAt(due time.Time) {
	t := j.c.t
	t.mu.Lock()
	r, void := retry{t, j.ack, due, j.until}, j.Over() // its stream is gone
	if !void {
		t.delayedLocked(due)
	}
	t.mu.Unlock()
	j.end(lease.Settled)
	if !void {
		t.q.retries.add(r)
	}
}

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
// repairs it.
const maxSilent = 2

// copyToBuried waits for a server that is away, not for one that refuses.
func (j *job) copyToBuried(ctx context.Context, body []byte) error {
	q := j.c.t.q
	silent := 0
	pauses := backoff.Backoff{Min: minPause, Max: maxPause}
	for {
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
		if err := q.sleep(ctx, pauses.Next()); err != nil {
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
