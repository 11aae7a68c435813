package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// stage is where a task stands when it comes to the settlers.
type stage int

const (
	stagePushed  stage = iota // its pushes have ended
	stageAge                  // the queue is to be asked about it, then it is sent
	stageUnfit                // it can never work: t.err
	stageExpired              // too late to be sent
	stageBack                 // the app has stopped meanwhile: give it back
	stageRefused              // all its pushes have failed for good, in an earlier job: bury it
)

// task is one job on its way: one push, or one for each of its tokens.
//
// It holds a slot of the worker from its receipt until it is settled, except
// while pushes of a fan-out, which have slots of their own, wait or are under
// way, and while the guard holds its answer.
type task struct {
	r       *run
	job     queue.Job
	body    []byte
	decoded Job
	stage   stage
	probe   int   // Breaker's number of it, if it shows whether the app works again; else 0
	err     error // why it is buried

	defaultExpiration bool // the job gave none

	asked   bool // the queue for stat; by one settler at a time
	stat    queue.Stat
	statErr error

	single push    // its push, unless it is a fan-out
	fan    *fanout // its pushes, if it is one

	handed atomic.Bool // over to the settlers; happens once

	release  sync.Mutex // for all below
	slot     bool       // it holds one
	released bool       // it ended, or it lingers: it takes no slot any more
	alone    bool       // its settler is none any more
	lingers  *time.Timer
}

// start decodes a job and sends its push. A panic on the way buries the job.
func (r *run) start(ctx context.Context, job queue.Job) {
	r.held.Add(1)
	r.slots.Add(1)
	t := &task{r: r, job: job, slot: true}
	defer t.guard()
	if r.w.cfg.Hold.held() {
		t.settle(stageBack)
		return
	}
	ok, probe := r.w.cfg.Breaker.take(r)
	t.probe = probe
	if !ok {
		t.settle(stageBack)
		return
	}
	t.body = job.Body()
	switch t.decoded, t.err = ParseJob(t.body, r.w.cfg.Topic, job.ID()); {
	case t.err != nil && t.refused():
		t.settle(stageAge)
		return
	case t.err != nil:
		t.settle(stageUnfit)
		return
	}
	t.applyDefaults()
	r.counted(max(1, len(t.decoded.Tokens)))
	if !t.refused() {
		t.observe(Fate{Tried: true})
	}
	switch {
	case !t.refused() && t.decoded.Expired(time.Now()):
		t.settle(stageExpired)
	case t.decoded.Tokens != nil:
		t.startFanOut()
	default:
		t.startSingle(ctx)
	}
}

// refused says that the job's pushes have failed for good: it is to be buried, or
// has been.
func (t *task) refused() bool { return t.decoded.Refused() != "" }

// applyDefaults fills in what the app says for jobs that do not.
func (t *task) applyDefaults() {
	cfg, j := &t.r.w.cfg, &t.decoded
	if j.TTL == 0 {
		j.TTL = cfg.TTL
	}
	if n := &j.Notification; n.Expiration == nil && cfg.Expiration > 0 {
		at := time.Now().Add(cfg.Expiration).Unix()
		n.Expiration = &at
		t.defaultExpiration = true
	}
}

func (t *task) startSingle(ctx context.Context) {
	p := &t.single
	p.init(t, t.decoded.Notification)
	if !t.refused() && p.known(time.Now()) {
		t.handed.Store(true)
		t.r.hand(event{t, p})
		return
	}
	var err error
	if p.conn, err = t.r.link.get(ctx); err != nil {
		p.done(apnsconn.Outcome{Class: apnsconn.NotSent, Err: err})
		return
	}
	if t.decoded.TTL > 0 || t.refused() {
		t.settle(stageAge)
		return
	}
	p.send(time.Now())
}

// settle hands the task to the settlers; it never waits.
func (t *task) settle(s stage) {
	if t.handed.Swap(true) {
		return
	}
	t.stage = s
	t.takeSlot()
	t.r.hand(event{t: t})
}

// guard is deferred around work on one task: a panic there buries its job and
// hurts no other.
func (t *task) guard() {
	if v := recover(); v != nil {
		t.panicked(v)
		t.settle(stageUnfit)
	}
}

func (t *task) panicked(v any) {
	t.r.w.cfg.Counters.Panics.Add(1)
	t.r.log.Error("panic while handling a job: the job is buried", "job", t.job.ID(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	t.err = fmt.Errorf("worker: panic: %v", v)
}

// takeSlot and freeSlot: see task.
func (t *task) takeSlot() {
	t.release.Lock()
	defer t.release.Unlock()
	if !t.slot && !t.released {
		t.slot = true
		t.r.slots.Add(1)
	}
}

func (t *task) freeSlot() {
	t.release.Lock()
	defer t.release.Unlock()
	if t.slot {
		t.slot = false
		t.r.slots.Add(-1)
		t.r.wake()
	}
}
