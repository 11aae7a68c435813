package jetstream

import (
	"errors"
	"time"
)

// An embedded server can stand still for good. When it cannot write down that a
// schedule is gone, it may wait for a lock that it holds itself (nats-server 2.15:
// filestore.go, PurgeEx, flushPendingMsgs, rebuildState). All that asks for the stream
// waits behind that, the server's own end too: only the end of the process helps. What
// was stored is safe on the disk.

const (
	// stillWarn and stillMax are how often in a row, once a second, the disk took
	// a file while the server did not say how it is. Seconds of a process that was
	// stopped, or of a disk that does not answer, do not count.
	stillWarn = 5
	stillMax  = 30
	stillLook = time.Second
)

var errStill = errors.New("jetstream: the queue's server stands still and cannot be started again in this process")

// watched calls examine, which asks the server, and sees to it that there is an
// answer. It reports false when the queue was closed first; then examine goes on, if
// it can.
func (q *client) watched(examine func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		examine()
	}()
	tick := time.NewTicker(stillLook)
	defer tick.Stop()
	for still := 0; ; {
		select {
		case <-done:
			return true
		case <-q.ctx.Done():
			return false
		case <-tick.C:
		}
		if q.embedded.trial() != nil {
			still = 0
			continue
		}
		switch still++; still {
		case stillWarn:
			q.opts.Log.Warn("the queue's server does not answer, though its disk takes files", "queue", q.opts.String())
		case stillMax:
			q.opts.Log.Error("the queue's server stands still: the process has to be started again; jobs are safe on the disk", "queue", q.opts.String())
			if q.opts.Still != nil {
				q.opts.Still(errStill)
			}
		}
	}
}
