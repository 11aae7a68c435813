package worker

import (
	"sync"
	"time"
)

// event is something for a settler to do: settle t, or, with p, see what
// becomes of that push of t, which has ended.
type event struct {
	t *task
	p *push
}

// backlog is what waits for a settler. Adding never waits. It holds no more
// than one event per job held and per push in flight.
type backlog struct {
	mu     sync.Mutex
	events []event
	first  int // of events: the oldest
}

func (b *backlog) add(e event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.events) == cap(b.events) && b.first > len(b.events)/2 {
		n := copy(b.events, b.events[b.first:])
		clear(b.events[n:])
		b.events, b.first = b.events[:n], 0
	}
	b.events = append(b.events, e)
}

func (b *backlog) next() (e event, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first == len(b.events) {
		return e, false
	}
	e = b.events[b.first]
	b.events[b.first] = event{}
	if b.first++; b.first == len(b.events) {
		b.events, b.first = b.events[:0], 0
	}
	return e, true
}

func (b *backlog) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.first == len(b.events)
}

// hand gives an event to the settlers; it never waits.
func (r *run) hand(e event) {
	r.backlog.add(e)
	r.startSettler()
}

// maxSettlers is how many settle calls wait for the queue at once. A call
// waits about 0.1 ms, so these keep the queue's connection full.
const maxSettlers = 64

// startSettler adds a settler if there may be too few. They end when nothing
// is left to settle, so an idle worker has none.
func (r *run) startSettler() {
	for {
		n := r.active.Load()
		if n >= maxSettlers {
			return
		}
		if r.active.CompareAndSwap(n, n+1) {
			r.settlers.Go(r.settleAll)
			return
		}
	}
}

func (r *run) settleAll() {
	for {
		if e, ok := r.backlog.next(); ok {
			if !e.handle() {
				return
			}
			continue
		}
		// An event may have come after the look above while its sender saw
		// all settlers active: look again once this one no longer counts.
		r.active.Add(-1)
		if r.backlog.empty() {
			return
		}
		r.active.Add(1)
	}
}

// handle is a settler's work on one event. It returns false if the settler is
// no longer one (see linger).
func (e event) handle() (stays bool) {
	if e.p != nil {
		if !e.p.judged && !e.p.judgeGuarded() {
			return true // the guard holds it
		}
		if e.t.fan != nil {
			e.t.fan.over(e.p)
			return true
		}
		e.t.takeSlot()
	}
	return e.t.finish()
}

// judgeGuarded is judge; a panic there buries the job.
func (p *push) judgeGuarded() (decided bool) {
	defer func() {
		if v := recover(); v != nil {
			p.t.panicked(v)
			p.t.stage, p.verdict, p.judged, decided = stageUnfit, bury, true, true
		}
	}()
	return p.judge()
}

// finish settles a task, or sends it after all. It returns false if the settler
// is no longer one (see linger).
func (t *task) finish() (stays bool) {
	if t.stage == stageAge && t.checkAge() {
		return true
	}
	if t.probe != 0 { // not waiting for its records, which may take long
		t.r.w.cfg.Breaker.pass(t.probe)
		t.r.wake()
	}
	t.linger()
	defer func() {
		if v := recover(); v != nil {
			t.panicked(v)
			t.setAside(nil)
		}
		stays = t.letGo()
	}()
	switch t.stage {
	case stagePushed:
		t.settlePushed()
	case stageUnfit, stageRefused:
		t.setAside(nil)
	case stageExpired:
		t.expired()
	case stageBack:
		t.giveBack(0)
	}
	return false // the deferred function decides
}

// lingerAfter is how long it may take to settle a task before it no longer holds
// others up. Ordinarily it takes less than a millisecond; it waits for a queue
// server that is away, or that takes no records.
const lingerAfter = time.Second

// linger lets go of the settler's place and of the task's slot when settling
// it takes long: of several queue servers one may be away, and its jobs, which
// wait for it, must not stand in the way of the others'.
//
// As many tasks may linger as pushes may be in flight. The others keep their
// slots until there is room, so that the worker does not go on to receive jobs
// that it cannot get rid of.
func (t *task) linger() {
	t.release.Lock()
	defer t.release.Unlock()
	t.lingers = time.AfterFunc(lingerAfter, func() {
		t.release.Lock()
		defer t.release.Unlock()
		if t.released {
			return
		}
		r := t.r
		if !t.alone {
			t.alone = true
			r.active.Add(-1)
			if !r.backlog.empty() {
				r.startSettler()
			}
		}
		if !r.mayLinger() {
			t.lingers.Reset(lingerAfter)
			return
		}
		t.released = true
		if t.slot {
			t.slot = false
			r.slots.Add(-1)
		}
		r.wake()
	})
}

// mayLinger takes one of the places for tasks that linger, if there is one.
func (r *run) mayLinger() bool {
	for {
		n := r.lingering.Load()
		if n >= int64(r.w.cfg.InFlight) {
			return false
		}
		if r.lingering.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// letGo ends a task, and reports whether its settler still is one.
func (t *task) letGo() (stays bool) {
	r := t.r
	if t.fan != nil {
		t.fan.stopDoubts()
		r.mu.Lock()
		delete(r.fans, t)
		r.mu.Unlock()
	}
	t.release.Lock()
	defer t.release.Unlock()
	defer r.wake()
	t.lingers.Stop()
	r.held.Add(-1)
	if t.released {
		r.lingering.Add(-1)
	}
	t.released = true
	if t.slot {
		t.slot = false
		r.slots.Add(-1)
	}
	return !t.alone
}
