package jetstream

import (
	"context"
	"sync/atomic"
	"time"
)

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
		l.q.opts.Log.Warn("jobs cannot be buried for now: those to be buried wait, all others go on", "queue", l.q.opts.String(), "err", err)
	}
}

func (l *link) burialsAgain() {
	if l.buried.said {
		l.q.opts.Log.Info("jobs can be buried again", "queue", l.q.opts.String())
	}
	l.buried.err, l.buried.said = nil, false
}
