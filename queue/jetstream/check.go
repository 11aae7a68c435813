package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/internal/backoff"
	"propeller/queue/lease"
)

// prepare makes the link ready, trying until it is, or the connection is lost: then
// the reconnect calls it again. While jobs cannot be buried, the caller calls it again
// anyway, and now and then to see what has changed: that is routine, and no answer to it
// says nothing.
func (l *link) prepare(routine bool) (again <-chan time.Time) {
	pauses := backoff.Backoff{Min: prepareRetry, Max: maxRetry}
	for l.cn.nc.IsConnected() {
		began := time.Now()
		err := l.q.denials.because(l.checkOnce(), began)
		if err == nil {
			l.quiet = quiet{}
			l.set(nil)
			if l.buried.err != nil {
				return time.After(backoff.Jitter(maxRetry))
			}
			return time.After(backoff.Jitter(l.q.opts.lookEvery))
		}
		if !l.cn.nc.IsConnected() {
			return nil // see lost
		}
		if _, _, _, known := l.ready(); routine && known == nil && leaderless(err) {
			return time.After(backoff.Jitter(l.q.opts.lookEvery))
		}
		if _, denied := errors.AsType[*deniedError](err); !denied {
			err = ofServer(l.serving(), err)
		}
		l.set(unavailable(err))
		if e := l.q.embedded; e != nil {
			e.suspect()
		}
		l.goElsewhere(began, err)
		if since, why := l.q.denials.deafness(); why != nil && time.Since(since) > deafTime {
			_ = l.cn.nc.ForceReconnect() // an error: it is closed
		}
		if l.q.sleep(l.q.ctx, pauses.Next()) != nil {
			return nil
		}
	}
	return nil
}

// minPayload is the least max_payload of a server: a job for APNs is 4 or 5 KiB, and
// beside it there must be room for headers and the reason of a burial (see maxBody).
const minPayload = 32 << 10

// check is what must be so before jobs flow.
func (l *link) check() error {
	if err := checkVersion(l.cn.nc.ConnectedServerVersion()); err != nil {
		return err
	}
	if n := l.cn.nc.MaxPayload(); n < minPayload {
		return fmt.Errorf("its max_payload is %d bytes: raise it to %d or more, which jobs need with what is added when they are buried", n, minPayload)
	}
	ctx, cancel := context.WithTimeout(l.q.ctx, l.q.opts.timeout)
	defer cancel()
	if err := l.checkStreams(ctx); err != nil {
		return err
	}
	if l.q.embedded == nil || l.recovered {
		return nil
	}
	if err := l.q.inspect(ctx, l.cn, true); err != nil {
		return err
	}
	_, err := l.q.recoverOrphans(l.q.ctx, l.cn, nil)
	l.recovered = err == nil
	return err
}

// checkOnce is check, for those who wait for one.
func (l *link) checkOnce() (err error) {
	l.mu.Lock()
	done := l.checked
	l.checked = make(chan struct{})
	l.mu.Unlock()
	defer close(done)
	defer func() {
		if v := recover(); v != nil {
			err = l.q.panicked(v)
		}
	}()
	return l.check()
}

// confirm waits for the end of a check that begins after now.
func (l *link) confirm(ctx context.Context) error {
	l.mu.Lock()
	done := l.checked
	l.mu.Unlock()
	l.look()
	return wait(ctx, l.q, done)
}

// checkStreams makes the streams that are missing. One of jobs that is another than
// before has other jobs under the same numbers: what is said of those that were
// held would concern them.
func (l *link) checkStreams(ctx context.Context) error {
	jobs, err := l.q.ensureStream(ctx, l.cn, jobsConfig(l.q.opts.replicas()), func() {
		if !l.made.IsZero() { // somebody was here before
			l.q.forgetReserved()
			l.madeAnew(jobsStream)
		}
	})
	if jobs != nil {
		if !l.made.IsZero() && !l.made.Equal(jobs.Created) {
			l.q.forgetReserved() // somebody else may have made it
		}
		l.made = jobs.Created
	}
	if err != nil {
		return err
	}
	l.q.birth.Store(jobs.Created.UnixMilli())
	l.q.copies.Store(int64(jobs.Config.Replicas))
	return l.checkBuried(ctx)
}

func (l *link) madeAnew(stream string) {
	l.q.opts.Log.Warn("a stream was missing and was created again: its contents are gone", "queue", l.q.opts.String(), "stream", stream)
}

// forgetReserved forgets all jobs: the stream they were in is gone.
func (q *client) forgetReserved() {
	q.retries.take()
	n := 0
	for _, t := range q.allTubes() {
		n += t.forgetReserved()
	}
	if n > 0 {
		q.opts.Log.Warn("the stream of jobs was removed while some were held", "queue", q.opts.String(), "jobs", n)
	}
}

// forgetReserved forgets the tube's jobs and counts those that were held.
func (t *tube) forgetReserved() (held int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.consumers {
		c.ensured = false
		c.giveUpLocked()
		c.Wake()
		c.Waiting = nil                   // they are held too
		for j := range c.reserved.All() { // a settle call will see that it is over
			held++
			t.jobs.End(&j.Lease, lease.Lost)
		}
	}
	for _, some := range []*lease.List[*job]{&t.late, &t.tombstones} {
		for j := range some.All() {
			t.jobs.End(&j.Lease, lease.Settled)
		}
	}
	clear(t.later)
	t.acked = ""
	return held
}

const (
	// election is how long a cluster may be without a leader. A server that knows
	// of none for longer is cut off from the others.
	election = 10 * time.Second
	// maxStay bounds the pause between two changes of the server when none of
	// them works: all daemons of a cluster that is away change theirs.
	maxStay = 2 * time.Minute
)

// quiet is a time in which nothing that needs a majority of the servers works.
type quiet struct {
	since time.Time // or since the server was changed
	stay  time.Duration
	said  bool
}

// goElsewhere changes the server when nothing that needs a leader has worked for
// longer than it takes to elect one. began is when what failed with err began.
func (l *link) goElsewhere(began time.Time, err error) {
	if l.q.embedded != nil || !leaderless(err) || len(l.cn.nc.Servers()) < 2 {
		return
	}
	if l.quiet.since.IsZero() {
		l.quiet.since, l.quiet.stay = began, election
	}
	if time.Since(l.quiet.since) < l.quiet.stay {
		return
	}
	if !l.quiet.said {
		l.quiet.said = true
		l.q.opts.Log.Warn("this queue server seems to be cut off from the others: connecting to another",
			"queue", l.q.opts.String(), "server", l.cn.nc.ConnectedAddr(), "err", err)
	}
	l.quiet.since, l.quiet.stay = time.Now(), min(2*l.quiet.stay, maxStay)
	_ = l.cn.nc.ForceReconnect() // an error: it is closed
}

var errNoLeader = errors.New("has no leader")

// leaderless says whether err is for want of a leader.
func leaderless(err error) bool {
	switch codeOf(err) {
	case errCodeNotAvailable, errCodeNoLeader:
		return true
	}
	return errors.Is(err, errNoLeader) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders)
}

// buriedWait is how long all else waits for the stream of buried jobs, which it
// does not need, in a check of the streams.
const buriedWait = time.Second

// buriedState is what is known of the stream of buried jobs. While it is without a
// leader, burials wait for one, and puts and pulls go on.
type buriedState struct {
	seen  atomic.Bool // the stream has been there
	err   error       // why jobs cannot be buried
	since time.Time   // that they cannot
	said  bool
}

// checkBuried makes the stream of buried jobs if it is missing. It returns an
// error if nothing is to work: not for want of a leader.
func (l *link) checkBuried(ctx context.Context) error {
	if l.q.embedded == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, buriedWait)
		defer cancel()
	}
	_, err := l.q.ensureStream(ctx, l.cn, buriedConfig(l.q.opts.replicas()), func() {
		if l.buried.seen.Load() {
			l.madeAnew(buriedStream)
		}
	})
	if err == nil {
		l.buried.seen.Store(true)
	}
	if l.q.embedded == nil && (leaderless(err) || codeOf(err) == errCodeOffline) {
		l.noBurials(err)
		return nil
	}
	l.burialsAgain()
	return err
}

// noBurials notes why jobs cannot be buried, and says so when it is not over soon.
func (l *link) noBurials(err error) {
	b := &l.buried
	if b.err == nil {
		b.since = time.Now()
	}
	b.err = err
	if !b.said && time.Since(b.since) >= election {
		b.said = true
		l.q.opts.Log.Warn("cannot bury jobs for now: burials wait, all other jobs go on", "queue", l.q.opts.String(), "err", err)
	}
}

func (l *link) burialsAgain() {
	if l.buried.said {
		l.q.opts.Log.Info("jobs can be buried again", "queue", l.q.opts.String())
	}
	l.buried.err, l.buried.said = nil, false
}
