package worker

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// task is one job that the worker holds: one push, or one for each of its
// tokens. It belongs to the run's goroutine, and to a settler from settle to
// taskSettled.
type task struct {
	r       *run
	job     queue.Job
	id      string // job's, as it was received
	body    []byte
	decoded Job
	stage   stage
	err     error // why it is buried

	defaultExpiration bool      // the job gave none
	until             time.Time // no push is sent from then on; zero = no end
	late              bool      // that is why some tokens have not been sent

	unsent    []string // tokens that have no push; of a broadcast one that is ""
	oneToken  [1]string
	open      int       // pushes whose end is not known: sent, or held by the guard
	guarded   int       // of open: held by the guard
	allDoubts time.Time // since when no more than those keeps it from being settled; zero = more does
	queued    bool      // it is in run.sendq
	finishing bool      // a settler has it, or had

	chunks    [][]push // every push made for it
	one       [1]push  // the first chunk of a job with one token
	delivered int
	failed    []*push // those that have ended and were not delivered

	// Of the settler.
	asked    bool // the queue for stat
	stat     queue.Stat
	statErr  error
	next     stage   // of stageAge: what comes next; stagePushed to send it
	told     []Event // what to tell when the task is settled
	lastWord string  // the log line about the whole job, after those; "" = none
	lastErr  error

	settling time.Time // since when a settler has it, or had
	slow     bool      // that takes long
	lingers  bool      // it holds no slot meanwhile
	over     bool      // its settler is done
}

// stage is what a settler is to do with a task.
type stage int

const (
	stagePushed  stage = iota // its pushes have ended
	stageAge                  // ask the queue about it: it may be too late, or refused in an earlier job
	stageUnfit                // it can never work: task.err
	stageExpired              // too late to be sent
	stageBack                 // give it back
	stageRefused              // all its pushes have failed for good, in an earlier job: bury it
)

// list says that the job has a list of tokens.
func (t *task) list() bool { return t.decoded.Tokens != nil }

// refused says that the job holds pushes that have failed for good before.
func (t *task) refused() bool { return t.decoded.Refused() != "" }

// start takes in a job that has been received. A panic on the way buries it.
func (r *run) start(job queue.Job) {
	r.held++
	t := &task{r: r, job: job}
	defer t.rescue()
	t.id, t.body = job.ID(), job.Body()
	switch t.decoded, t.err = ParseJob(t.body, r.cfg.Topic, t.id); {
	case t.err != nil && t.refused():
		r.settle(t, stageAge)
		return
	case t.err != nil:
		r.settle(t, stageUnfit)
		return
	}
	t.applyDefaults()
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

// wait lets a task wait until its tokens can be sent.
func (r *run) wait(t *task) {
	t.queued = true
	r.sendq = append(r.sendq, t)
}

// applyDefaults fills in what the app says for jobs that do not.
func (t *task) applyDefaults() {
	cfg, j := t.r.cfg, &t.decoded
	if j.TTL == 0 {
		j.TTL = cfg.TTL
	}
	n := &j.Notification
	if n.Expiration == nil && cfg.Expiration > 0 {
		at := cfg.Wall().Add(cfg.Expiration).Unix()
		n.Expiration = &at
		t.defaultExpiration = true
	}
	if n.Expiration != nil && *n.Expiration != 0 {
		t.until = time.Now().Add(time.Unix(*n.Expiration, 0).Sub(cfg.Wall()))
	}
}

// rescue is deferred around work on one task: a panic there buries its job, once
// its open pushes have ended, and hurts no other.
func (t *task) rescue() {
	if v := recover(); v != nil {
		t.panicked(v)
		t.unsent = nil
		t.r.maySettle(t)
	}
}

func (t *task) panicked(v any) {
	t.r.cfg.Counters.Panics.Add(1)
	t.r.log.Error("panic while handling a job: the job is buried", "job", t.id, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	t.err = fmt.Errorf("worker: panic: %v", v)
}

// maySettle settles a task of which nothing is to be sent and nothing open.
func (r *run) maySettle(t *task) {
	switch {
	case t.open > 0 || t.finishing:
	case t.err != nil:
		r.settle(t, stageUnfit)
	case len(t.unsent) == 0 || t.late:
		r.settle(t, stagePushed)
	}
}

// chunkSize is how many pushes are allocated at once: with about 300 bytes each
// they stay below the 32 KiB from where on Go's allocator is slow.
const chunkSize = 64

// newChunk makes pushes for the next n tokens, and takes these from unsent.
func (t *task) newChunk(n int, c *conn, now time.Time) []push {
	n = min(n, chunkSize)
	tokens := t.unsent[:n]
	t.unsent = t.unsent[n:]
	chunk := t.one[:]
	if t.list() || len(t.chunks) > 0 {
		chunk = make([]push, n)
	}
	ids := t.decoded.Notification.ID
	if t.list() {
		ids = t.decoded.seed.ids(tokens)
	}
	for i := range chunk {
		p := &chunk[i]
		p.t, p.n, p.conn, p.began = t, t.decoded.Notification, c, now
		p.n.Token = tokens[i]
		if t.list() {
			p.n.ID = ids[i*uuidLen : (i+1)*uuidLen]
		}
	}
	t.chunks = append(t.chunks, chunk)
	return chunk
}

// tooLate says that no push of the task may be sent any more.
func (t *task) tooLate(now time.Time) bool { return !t.until.IsZero() && !now.Before(t.until) }

// send sends pushes to up to n of the task's tokens, and reports how many have
// been dealt with: none if the breaker lets none through.
func (t *task) send(n int, now time.Time) int {
	r, before, probe := t.r, t.unsent, 0
	closed := r.cfg.Breaker.closed.Load()
	if closed {
		n = 1
	}
	chunk := t.newChunk(min(n, len(t.unsent)), r.link.conn, now)
	if closed && !chunk[0].known(now) { // what is known needs no permission
		var ok bool
		if ok, probe = r.cfg.Breaker.take(r.cfg.Index, now); !ok {
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
			t.chunks[len(t.chunks)-1] = chunk[:begun]
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
	p.conn.sending++
	p.conn.Send(&p.n, p.done)
}

// done takes the push's outcome. It is called from the connection's goroutine.
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

// addressed is how many tokens the job has; 1 for a channel, and for a job that
// cannot be read.
func (t *task) addressed() int { return max(1, len(t.decoded.Tokens)) }

// push is one notification on its way to one device or channel.
type push struct {
	t       *task
	n       apnsconn.Notification
	conn    *conn
	began   time.Time
	took    time.Duration
	over    atomic.Bool // its outcome is known
	outcome apnsconn.Outcome

	probe        int           // Breaker's number of it, if it shows whether the app works again; else 0
	slot         bool          // it holds one of the run's
	refusedAlone bool          // it came back unsent from a connection that goes on
	remembered   bool          // not sent: the outcome is an earlier one
	doubted      bool          // of class Token, but the guard does not believe it
	verdict      verdict       // what is to become of it
	first        time.Duration // of verdict later: the first pause
	err          error         // why it is not tried later, though its class is
	pause        time.Duration // how long it stays away, of verdict later; 0 until settled
}
