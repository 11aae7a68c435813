package worker

import (
	"context"
	"sync"
	"time"
)

// maxSettlers is how many tasks are settled at once, not counting slow ones. A call to the
// queue waits about 0.1 ms, so this many keep its connection busy.
const maxSettlers = 64

// lingerAfter is when a task that is being settled becomes slow and no longer delays
// others. Settling usually takes less than a millisecond; it takes longer while a queue server
// is away or takes no records.
const lingerAfter = time.Second

// settlers are goroutines that settle tasks, and so wait for the queue. They wait for the
// next task, because a new goroutine for each would spend a tenth of all work on its
// stack, and end when the worker has no jobs, so an idle worker has none. The backlog
// has only tasks of the run.
type settlers struct {
	ctx    context.Context // of calls to the queue
	cancel context.CancelFunc

	// The run's goroutine owns these. Up to InFlight slow tasks may linger: they use no slot,
	// because with several queue servers one may be away, and its waiting jobs must not block
	// the others'. Further slow tasks keep their slots, so that the worker does not go on to
	// receive jobs that it cannot settle.
	fresh       []settling // not slow yet; oldest first
	slowWaiting []settling // slow, waiting for room to linger
	lingering   int

	mu        sync.Mutex
	more      sync.Cond // for those that wait for a task
	backlog   []*task
	active    int
	slow      int  // how many of active are slow
	free      int  // how many of active wait for a task and were not woken
	dismissed bool // the worker has no jobs: no settler waits
	all       sync.WaitGroup
	outage    storeOutage
}

// settling is a task and when it was handed to a settler.
type settling struct {
	t     *task
	since time.Time
}

// over reports whether the settler has finished with it.
func (s settling) over() bool { return s.t.over || !s.t.settling.Equal(s.since) }

func (s *settlers) init(r *run) {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.more.L = &s.mu
	s.outage.log = r.log
}

// settle hands a task to the settlers; it never blocks.
func (r *run) settle(t *task, s stage) {
	if t.finishing {
		return
	}
	if t.delivered > 0 {
		r.tellDelivered(t)
	}
	t.finishing, t.stage, t.settling = true, s, time.Now()
	t.over, t.slow, t.lingers = false, false, false
	r.slots++
	r.settlers.fresh = append(r.settlers.fresh, settling{t, t.settling})
	r.settlers.add(t)
}

func (s *settlers) add(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backlog, s.dismissed = append(s.backlog, t), false
	s.startLocked()
}

func (s *settlers) startLocked() {
	switch {
	case len(s.backlog) == 0:
	case s.free > 0:
		s.free--
		s.more.Signal()
	case s.active-s.slow < maxSettlers:
		s.active++
		s.all.Go(s.work)
	}
}

func (s *settlers) work() {
	for t := s.next(); t != nil; t = s.next() {
		t.work()
		t.r.box.taskSettled(t)
	}
}

// next waits for a task. nil: the settler is not needed any more.
func (s *settlers) next() *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.backlog) == 0 && !s.dismissed {
		s.free++
		s.more.Wait()
	}
	if len(s.backlog) == 0 || s.active-s.slow > maxSettlers {
		s.active--
		return nil
	}
	t := s.backlog[0]
	s.backlog[0] = nil
	s.backlog = s.backlog[1:]
	return t
}

// dismiss ends the settlers that have no task.
func (s *settlers) dismiss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dismissed, s.free = true, 0
	s.more.Broadcast()
}

// slower changes the number of slow settlers.
func (s *settlers) slower(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow += by
	s.startLocked()
}

func (s *settlers) wait() {
	s.dismiss()
	s.all.Wait()
}

// linger finds the tasks that have become slow, and frees the slots of as many as may
// linger.
func (r *run) linger(now time.Time) {
	s := &r.settlers
	for len(s.fresh) > 0 {
		f := s.fresh[0]
		if !f.over() {
			if now.Sub(f.since) < lingerAfter {
				break
			}
			f.t.slow = true
			s.slower(1)
			s.slowWaiting = append(s.slowWaiting, f)
		}
		s.fresh[0] = settling{}
		s.fresh = s.fresh[1:]
	}
	for len(s.slowWaiting) > 0 && s.lingering < r.cfg.InFlight {
		if c := s.slowWaiting[0]; !c.over() {
			if !r.weight.linger(c.t) {
				break
			}
			c.t.lingers = true
			s.lingering++
			r.slots--
		}
		s.slowWaiting[0] = settling{}
		s.slowWaiting = s.slowWaiting[1:]
	}
}

// due is when the next task becomes slow.
func (s *settlers) due() time.Time {
	if len(s.fresh) == 0 {
		return time.Time{}
	}
	return s.fresh[0].since.Add(lingerAfter)
}

// settled handles a task that a settler has finished with: it leaves the worker, or goes on
// after the queue was asked about it.
func (r *run) settled(t *task) {
	t.over, t.finishing = true, false
	if t.slow {
		r.settlers.slower(-1)
	}
	if t.lingers {
		r.settlers.lingering--
	} else {
		r.slots--
	}
	if t.stage == stageAge {
		if t.lingers {
			r.weight.stay(t)
		}
		r.resume(t)
		return
	}
	r.weight.leave(t)
	t.finishing = true
	if r.reserved--; r.reserved == 0 {
		r.settlers.dismiss()
	}
	delete(r.lists, t)
	r.tell(t)
}

// resume sends a task that the queue was asked about, or settles it according to the answer.
func (r *run) resume(t *task) {
	defer t.recoverPanic()
	switch {
	case t.err != nil:
		r.settle(t, stageUnfit)
	case t.next != stagePushed:
		r.settle(t, t.next)
	case r.ending:
		r.settle(t, stageRelease)
	default:
		if t.refused() { // it was kicked
			r.emitTried(t)
		}
		t.asked = false // it may take minutes until it is settled
		r.wait(t)
	}
}
