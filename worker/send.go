package worker

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker/job"
)

// task is one job that the worker has reserved, with one push for each of its tokens. It belongs
// to the run's goroutine, and while it is being settled to a settler.
type task struct {
	r       *run
	job     queue.Job
	id      string // of job, as it was received
	body    []byte
	decoded job.Job
	stage   stage
	err     error // why it can never work

	until time.Time // no push is sent from then on; zero = no end
	late  bool      // until has passed, so some tokens were not sent

	unsent    []string // tokens without a push; one "" for a broadcast
	oneToken  [1]string
	open      int       // pushes without an action: sent, or pending
	pending   int       // how many of open wait for the guard
	allDoubts time.Time // since when only pending answers keep it from being settled; zero = there are others
	queued    bool      // it is in run.sendq
	finishing bool      // it was handed to a settler

	chunks    []chunk // every push made for it
	one       [1]push // the first chunk of a job with one token
	delivered int
	failed    []*push // pushes that ended and were not delivered

	// The settler owns these.
	asked    bool // the queue was asked for stat
	stat     queue.Stat
	statErr  error
	next     stage     // result of stageAge; stagePushed means send it
	notes    []note    // what to report once the task is settled
	attempt  int       // which try this was for pushes that come later, and
	put      time.Time // when their job was put, as an Event has them
	lastWord string    // a log line about the whole job, after those; "" = none
	lastErr  error

	settling time.Time // when it was last handed to a settler
	slow     bool      // settling takes longer than lingerAfter
	lingers  bool      // it uses no slot while it is settled
	over     bool      // its settler has finished
}

// stage is what a settler has to do with a task.
type stage int

const (
	stagePushed  stage = iota // its pushes have ended
	stageAge                  // ask the queue: it may have expired, or been refused in an earlier job
	stageUnfit                // it can never work: task.err
	stageExpired              // too late to be sent
	stageRelease              // release it
	stageUnread               // release it as it came: there are too many large jobs
	stageRefused              // its pushes failed for good in an earlier job: bury it
)

// list reports whether the job has a list of tokens.
func (t *task) list() bool { return t.decoded.Tokens != nil }

// refused reports whether the job's pushes failed for good in an earlier job.
func (t *task) refused() bool { return t.decoded.Refused() != "" }

// start handles a job that was received. A panic in it buries the job.
func (r *run) start(job queue.Job) {
	r.reserved++
	t := &task{r: r, job: job}
	defer t.recoverPanic()
	t.id, t.body = job.ID(), job.Body()
	if !r.weight.take(t) { // it came together with other large jobs
		r.settle(t, stageUnread)
		return
	}
	t.decoded, t.err = r.cfg.Rules.Parse(t.body, t.id)
	if f, ok := job.(queue.FaultReporter); ok && t.err == nil {
		t.err = f.Fault()
	}
	switch {
	case t.err != nil && t.refused():
		r.settle(t, stageAge)
		return
	case t.err != nil:
		r.settle(t, stageUnfit)
		return
	}
	t.applyDefaults()
	if warning := r.cfg.Rules.FirstWarning(&t.decoded.Notification); warning != "" {
		r.log.Warn(warning)
	}
	if t.list() {
		t.unsent = t.decoded.Tokens
		r.lists[t] = struct{}{}
	} else {
		t.oneToken[0] = t.decoded.Notification.Token
		t.unsent = t.oneToken[:]
	}
	r.counted(len(t.unsent))
	switch {
	case t.refused():
		r.settle(t, stageAge)
	case t.decoded.Expired(r.cfg.Wall()):
		r.emitTried(t)
		r.settle(t, stageExpired)
	case t.decoded.TTL > 0:
		r.emitTried(t)
		r.settle(t, stageAge)
	default:
		r.emitTried(t)
		r.wait(t)
	}
}

// wait queues a task until its tokens can be sent.
func (r *run) wait(t *task) {
	t.queued = true
	r.sendq = append(r.sendq, t)
}

// applyDefaults sets the app's defaults where the job says nothing.
func (t *task) applyDefaults() {
	wall := t.r.cfg.Wall()
	t.r.cfg.Rules.ApplyDefaults(&t.decoded, wall)
	if at := t.decoded.Notification.Expiration; at != nil && *at != 0 {
		t.until = time.Now().Add(time.Unix(*at, 0).Sub(wall))
	}
}

// recoverPanic is deferred around work on one task: a panic there buries its job, once
// its open pushes have ended, and affects no other.
func (t *task) recoverPanic() {
	if v := recover(); v != nil {
		t.panicked(v)
		t.unsent = nil
		t.r.maySettle(t)
	}
}

func (t *task) panicked(v any) {
	t.r.app.Counters.Panics.Add(1)
	t.r.w.limitedLog.Log(slog.LevelError, "panic while handling a job: the job is buried", "job", t.id, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	t.err = fmt.Errorf("worker: panic: %v", v)
}

// maySettle settles a task that has nothing to send and nothing open.
func (r *run) maySettle(t *task) {
	switch {
	case t.open > 0 || t.finishing:
	case t.err != nil:
		r.settle(t, stageUnfit)
	case len(t.unsent) == 0 || t.late:
		r.settle(t, stagePushed)
	}
}

// chunkSize is how many pushes are allocated at once. At about 300 bytes each they stay
// below 32 KiB, where Go's allocator becomes slow.
const chunkSize = 64

// newChunk makes pushes for the next n unsent tokens.
func (t *task) newChunk(n int, c *conn, now time.Time) []push {
	n = min(n, chunkSize)
	tokens := t.unsent[:n]
	t.unsent = t.unsent[n:]
	pushes := t.one[:]
	if t.list() || len(t.chunks) > 0 {
		pushes = make([]push, n)
	}
	ids := t.decoded.Notification.ID
	if t.list() {
		ids = t.decoded.Seed.IDs(tokens)
	}
	for i := range pushes {
		p := &pushes[i]
		p.t, p.n, p.conn, p.began = t, t.decoded.Notification, c, now
		p.n.Token = tokens[i]
		if t.list() {
			p.n.ID = ids[i*job.IDLen : (i+1)*job.IDLen]
		}
	}
	t.addChunk(pushes)
	return pushes
}

// tooLate reports whether no push of the task may be sent any more.
func (t *task) tooLate(now time.Time) bool { return !t.until.IsZero() && !now.Before(t.until) }

// send sends pushes to up to n of the task's tokens, and returns how many it handled: 0 if
// the breaker permits none.
func (t *task) send(n int, now time.Time) int {
	r, before, probe := t.r, t.unsent, 0
	closed := r.app.breaker.closed.Load()
	if closed {
		n = 1
	}
	chunk := t.newChunk(min(n, len(t.unsent)), r.link.conn, now)
	if closed && !chunk[0].known(now) { // a known outcome needs no permission
		var ok bool
		if ok, probe = r.app.breaker.take(&r.seat, now); !ok {
			t.unsent, t.chunks = before, t.chunks[:len(t.chunks)-1]
			return 0
		}
	}
	t.open += len(chunk)
	begun := 0
	defer func() {
		if begun < len(chunk) { // a panic: this push and those behind it were not sent
			t.open -= len(chunk) - begun
			chunk[begun].freeSlot()
			chunk[begun].over.Store(true)
			t.chunks[len(t.chunks)-1].pushes = chunk[:begun]
		}
	}()
	for i := range chunk {
		p := &chunk[i]
		p.probe = probe
		if p.known(now) {
			r.ended(p, now)
		} else {
			p.send()
		}
		begun++
	}
	return len(chunk)
}

// send gives the push to its connection.
func (p *push) send() {
	p.slot = true
	p.t.r.slots++
	p.t.r.requests++
	p.conn.sending++
	p.conn.Send(&p.n, p.done)
}

// done receives the push's outcome, in the connection's goroutine.
func (p *push) done(o apnsconn.Outcome) {
	if p.over.Swap(true) {
		return // given up meanwhile
	}
	p.outcome, p.took = o, time.Since(p.began)
	p.t.r.box.pushEnded(p)
}

func (p *push) freeSlot() {
	if p.slot {
		p.slot = false
		p.t.r.slots--
		p.conn.sending--
	}
}

// addressed is how many tokens the job has; 1 for a channel or a job that cannot be read.
func (t *task) addressed() int { return max(1, len(t.decoded.Tokens)) }

// push is one notification on its way to one device or channel.
type push struct {
	t       *task
	chunk   int // of t.chunks
	n       apnsconn.Notification
	conn    *conn
	began   time.Time
	took    time.Duration
	over    atomic.Bool // it has an outcome
	outcome apnsconn.Outcome

	probe        int           // the breaker's number if it is a probe, else 0
	slot         bool          // it uses one of the run's slots
	refusedAlone bool          // it came back unsent, but the connection goes on
	remembered   bool          // not sent: the outcome is remembered
	doubted      bool          // of class Token, but the guard does not believe it
	action       policyAction  // what happens to it
	first        time.Duration // for action later: the first delay
	err          error         // why it is not tried again, although its class is
	delay        time.Duration // for action later: how long it stays away; 0 until settled
}

// made is the seed of the job that the producer put.
func (t *task) made() job.Seed {
	if t.decoded.Parent != nil {
		return t.decoded.Parent.Seed
	}
	if t.decoded.Seed == (job.Seed{}) {
		t.decoded.Seed = job.SeedOf(t.id, t.body)
	}
	return t.decoded.Seed
}

// send sends up to n pushes of the jobs at hand.
func (r *run) send(n int, now time.Time) {
	for n > 0 && len(r.sendq) > 0 {
		t := r.sendq[0]
		dealt := r.sendSome(t, n, now)
		n -= dealt
		if len(t.unsent) == 0 || t.late {
			r.sendq[0] = nil
			r.sendq = r.sendq[1:]
			t.queued = false
			r.maySettle(t)
		} else if dealt == 0 {
			return // another worker has used up the breaker's permission
		}
	}
}

func (r *run) sendSome(t *task, n int, now time.Time) (dealt int) {
	defer t.recoverPanic()
	if t.late = t.tooLate(now); t.late || len(t.unsent) == 0 {
		return 0
	}
	return t.send(n, now)
}

// chunk is some of the pushes made for a task.
type chunk struct {
	pushes    []push // nil once all of a list's are among delivered
	finished  int    // how many have been delivered
	delivered []Delivery
}

func (t *task) addChunk(pushes []push) {
	for i := range pushes {
		pushes[i].chunk = len(t.chunks)
	}
	t.chunks = append(t.chunks, chunk{pushes: pushes})
}

// finish notes that a push was delivered. Once all of a list's chunk
// was, it keeps only what events need: very many pushes may wait for the last one of their list.
func (t *task) finish(p *push) {
	t.delivered++
	c := &t.chunks[p.chunk]
	if c.finished++; !t.list() || c.finished < len(c.pushes) {
		return
	}
	c.delivered = make([]Delivery, len(c.pushes))
	for i := range c.pushes {
		c.delivered[i] = c.pushes[i].delivery()
	}
	c.pushes = nil
}

func (p *push) delivery() Delivery {
	return Delivery{p.n.Token, p.outcome.APNsID, p.began.Add(p.took), p.took}
}

// each yields what was delivered, until yield returns false.
func (c *chunk) each(yield func(Delivery) bool) bool {
	for _, d := range c.delivered {
		if !yield(d) {
			return false
		}
	}
	for i := range c.pushes {
		if p := &c.pushes[i]; p.outcome.Class == apnsconn.Delivered && p.over.Load() && !yield(p.delivery()) {
			return false
		}
	}
	return true
}
