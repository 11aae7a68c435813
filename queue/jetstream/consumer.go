package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/internal/backoff"
	"propeller/queue"
	"propeller/queue/lease"
)

const (
	minPause = 5 * time.Millisecond // after a refused pull, doubled up to maxPause
	maxPause = 2 * time.Second
	// limitPause is the same where somebody has to raise a limit first: of many
	// tubes each would ask.
	limitPause = 30 * time.Second
)

// consumer is the queue.Consumer of one tube. It has no goroutine of its own:
// the caller of Receive pulls, and jobs come in on the goroutine of its
// subscription.
type consumer struct {
	t *tube

	// All under t.mu.
	lease.Intake[*job]
	owner    lease.Owner
	reserved lease.List[*job]   // all whose reservations are kept alive
	sub      *nats.Subscription // nil until the first pull
	inbox    string             // of sub, up to the number of the pull
	ensured  bool               // the server's consumer is there as needed
	found    time.Time          // when that was so last
	pull     pull
	stray    time.Time     // jobs of pulls that were given up may come until then
	ended    chan struct{} // closed when the pull ends, for waitQuiet; or nil
	idle     bool          // the last pull brought nothing: the next one is a long poll
	gone     bool          // Close has collected what there was
	pause    time.Duration // after the last refusal; 0 once a pull went well
	notUntil time.Time     // no pull before
	err      error         // why nothing can be received; nil when all is well
}

func newConsumer(t *tube) *consumer {
	c := &consumer{t: t}
	c.Init(&t.mu, c, fmt.Sprintf("jetstream: consumer of %q", t.name))
	t.mu.Lock()
	t.consumers[c] = struct{}{}
	t.mu.Unlock()
	return c
}

// HandOutLocked implements lease.Wire.
func (c *consumer) HandOutLocked(j *job) bool { return c.t.jobs.HandOut(&j.Lease) }

// Ask implements lease.Wire: it starts a pull if one is wanted and possible.
func (c *consumer) Ask(ctx context.Context, hurry bool) (changed <-chan struct{}, wait time.Duration, err error) {
	if c.t.q.ctx.Err() != nil {
		return nil, -1, errQueueClosed
	}
	cn, epoch, changed, linkErr := c.t.q.link.ready()
	if linkErr != nil {
		return changed, -1, nil
	}
	now := time.Now()
	c.t.mu.Lock()
	wait = c.dueLocked(now, epoch)
	ensured := c.ensured && c.sub != nil
	c.t.mu.Unlock()
	if wait != 0 || hurry && !ensured {
		return changed, wait, nil
	}
	if !ensured {
		if err := c.ensure(ctx, cn); err != nil {
			return changed, c.failed(err), nil
		}
		return changed, 0, nil
	}
	if err := c.ask(cn, epoch, now); err != nil {
		return changed, c.failed(err), nil
	}
	return changed, c.wait(now), nil
}

// dueLocked is 0 when a pull must be made now, < 0 when none is wanted, else
// how long until it must be looked at again.
func (c *consumer) dueLocked(now time.Time, epoch int) time.Duration {
	if c.Paused || c.Closed || c.Want <= len(c.Waiting) {
		return -1
	}
	if c.pull.open && c.pull.epoch == epoch {
		late := c.pull.seen.Add(c.t.q.overdue(c.pull.longPoll))
		if now.Before(late) {
			return late.Sub(now)
		}
		// Nobody is there who would say that the pull waits.
		c.err = fmt.Errorf("jetstream: tube %q: a request for jobs was not answered: %w", c.t.name, queue.ErrUnavailable)
		c.ensured = false
		c.t.q.link.look()
	}
	c.giveUpLocked()
	if now.Before(c.notUntil) {
		return c.notUntil.Sub(now)
	}
	return 0
}

// ensure makes the tube's consumer in the server, and our subscription.
func (c *consumer) ensure(ctx context.Context, cn *conn) error {
	info, err := c.t.make(ctx, cn)
	if err != nil {
		return err
	}
	c.t.mu.Lock()
	first := c.sub == nil
	c.t.mu.Unlock()
	if !first { // it was gone, perhaps with its stream
		if _, err := c.t.q.streamInfo(ctx, cn, jobsStream, "", 0); err != nil {
			return err
		}
	}
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.ensured, c.found = true, time.Now()
	if e := c.t.q.embedded; e != nil && !c.t.seen && info.NumAckPending > 0 {
		_, started := e.running()
		c.t.notUntil = started.Add(recheck)
	}
	c.t.seen = true
	c.notUntil = c.t.notUntil
	if c.sub != nil || c.Closed {
		return nil
	}
	c.inbox = c.t.q.opts.newInbox()
	sub, err := cn.nc.Subscribe(c.inbox+"*", c.t.q.guarded(c.incoming))
	if err != nil {
		return err
	}
	c.sub = sub
	return sub.SetPendingLimits(maxPending, maxPendingBytes)
}

// recheck is how long after its start a server may take to look at jobs that were held or
// given back before that (nats-server: consumer.go, applyState: 1.5 s).
// A pull before that would get newer jobs first.
const recheck = 1600 * time.Millisecond

// failed notes why no pull could be made and returns how long to wait.
func (c *consumer) failed(err error) time.Duration {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		c.t.q.link.doubt(unavailable(err))
	}
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if !errors.Is(err, context.Canceled) { // else Receive is to return
		c.err = unavailable(err)
	}
	most := maxPause
	if _, denied := errors.AsType[*deniedError](err); denied || codeOf(err) == errCodeTooManyConsumers {
		most = limitPause
	}
	c.refusedLocked(most)
	return c.pause
}

// refusedLocked puts off the next pull for twice as long as the last, up to most. The bounds
// of refusals in a row may differ, so their number would not do.
func (c *consumer) refusedLocked(most time.Duration) {
	c.pause = backoff.Pause(max(minPause, 2*c.pause), most, 1)
	c.notUntil = time.Now().Add(c.pause)
}

// incoming is the callback of the subscription: a job, or news of a pull.
func (c *consumer) incoming(m *nats.Msg) {
	if m.Reply == "" {
		// Not by c.inbox: a pull that was withdrawn had another.
		id, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 36, 64)
		if err == nil && c.news(id, m) {
			c.t.q.link.doubt(c.t.removed())
		}
		return
	}
	d, err := parseDelivery(m.Reply)
	if err != nil {
		c.t.q.opts.Log.Error("queue: a job without a valid reply address", "tube", c.t.name, "err", err)
		return
	}
	if instead := c.deliver(m, d, time.Now(), c.bodiless(m, d)); instead != nil {
		instead()
	}
}

// bodiless says that a job has come without its body, because its consumer hands out
// headers only: it is no job then. What shows it is a header that any producer can write,
// so the stream is asked.
func (c *consumer) bodiless(m *nats.Msg, d delivery) bool {
	if size := m.Header.Get("Nats-Msg-Size"); len(m.Data) > 0 || size == "" || size == "0" {
		return false
	}
	c.t.mu.Lock()
	known := !c.ensured // it is being looked at
	c.t.mu.Unlock()
	cn, _, _, err := c.t.q.link.ready()
	if known || err != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(c.t.q.ctx, c.t.q.opts.timeout)
	defer cancel()
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return true
	}
	stored, err := s.GetMsg(ctx, d.seq)
	return err != nil || len(stored.Data) > 0
}

// deliver takes a job in, or returns what to do instead.
func (c *consumer) deliver(m *nats.Msg, d delivery, now time.Time, bodiless bool) (instead func()) {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	c.countLocked(now)
	c.pause, c.notUntil, c.err = 0, time.Time{}, nil
	if old := t.listedLocked(d.seq); old != nil && old.d.stored == d.stored {
		old.rebindLocked(d, m.Reply, now)
		if old.State() == lease.Tombstone {
			return func() { old.say(wordAck) }
		}
		return nil
	} else if old != nil {
		t.q.link.look() // the same number with another job: of another stream
	}
	j := &job{c: c, d: d, birth: t.q.birth.Load(), ack: m.Reply, body: m.Data, header: m.Header}
	j.Number, j.Job, j.Owner = d.seq, j, &c.owner
	if bodiless {
		c.ensured = false
		c.giveUpLocked()
		c.Wake()
	}
	// While it closes, it collects.
	if bodiless || c.gone || c.Paused && !c.Closed || !c.roomLocked(m.Data) {
		t.q.refused.note(serving{d.numbered(), d.tries}, struct{}{})
		return j.sayNak
	}
	done, held := t.firstCopyLocked(m.Header, m.Data, d)
	switch {
	case done, d.tries > 1 && t.q.finished.has(d.numbered()): // it was on its way when it was finished
		return func() { j.say(wordAck) }
	case held:
		return func() { j.say(wordNakAfter(firedAgain)) }
	}
	j.shared = t.q.pulse.stoodStill(now, t.q.opts.AckWait)
	t.jobs.Add(&j.Lease, &c.reserved, now)
	j.aliveLocked(now)
	c.TakeInLocked(j)
	return nil
}

// Pause implements queue.Consumer. What a pull brings from now on is given back
// when it comes.
func (c *consumer) Pause() {
	c.t.mu.Lock()
	back := c.PauseLocked()
	for _, j := range back {
		c.t.jobs.End(&j.Lease, lease.Lost)
	}
	c.t.mu.Unlock()
	for _, j := range back {
		j.sayNak()
	}
}

// Err implements queue.Consumer.
func (c *consumer) Err() error {
	if _, _, _, err := c.t.q.link.ready(); err != nil {
		return err
	}
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	return c.err
}

// Close implements queue.Consumer. It first waits for the end of the last pull, a
// second or so at most: jobs that nobody hears would be held until their
// reservations end. What comes goes back with the others, in their old order.
func (c *consumer) Close(ctx context.Context) error {
	t := c.t
	t.mu.Lock()
	first := c.CloseLocked()
	t.mu.Unlock()
	if !first {
		return nil
	}
	err := c.owner.Await(ctx, &t.mu)
	c.waitQuiet(context.WithoutCancel(ctx)) // it takes little time

	t.mu.Lock()
	c.gone = true
	var back []*job
	for j := range c.reserved.All() {
		if j.Unsettled() { // a settle call is left to end by itself
			back = append(back, j)
			t.jobs.End(&j.Lease, lease.Lost)
		}
	}
	c.Waiting = nil // they are held too
	delete(t.consumers, c)
	t.mu.Unlock()

	c.withdraw(ctx)
	t.nakAll(ctx, back)
	t.q.burst(time.Now(), true)
	t.q.flushFor(ctx)
	t.leave(ctx)
	return err
}
