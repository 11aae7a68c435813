package jetstream

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A tube has a consumer in the server only while somebody consumes it. One costs about 50 KiB
// and four goroutines there, and to make one takes the longer the more there are.
//
// A consumer that is removed forgets which of the tube's jobs are held, how often they were
// served, and for how long they are to wait. So an embedded server's is removed with the
// tube's last consumer here if the tube has no jobs at all; only one daemon uses such a server.
// On a cluster any other daemon may hold a job by the time that it is removed. There nobody
// does that but the servers, when nobody has asked for the tube's jobs for a while and none of
// them is held or due later. They do not mind jobs that wait, so a consumer here goes on
// asking, also while it is paused. If all daemons are away for longer, the jobs that wait are
// served as if for the first time.
//
// Consumers are kept in files, so that a server that is started again remembers.

const (
	// inactiveAfter is after how long a cluster's servers remove a consumer: more than a
	// daemon takes to be started again.
	inactiveAfter = 2 * time.Minute
	// minInactive is the least that is taken for as good, if it was set by others.
	minInactive = 30 * time.Second

	// sweptAtOnce is how many consumers of earlier times are dealt with at once.
	sweptAtOnce = 4
	// sweepTime bounds that. What is left is found sweepAgain later.
	sweepTime = 10 * time.Minute
	// sweepAgain is the time between two looks at consumers that could not be removed when
	// they should have been, because the server was busy or away.
	sweepAgain = 10 * time.Second
	// forgetTime bounds forgetIdle.
	forgetTime = 5 * time.Second
)

// leave is called when a consumer here has been closed. If it was the tube's last one,
// an embedded server's is removed, if nothing is lost by that.
func (t *tube) leave(ctx context.Context) {
	if err := t.making.turn.Acquire(ctx, 1); err != nil {
		t.q.left.Store(true)
		return
	}
	defer t.making.turn.Release(1)
	if t.attended() {
		return
	}
	if t.q.embedded != nil {
		removed, err := t.removeEmpty(ctx)
		if err != nil {
			t.q.opts.Log.Debug("queue: a consumer cannot be removed; it is tried again", "tube", t.name, "err", err)
			t.q.left.Store(true)
		}
		if !removed {
			return
		}
	}
	t.q.forgetTube(t)
}

// attended says whether the tube is consumed here.
func (t *tube) attended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.consumers) > 0
}

// removeEmpty removes the consumer of a tube that has no jobs. Its caller has the turn to make
// it: whoever consumes the tube meanwhile makes it again.
func (t *tube) removeEmpty(ctx context.Context) (removed bool, err error) {
	cn, _, _, err := t.q.link.ready()
	if err = cmp.Or(err, t.q.embedded.trouble()); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.q.opts.timeout)
	defer cancel()
	if err := t.q.barrier(ctx, cn, t.name); err != nil {
		return false, err
	}
	if n, err := t.q.countOne(ctx, cn, jobSubject(t.name)); n > 0 || err != nil {
		return false, err
	}
	if t.q.embedded.door != nil { // other programs may ask for its jobs, too
		c, err := t.q.consumerOf(ctx, cn, t.name)
		if err == nil && c.CachedInfo().NumWaiting > 0 {
			return false, nil
		}
	}
	if err := cn.js.DeleteConsumer(ctx, jobsStream, t.config.Durable); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return false, err
	}
	t.making.info, t.making.at = nil, time.Time{}
	return true, nil
}

// forgetTube forgets a tube that nobody consumes, and of which nothing has to be remembered. Its
// caller has the turn to make the tube's consumer.
func (q *client) forgetTube(t *tube) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.consumers) == 0 && t.jobs.Len() == 0 && len(t.later) == 0 && t.acked == "" && q.tubes[t.name] == t {
		delete(q.tubes, t.name)
	}
}

// sweepConsumers deals with the consumers that an earlier version has left, or a daemon that was
// killed, when the queue is there for the first time; on an embedded server also with those that
// this process could not remove in time.
func (q *client) sweepConsumers() {
	q.sweepFirst()
	close(q.swept)
	if q.embedded == nil {
		return
	}
	tick := time.NewTicker(sweepAgain)
	defer tick.Stop()
	for {
		select {
		case <-q.ctx.Done():
			return
		case <-tick.C:
		}
		if cn, _, _, err := q.link.ready(); err == nil && q.left.Swap(false) {
			q.sweep(func(ctx context.Context) error { return q.removeLeft(ctx, cn) })
		}
	}
}

func (q *client) sweepFirst() {
	if q.embedded == nil && q.opts.inactive == 0 {
		return // attached: they are another daemon's
	}
	cn, err := q.link.get(q.ctx, untilReady)
	if err != nil {
		return
	}
	q.sweep(func(ctx context.Context) error {
		if q.embedded != nil {
			return q.removeLeft(ctx, cn)
		}
		return q.limitLeft(ctx, cn)
	})
}

func (q *client) sweep(f func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(q.ctx, sweepTime)
	defer cancel()
	if err := f(ctx); err != nil { // they cost as much as before
		q.opts.Log.Debug("queue: consumers stay as they are", "err", err)
		q.left.Store(true)
	}
}

// removeLeft removes the consumers of tubes without jobs.
func (q *client) removeLeft(ctx context.Context, cn *conn) error {
	has := make(map[string]bool)
	err := q.eachSubject(ctx, cn, jobsStream, jobPrefix+">", func(subject string, _ int) error {
		has[subject] = true
		return nil
	})
	if err != nil {
		return err
	}
	left, err := consumersOf(ctx, cn, func(c *jetstream.ConsumerInfo) bool { return !has[c.Config.FilterSubject] })
	if err != nil {
		return err
	}
	return each(ctx, sweptAtOnce, slices.All(left), func(_ int, c jetstream.ConsumerConfig) error {
		q.mu.Lock()
		t := q.tubeLocked(tubeOf(c.FilterSubject))
		q.mu.Unlock()
		t.leave(ctx)
		return nil
	})
}

// limitLeft has the servers remove, when nobody uses them, those consumers that were made to stay.
func (q *client) limitLeft(ctx context.Context, cn *conn) error {
	left, err := consumersOf(ctx, cn, func(c *jetstream.ConsumerInfo) bool { return c.Config.InactiveThreshold == 0 })
	if err != nil {
		return err
	}
	return each(ctx, sweptAtOnce, slices.All(left), func(_ int, c jetstream.ConsumerConfig) error {
		return q.limit(ctx, cn, c)
	})
}

// limit has the servers remove a consumer when nobody uses it.
func (q *client) limit(ctx context.Context, cn *conn, c jetstream.ConsumerConfig) error {
	if q.opts.inactive == 0 || c.InactiveThreshold > 0 {
		return nil
	}
	c.InactiveThreshold = q.opts.inactive
	_, err := cn.js.UpdateConsumer(ctx, jobsStream, c)
	return err
}

// consumersOf are the consumers of tubes that are as asked for.
func consumersOf(ctx context.Context, cn *conn, as func(*jetstream.ConsumerInfo) bool) (found []jetstream.ConsumerConfig, err error) {
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return nil, err
	}
	all := s.ListConsumers(ctx)
	for c := range all.Info() {
		tube, ours := strings.CutPrefix(c.Config.FilterSubject, jobPrefix)
		if ours && c.Name == durable(tube) && as(c) {
			found = append(found, c.Config)
		}
	}
	return found, all.Err()
}

// forgetIdle removes those consumers of an embedded server that know nothing which is
// not in the stream: none of their jobs was served and not finished. The server ends its
// consumers one after the other and sleeps for 10 ms at each (nats-server: filestore.go,
// waitOnFlusher), so that to end many would take long. Removing one takes less than a
// tenth of that, and its tube makes it again when it is served.
func (q *client) forgetIdle() {
	cn, _, _, err := q.link.ready()
	if err != nil || q.embedded.trouble() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(q.ctx, forgetTime)
	defer cancel()
	idle, err := q.idleConsumers(ctx, cn)
	if err == nil {
		err = each(ctx, apiAtOnce, slices.All(idle), func(_ int, c jetstream.ConsumerConfig) error {
			return cn.js.DeleteConsumer(ctx, jobsStream, c.Durable)
		})
	}
	if err != nil { // those that are left make the end slower
		q.opts.Log.Debug("queue: consumers cannot be removed", "err", err)
	}
}

// idleConsumers are the consumers of our tubes for which all of a tube's jobs are still
// to be served for the first time.
func (q *client) idleConsumers(ctx context.Context, cn *conn) (idle []jetstream.ConsumerConfig, err error) {
	jobs, err := q.streamInfo(ctx, cn, jobsStream, jobPrefix+">", 0)
	if err != nil {
		return nil, err
	}
	return consumersOf(ctx, cn, func(c *jetstream.ConsumerInfo) bool {
		stored := uint64(jobs.State.Subjects[c.Config.FilterSubject])
		return q.tube(tubeOf(c.Config.FilterSubject)) != nil && c.NumAckPending == 0 && c.NumPending == stored
	})
}

// keep has the servers keep the tube's consumer when nobody here has asked for its jobs for a
// while: consumers that are paused, or have as many jobs as they can take. A sign of life for no
// job does that (nats-server: consumer.go, suppressDeletion); a request that is refused would
// put jobs that were given back behind the others.
func (t *tube) keep(cn *conn, now time.Time) {
	t.mu.Lock()
	most := t.config.InactiveThreshold
	late := most > 0 && !t.asked.IsZero() && now.Sub(t.asked) > most/4 && len(t.consumers) > 0
	if late {
		t.askedLocked(now)
	}
	t.mu.Unlock()
	if late {
		_ = cn.publish(&nats.Msg{Subject: "$JS.ACK." + jobsStream + "." + t.config.Durable + ".1.0.0.0.0", Data: wordTouch}) // again a little later
	}
}

// askedLocked notes that the tube's jobs are asked for, and whether it was so long ago that
// its consumer may have been removed.
func (t *tube) askedLocked(now time.Time) {
	if most := t.config.InactiveThreshold; most > 0 && !t.asked.IsZero() && now.Sub(t.asked) >= most {
		t.expired = true
	}
	t.asked = now
}

// takeExpired says whether the tube's consumer was missing because nobody had asked for so long.
func (t *tube) takeExpired() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.expired
	t.expired = false
	return was
}
