package jetstream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"propeller/internal/backoff"
	"propeller/internal/files"
)

// A server that could not write once, because its disk was full, stores nothing
// until it is started again, and answers no put: it keeps the error (nats-server:
// filestore.go, fileStore.werr). So an embedded one is started again in its place
// as soon as its disk accepts writes again.
//
// Not earlier: what it knows of held and finished jobs is in its memory,
// and written when it stops. Until then no job is received or finished, and the
// renewal loop keeps the reservations alive.

const (
	// restartMin and restartMax bound the pause before the disk is tried and the
	// server started again. It is doubled each time.
	restartMin = 500 * time.Millisecond
	restartMax = 5 * time.Second
	// restartWell is how long a server has to work for its next fault to be taken
	// for a new one.
	restartWell = time.Minute

	// trialSize is what the disk has to take, in bytes, before a server is
	// started on it: the largest job (max_payload) with room to spare.
	trialSize = 2 << 20
	trialFile = "trial"
)

var errNoServer = errors.New("the queue's server is being started again")

// fail notes why the server has to be started again. The server calls it with its
// locks held.
func (e *embedded) fail(why error) {
	e.mu.Lock()
	if e.fault == nil {
		e.fault, e.faultAt = why, time.Now()
	}
	e.mu.Unlock()
	e.suspect()
}

// failDisk is fail with the server's words for why it stores nothing.
func (e *embedded) failDisk(why string) {
	e.fail(fmt.Errorf("the queue's disk takes nothing: %s", why))
}

// suspect has the server examined.
func (e *embedded) suspect() {
	e.look.raise()
}

// trouble is why the server stores nothing; nil when it does.
func (e *embedded) trouble() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fault == nil && e.server == nil {
		return errNoServer
	}
	return e.fault
}

// takesNothing says whether the disk is known to take nothing.
func (e *embedded) takesNothing() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fault != nil
}

// examine asks a server that did not answer whether it stores anything: it may
// have said so in words that writeFault does not know.
func (e *embedded) examine() {
	s, _ := e.running()
	if s == nil || e.trouble() != nil {
		return
	}
	if !s.JetStreamEnabled() {
		why := "the server has given up JetStream"
		if err := e.trial(); err != nil { // which is why it has
			why = err.Error()
		}
		e.failDisk(why)
	} else if h := s.Healthz(&server.HealthzOptions{}); writeFaultOf(h.Error) {
		e.failDisk(h.Error)
	}
}

// trial says why the disk takes nothing; nil when it takes trialSize.
func (e *embedded) trial() error {
	path := filepath.Join(e.dir, trialFile)
	defer func() { _ = os.Remove(path) }()
	f, err := files.OpenOwn(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, trialSize))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// restart puts a new server in the place of one that stores nothing.
func (e *embedded) restart(o Options) error {
	if err := e.trial(); err != nil {
		return err
	}
	e.stop()
	e.mu.Lock()
	e.fault = nil // what the new one reports counts
	e.mu.Unlock()
	err := e.start(o)
	if err != nil {
		e.stop()
		e.failDisk(err.Error())
	}
	return err
}

// watchServer starts the embedded server again when it stores nothing, until the queue
// is closed.
func (q *client) watchServer() {
	pauses := backoff.Backoff{Min: restartMin, Max: restartMax}
	for {
		select {
		case <-q.ctx.Done():
			return
		case <-q.embedded.look:
		}
		if !q.watched(q.embedded.examine) {
			return
		}
		if _, since := q.embedded.running(); time.Since(since) > restartWell {
			pauses.Reset()
		}
		for q.embedded.trouble() != nil {
			q.link.lost(nil, q.embedded.trouble())
			if q.sleep(q.ctx, pauses.Next()) != nil {
				return
			}
			if q.embedded.restart(q.opts) == nil {
				q.embedded.restarted.raise()
				q.opts.Log.Info("the queue's disk takes jobs again: its server was restarted", "queue", q.opts.String())
			}
		}
	}
}

// An embedded server can hang for good. When it cannot write down that a
// schedule is gone, it may wait for a lock that it holds itself (nats-server 2.15:
// filestore.go, PurgeEx, flushPendingMsgs, rebuildState). Everything that needs the stream
// waits for that lock, even the server's own shutdown: only ending the process helps. What
// was stored is safe on the disk.

const (
	// stillWarn and stillMax are how often in a row, once a second, the disk took
	// a file while the server did not say how it is. Seconds of a process that was
	// stopped, or of a disk that does not answer, do not count.
	stillWarn = 5
	stillMax  = 30
	stillLook = time.Second
)

var errStill = errors.New("jetstream: the queue's server hangs and cannot be restarted in this process")

// watched calls examine, which asks the server, and makes sure that there is an
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
			q.opts.Log.Error("the queue's server hangs: restart the process; jobs are safe on the disk", "queue", q.opts.String())
			if q.opts.Still != nil {
				q.opts.Still(errStill)
			}
		}
	}
}
