package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
	"propeller/queue/lease"
)

// job implements queue.Job.
type job struct {
	lease.Lease[*job] // under c.t.mu

	c      *consumer
	body   []byte
	header nats.Header // nil for most
	d      delivery    // the same at every try, but for tries
	birth  int64       // of the stream
	buried atomic.Bool // its copy is among the buried jobs, under its key

	// Under c.t.mu, as is d.tries.
	ack      string    // where to settle it
	until    time.Time // the reservation is ours at least so long
	touching bool      // a sign of life is under way
	shared   bool      // the server may have served it to somebody else in the meantime
	missing  int       // servings in between that were not to us, or are still on their way
}

var _ queue.Job = (*job)(nil)

// ID implements queue.Job.
func (j *job) ID() string {
	if j.buried.Load() {
		return j.key()
	}
	if id := j.header.Get(headerID); id != "" && id == j.c.t.q.labels.get(j.header.Get(jsMsgID)) {
		return id // this process has written it
	}
	return idOf(j.header, j.birth, j.d.seq)
}

// key is what the job is kept under, whatever it says of itself.
func (j *job) key() string { return seqID(j.birth, j.d.seq) }

// Body implements queue.Job.
func (j *job) Body() []byte { return j.body }

// Stat implements queue.Job. It costs nothing.
func (j *job) Stat(context.Context) (queue.Stat, error) {
	j.c.t.mu.Lock()
	tries := j.d.tries
	j.c.t.mu.Unlock()
	age := time.Since(putTime(j.header, j.d.stored))
	return queue.Stat{Attempt: tries, Age: max(age, 0), Kicked: j.header.Get(headerKicked) != ""}, nil // clocks differ
}

// Repeats reports whether the job may have been finished before; see orphans.go.
func (j *job) Repeats() bool { return j.header.Get(headerLeft) != "" }

// aliveLocked says that the server knew of us at a time: the reservation is ours from then on.
func (j *job) aliveLocked(at time.Time) {
	j.Lease.Touch(at)
	j.until = at.Add(reservation(j.c.t.q.opts.AckWait))
}

// rebindLocked gives a job that was served again to the one who has it.
func (j *job) rebindLocked(d delivery, ack string, now time.Time) {
	switch { // each consumer hears its servings on a goroutine of its own: they may change places
	case d.tries > j.d.tries:
		j.missing += d.tries - j.d.tries - 1
		for n := j.d.tries + 1; n < d.tries && j.missing > 0 && n <= j.d.tries+maxMissing; n++ {
			if j.c.t.q.refused.has(serving{d.numbered(), n}) { // it overtook the one before it
				j.missing--
			}
		}
	case d.tries < j.d.tries && j.missing > 0:
		j.missing--
	}
	j.d.tries, j.ack = max(d.tries, j.d.tries), ack
	j.aliveLocked(now)
}

// entombLocked ends a finished job that may still arrive again. The job itself is its receiver's.
func (j *job) entombLocked(now time.Time) {
	t := j.c.t
	tomb := &job{c: j.c, d: j.d, ack: j.ack}
	tomb.Job = tomb
	t.jobs.Entomb(&j.Lease, &tomb.Lease, &t.tombstones, maxTombstones, now)
}

// The server's words for settling (nats-server: consumer.go, AckAck and so on).
var (
	wordAck   = []byte("+ACK")
	wordTouch = []byte("+WPI")
)

// say sends a word about a job that nobody holds, without waiting. If the
// server does not hear of it, it serves the job again when its time is over.
func (j *job) say(word []byte) {
	if cn, _, _, err := j.c.t.q.link.ready(); err == nil {
		_ = cn.publish(&nats.Msg{Subject: j.address(), Data: word})
	}
}

func (j *job) lost() error { return fmt.Errorf("jetstream: job %s: %w", j.ID(), queue.ErrLost) }

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
// soon as the server can be told.
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
	maxMissing  = 100                   // servings that are looked for
	missingTime = 50 * time.Millisecond // for a serving that nats.go has read to be looked at
	missingLook = time.Millisecond
)

// servedElsewhere reports whether somebody else may have the job, or had it. A serving that
// is missing may be in the hands of another goroutine of ours: it is given a moment.
func (j *job) servedElsewhere(ctx context.Context) bool {
	for end := time.Now().Add(missingTime); ; {
		now := time.Now()
		j.c.t.mu.Lock()
		shared, missing := j.shared || now.After(j.until), j.missing > 0
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
	for retry := minPause; ; retry = min(retry*2, maxPause) {
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
		if err := q.sleep(ctx, retry); err != nil {
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
	for pause := minPause; ; pause = min(pause*2, maxPause) {
		err = j.giveBack(ctx)
		if !notDone(err) {
			break
		}
		if err = j.c.t.q.sleep(ctx, pause); err != nil {
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

// Touch implements queue.Job. The keeper touches by itself.
func (j *job) Touch(ctx context.Context) error {
	t := j.c.t
	t.mu.Lock()
	held := j.State() == lease.Reserved && !time.Now().After(j.until)
	t.mu.Unlock()
	if !held {
		return j.lost()
	}
	cn, err := t.q.link.get(ctx, untilTried)
	if err != nil {
		return err
	}
	sent := time.Now()
	if _, err = t.q.request(ctx, cn, &nats.Msg{Subject: j.address(), Data: wordTouch}); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	j.signLocked(sent)
	return nil
}

// signLocked notes a sign of life that the server has confirmed. One that was
// sent when the reservation had ended does not bring it back: the server takes
// it for one of whoever has the job now.
func (j *job) signLocked(sent time.Time) {
	switch {
	case !j.heldLocked() || j.Touched.After(sent):
	case sent.After(j.until):
		j.Lease.Touch(sent)
	default:
		j.aliveLocked(sent)
	}
}

// heldLocked says whether the reservation is kept alive.
func (j *job) heldLocked() bool { return j.On() == &j.c.held }

// delivery is what the address for acknowledging a job tells of it.
type delivery struct {
	seq    uint64 // in the stream: the same at every try
	tries  int    // how often it has been served, this time included
	stored int64  // when the stream got it, Unix nanoseconds
}

// parseDelivery reads the address of a job:
//
//	$JS.ACK.<stream>.<consumer>.<tries>.<seq>.<delivery>.<stored>.<left>
//	$JS.ACK.<domain>.<account>.<stream>.<consumer>.<tries>.<seq>.…
//
// (nats-server ADR-15). The second form has 11 parts or more.
func parseDelivery(reply string) (delivery, error) {
	var parts [13]string
	n := 0
	for part := range strings.SplitSeq(reply, ".") {
		if n == len(parts) {
			break
		}
		parts[n] = part
		n++
	}
	first := 4
	switch {
	case parts[0] != "$JS" || parts[1] != "ACK" || n < 9 || n == 10:
		return delivery{}, fmt.Errorf("%q: not the address of a job", reply)
	case n > 10:
		first = 6
	}
	tries, err := strconv.Atoi(parts[first])
	if err == nil && tries < 1 {
		err = strconv.ErrRange
	}
	if err != nil {
		return delivery{}, fmt.Errorf("%.300q: tries: %w", reply, err)
	}
	seq, err := strconv.ParseUint(parts[first+1], 10, 64)
	if err != nil {
		return delivery{}, fmt.Errorf("%q: sequence: %w", reply, err)
	}
	stored, err := strconv.ParseInt(parts[first+3], 10, 64)
	if err != nil {
		return delivery{}, fmt.Errorf("%q: time: %w", reply, err)
	}
	return delivery{seq: seq, tries: tries, stored: stored}, nil
}
