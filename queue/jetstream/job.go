package jetstream

import (
	"context"
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
	missed   time.Time // when the last of them was noticed
}

var (
	_ queue.Job            = (*job)(nil)
	_ queue.FaultReporter  = (*job)(nil)
	_ queue.RepeatReporter = (*job)(nil)
)

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

// Repeats implements queue.RepeatReporter; see orphans.go.
func (j *job) Repeats() bool { return j.header.Get(headerLeft) != "" }

// aliveLocked says that the server knew of us at a time: the reservation is ours from then on.
func (j *job) aliveLocked(at time.Time) {
	j.Lease.Touch(at)
	j.until = at.Add(reservation(j.c.t.q.opts.AckWait))
}

// rebindLocked gives a job that was served again to its holder.
func (j *job) rebindLocked(d delivery, ack string, now time.Time) {
	switch { // each consumer hears its servings on a goroutine of its own: they may change places
	case d.tries > j.d.tries:
		if between := d.tries - j.d.tries - 1; between > 0 {
			j.missing += between
			j.missed = now
		}
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

// Touch implements queue.Job. The renewal loop renews without it.
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
// it for one of the present holder.
func (j *job) signLocked(sent time.Time) {
	switch {
	case !j.reservedLocked() || j.Touched.After(sent):
	case sent.After(j.until):
		j.Lease.Touch(sent)
	default:
		j.aliveLocked(sent)
	}
}

// reservedLocked says whether the reservation is kept alive.
func (j *job) reservedLocked() bool { return j.On() == &j.c.reserved }

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
