package beanstalk

import (
	"context"
	"slices"
	"sync"
	"time"

	"propeller/internal/backoff"
	"propeller/internal/neterr"
	"propeller/queue"
)

// watch is the queue.Watch. It has a connection to each server while tubes sleep, see
// sweeper; puts and kicks of this process wake their tubes without it.
type watch struct {
	q        *client
	sleepers *queue.Sleepers
	loops    []*watchLoop
	wg       sync.WaitGroup // the loops

	ending sync.RWMutex // held for reading while a tube is woken
	closed bool
}

// Watch implements queue.Watcher.
func (q *client) Watch(wake func(tube string)) queue.Watch {
	w := &watch{q: q}
	w.sleepers = queue.NewSleepers(func(tube string) {
		w.ending.RLock()
		defer w.ending.RUnlock()
		if !w.closed {
			w.changed(tube)
			wake(tube)
		}
	})
	for _, srv := range q.servers {
		w.loops = append(w.loops, newWatchLoop(w, srv))
	}
	for _, loop := range w.loops {
		w.wg.Go(loop.run)
	}
	q.watching.Lock()
	defer q.watching.Unlock()
	open := append(slices.Clone(q.openWatches()), w)
	q.watches.Store(&open)
	return w
}

// Empty implements queue.Watcher. Delayed jobs come back by themselves. A pause would end with the
// tube, which exists while it has jobs or a consumer.
func (q *client) Empty(ctx context.Context, tube string) (bool, error) {
	st, err := q.TubeStats(ctx, tube)
	return err == nil && st.Ready+st.Reserved == 0 && st.PausedUntil.IsZero(), err
}

func (q *client) openWatches() []*watch {
	if open := q.watches.Load(); open != nil {
		return *open
	}
	return nil
}

// wake wakes a tube in which this process has put a job, or kicked one.
func (q *client) wake(tube string) {
	for _, w := range q.openWatches() {
		w.sleepers.Wake(tube)
	}
}

// Sleep implements queue.Watch.
func (w *watch) Sleep(tubes ...string) {
	var added []string
	for _, tube := range tubes {
		if w.sleepers.Add(tube) {
			added = append(added, tube)
		}
	}
	w.changed(added...)
}

// Forget implements queue.Watch.
func (w *watch) Forget(tubes ...string) {
	var removed []string
	for _, tube := range tubes {
		if w.sleepers.Remove(tube) {
			removed = append(removed, tube)
		}
	}
	w.changed(removed...)
}

// changed tells the loops of tubes that sleep now, or no longer.
func (w *watch) changed(tubes ...string) {
	if len(tubes) == 0 {
		return
	}
	for _, loop := range w.loops {
		loop.note(tubes)
	}
}

// Err implements queue.Watch.
func (w *watch) Err() error {
	if w.sleepers.Len() == 0 {
		return nil
	}
	var errs []error
	for _, loop := range w.loops {
		err := loop.lastErr()
		if err == nil {
			return nil // jobs are put on the others, too, and found when they are back
		}
		errs = append(errs, err)
	}
	return neterr.Join(errs...)
}

// Close implements queue.Watch.
func (w *watch) Close() {
	w.q.watching.Lock()
	open := slices.DeleteFunc(slices.Clone(w.q.openWatches()), func(o *watch) bool { return o == w })
	w.q.watches.Store(&open)
	w.q.watching.Unlock()
	w.ending.Lock()
	w.closed = true
	w.ending.Unlock()
	for _, loop := range w.loops {
		loop.stop()
	}
	w.wg.Wait()
}

// watchLoop is the part of a watch that deals with one server.
type watchLoop struct {
	w    *watch
	srv  *server
	ctx  context.Context // ended by stop
	stop context.CancelFunc
	some chan struct{} // tubes have changed; room for one

	mu      sync.Mutex
	changed map[string]struct{} // tubes that have begun or ceased to sleep
	err     error               // why there is no connection
}

func newWatchLoop(w *watch, srv *server) *watchLoop {
	loop := &watchLoop{w: w, srv: srv, some: make(chan struct{}, 1), changed: make(map[string]struct{})}
	loop.err = &brokenError{addr: srv.addr, err: errConnecting}
	loop.ctx, loop.stop = context.WithCancel(srv.ctx)
	return loop
}

// note takes changed tubes in. There are at most as many as the watch has had since the
// last round, or since the last attempt to connect.
func (loop *watchLoop) note(tubes []string) {
	loop.mu.Lock()
	for _, tube := range tubes {
		loop.changed[tube] = struct{}{}
	}
	loop.mu.Unlock()
	select {
	case loop.some <- struct{}{}:
	default:
	}
}

// takeChanged returns the changed tubes, which are then forgotten.
func (loop *watchLoop) takeChanged() map[string]struct{} {
	loop.mu.Lock()
	defer loop.mu.Unlock()
	if len(loop.changed) == 0 {
		return nil
	}
	changed := loop.changed
	loop.changed = make(map[string]struct{})
	return changed
}

func (loop *watchLoop) lastErr() error {
	loop.mu.Lock()
	defer loop.mu.Unlock()
	return loop.err
}

func (loop *watchLoop) setErr(err error) {
	loop.mu.Lock()
	loop.err = err
	loop.mu.Unlock()
}

// run connects and reconnects for ever, while tubes sleep.
func (loop *watchLoop) run() {
	pauses := backoff.Backoff{Min: minRedial, Max: maxRedial}
	for loop.awaitSleepers() {
		began := time.Now()
		err := loop.serve()
		switch {
		case loop.ctx.Err() != nil:
			return
		case err == nil: // nothing sleeps any more
			pauses.Reset()
			continue
		}
		loop.setErr(err)
		loop.srv.lost(err)
		if time.Since(began) > stable {
			pauses.Reset()
		}
		if pauses.Wait(loop.ctx) != nil {
			return
		}
	}
}

// awaitSleepers waits until tubes sleep. It reports false at the end of the loop.
func (loop *watchLoop) awaitSleepers() bool {
	for loop.ctx.Err() == nil {
		if loop.w.sleepers.Len() > 0 {
			return true
		}
		select {
		case <-loop.some:
		case <-loop.ctx.Done():
		}
	}
	return false
}

// watchEvery is the time from one round to the next: what a foreign program's job waits, at
// most, until its tube wakes.
const watchEvery = 150 * time.Millisecond

// serve connects and looks at the server again and again. It returns nil once nothing sleeps.
func (loop *watchLoop) serve() error {
	c, err := loop.srv.dialWire(loop.ctx)
	if err != nil {
		return err
	}
	defer c.close()
	s := newSweeper(loop, c)
	for well := false; loop.w.sleepers.Len() > 0; {
		began := time.Now()
		more, err := s.round()
		if err != nil {
			return err
		}
		if !well {
			well = true
			loop.setErr(nil)
			loop.srv.back()
		}
		if more {
			continue
		}
		// The pause also keeps a slow server from being asked all the time.
		took := time.Since(began)
		if err := backoff.Sleep(loop.ctx, max(watchEvery-took, took/4)); err != nil {
			return err
		}
	}
	return nil
}
