package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
)

// fanout is the pushes of a job with several tokens. The pump sends them as
// there is room; those that APNs takes are only counted.
type fanout struct {
	t    *task
	next int          // of the job's tokens: the first that has no push. The pump's, then its settler's
	open atomic.Int32 // pushes that have not ended, and one while the pump may make more

	until time.Time // no push is sent from then on; zero = no end
	late  bool      // that is why some have not been sent. The pump's, then its settler's

	// chunks holds the pushes. Of the pump, and of stop when the pump has ended.
	chunks [][]push

	doubts doubts

	mu     sync.Mutex
	failed []*push // those that have ended and were not delivered
}

// chunkSize is how many pushes are allocated at once: with about 300 bytes each
// they stay below the 32 KiB from where on Go's allocator is slow.
const chunkSize = 64

// startFanOut lets a task wait for room for its pushes.
func (t *task) startFanOut() {
	r := t.r
	t.fan = &fanout{t: t}
	t.fan.open.Store(1)
	if at := t.decoded.Notification.Expiration; at != nil && *at != 0 {
		t.fan.until = time.Unix(*at, 0)
	}
	r.mu.Lock()
	r.fans[t] = struct{}{}
	r.mu.Unlock()
	if t.decoded.TTL > 0 || t.refused() {
		t.settle(stageAge)
		return
	}
	r.waiting = append(r.waiting, t)
	t.freeSlot()
}

// resume lets a task wait for room whose age has been checked.
func (r *run) resume(t *task) {
	t.freeSlot()
	r.mu.Lock()
	stopped := r.stopped
	if !stopped {
		r.resumed = append(r.resumed, t)
	}
	r.mu.Unlock()
	if stopped {
		t.fan.pushEnded()
		return
	}
	r.interrupt()
}

// takeResumed lets the pump see the tasks that were resumed.
func (r *run) takeResumed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, r.resumed...)
	r.resumed = nil
}

// probeWaits says that the job that is to show whether the app works again has
// been received, and its first push is still to be sent.
func (r *run) probeWaits() bool {
	return len(r.waiting) > 0 && r.waiting[0].fan.next == 0 && r.waiting[0].probing()
}

// sendWaiting sends up to n pushes of the tasks that wait. It reports false
// when there are none. Only the pump calls it.
func (r *run) sendWaiting(ctx context.Context, n int) bool {
	if len(r.waiting) == 0 {
		return false
	}
	conn, err := r.link.get(ctx)
	if err != nil {
		r.cut()
		return true
	}
	for n > 0 && len(r.waiting) > 0 {
		t := r.waiting[0]
		sent := t.sendSome(conn, n)
		n -= sent
		if t.fan.next == len(t.decoded.Tokens) || t.fan.late || t.handed.Load() {
			r.waiting[0] = nil
			r.waiting = r.waiting[1:]
			t.fan.pushEnded()
		} else if sent == 0 {
			break // its probe is on the way
		}
	}
	return true
}

// sendSome sends up to n pushes of a fan-out, none when its time is over.
func (t *task) sendSome(conn Conn, n int) (sent int) {
	f := t.fan
	defer t.guard()
	now := time.Now()
	if f.late = !f.until.IsZero() && !now.Before(f.until); f.late {
		return 0
	}
	if t.probing() {
		n = min(n, 1-min(f.next, 1))
	}
	tokens := t.decoded.Tokens[f.next:]
	tokens = tokens[:min(n, len(tokens), chunkSize)]
	if len(tokens) == 0 {
		return 0
	}
	chunk := make([]push, len(tokens))
	f.chunks = append(f.chunks, chunk)
	ids := t.decoded.seed.ids(tokens)
	for i := range chunk {
		p := &chunk[i]
		p.init(t, t.decoded.Notification)
		if f.next > 0 {
			p.probe = 0
		}
		p.n.Token, p.n.ID = tokens[i], ids[i*uuidLen:(i+1)*uuidLen]
		p.conn = conn
		f.begin(p, now)
		sent++
	}
	return sent
}

// begin sends a push, if what becomes of it is not known. A panic on the way
// goes on, but not with the push's slot.
func (f *fanout) begin(p *push, now time.Time) {
	r := f.t.r
	f.next++
	f.open.Add(1)
	r.slots.Add(1)
	p.slot = true
	begun := false
	defer func() {
		if !begun && !p.ended.Swap(true) {
			p.freeSlot()
		}
	}()
	if p.known(now) {
		r.hand(event{f.t, p})
	} else {
		p.send(now)
	}
	begun = true
}

// probing says that the task's first push is to show whether the app works
// again, and has not shown it.
func (t *task) probing() bool {
	if t.probe == 0 {
		return false
	}
	s := t.r.w.cfg.Breaker.State()
	return s.Broken || s.Paused
}

// pushEnded counts the end of one push, or of the pump's part.
func (f *fanout) pushEnded() {
	switch f.open.Add(-1) {
	case 0:
		f.t.settle(stagePushed)
	case f.doubts.n.Load():
		f.onlyDoubts()
	}
}

// over takes a push that was not simply delivered, from a settler.
func (f *fanout) over(p *push) {
	if p.outcome.Status != 0 && !p.remembered {
		f.t.r.w.finished.Add(1)
	}
	if p.verdict == finished {
		p.log(0)
	} else {
		f.mu.Lock()
		f.failed = append(f.failed, p)
		f.mu.Unlock()
	}
	p.freeSlot()
	f.pushEnded()
	f.t.r.wake()
}

// cut ends the waiting of all tasks: those of their tokens that were not sent
// go back to the queue. A task whose probe is under way goes on waiting for it.
// Only the pump calls it.
func (r *run) cut() { r.cutBut(func(*task) bool { return false }) }

// cutBroken is cut for an app that is broken, unless a task's probe has healed it
// this moment: that task goes on.
func (r *run) cutBroken() {
	r.cutBut(func(t *task) bool { return t.probe != 0 && !t.probing() })
}

func (r *run) cutBut(goesOn func(*task) bool) {
	var stay []*task
	for _, t := range r.waiting {
		if t.probe != 0 && t.fan.open.Load() > 1 || goesOn(t) {
			stay = append(stay, t)
		} else {
			t.fan.pushEnded()
		}
	}
	r.waiting = stay
}

// stopFanOut ends all sending of waiting tasks.
func (r *run) stopFanOut() {
	r.mu.Lock()
	r.stopped = true
	tasks := append(r.waiting, r.resumed...)
	r.waiting, r.resumed = nil, nil
	r.mu.Unlock()
	for _, t := range tasks {
		t.fan.pushEnded()
	}
}

// errUnfinished: the worker stops.
var errUnfinished = errors.New("the time to finish pushes in flight is over")

// abandonFanOut gives up the open pushes of those tasks of which others have
// ended, so that these need not be repeated. It reports whether there are any.
// The pump has ended.
func (r *run) abandonFanOut() (any bool) {
	r.mu.Lock()
	var tasks []*task
	for t := range r.fans {
		if int(t.fan.open.Load()) < t.fan.next {
			tasks = append(tasks, t)
		}
	}
	r.mu.Unlock()
	for _, t := range tasks {
		for _, chunk := range t.fan.chunks {
			for i := range chunk {
				if p := &chunk[i]; !p.ended.Swap(true) {
					p.outcome = apnsconn.Outcome{Class: apnsconn.Unknown, Err: errUnfinished}
					r.hand(event{t, p})
				}
			}
		}
	}
	return len(tasks) > 0
}
