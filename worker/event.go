package worker

import (
	"errors"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/worker/job"
)

// Action is what happens to a push that has ended, and so to its job.
type Action string

// The actions.
const (
	Tried   Action = "tried"   // not an end: the job was received and its pushes are about to be sent
	Deleted Action = "deleted" // done: it was delivered, or a record says why not
	Retried Action = "retried" // it goes back to the queue, for at least Event.Delay
	Resent  Action = "resent"  // it was certainly not sent, and is sent again without going back to the queue
	Buried  Action = "buried"  // its job is buried with the reason
	Expired Action = "expired" // it was too late; nothing was sent
)

// Event is the end of a push. Its worker reports it once: for a delivered push at its end,
// for others when the job is settled. It is valid until Pushed returns.
type Event struct {
	At     time.Time
	App    string   // the app's name
	Worker int      // its number in the app
	Job    string   // the id that the job's producer got, as the job says
	Seed   job.Seed // of the producer's job: proves that this one comes of it
	ID     string   // the job's id in the queue; it differs from Job for a remainder
	Ref    string   // the producer's own id
	Token  string   // the first 8 characters of the token, or of the channel's id
	APNsID string
	Action Action
	// Class, Status, Reason and Err are the push's outcome. Tokens without a push (an
	// expired job, one that can never work, a malformed token) have Class Rejected,
	// Status 0 and a Reason. Tokens that go back untried have Class NotSent.
	Class      apnsconn.Class
	Status     int
	Reason     string
	Err        error
	BuryReason string        // the reason that the job is buried with; set for the first of several pushes
	Delay      time.Duration // of Retried
	// Attempt is which try this was, 1 for the first; 0 if the queue was not asked, as
	// for delivered pushes.
	Attempt int
	Took    time.Duration // from sending to the answer
	Put     time.Time     // when the job was put, to the engine's precision; zero if the queue was not asked
	// N is how many pushes the event stands for. It is more than 1 for the delivered pushes
	// of a list, see Each, and for tokens without a push.
	N    int
	Sent bool // the outcome is this push's own: not remembered from an earlier one, and not doubted by the guard

	t *task // set for the delivered pushes of a list
	p *push // set for any other push

	lines *lines // of the list that it is part of; nil: it gets a line of its own
}

// Explanation says in words why the push was not delivered; "" if it was.
func (e *Event) Explanation() string {
	switch {
	case e.Class == apnsconn.Delivered, e.Action == Tried, e.Class == apnsconn.NotSent && e.Err == nil:
		return ""
	case e.BuryReason != "":
		return e.BuryReason
	case e.Reason != "":
		return e.Reason
	}
	return outcomeText(apnsconn.Outcome{Class: e.Class, Status: e.Status, Err: e.Err})
}

// Detail is APNs' answer as it is logged, or why there is none; "" if the push was
// delivered.
func (e *Event) Detail() string {
	if e.Class == apnsconn.Delivered || e.Action == Tried {
		return ""
	}
	return cut(outcomeText(apnsconn.Outcome{Class: e.Class, Status: e.Status, Reason: e.Reason, Err: e.Err}))
}

// Sink receives events. It must not block, and many goroutines call it.
type Sink interface{ Pushed(e *Event) }

// Delivery is one of the delivered pushes of a list.
type Delivery struct {
	Token  string // the whole token: do not keep, log or show it
	APNsID string
	At     time.Time
	Took   time.Duration
}

// Each iterates over the delivered pushes of a list.
func (e *Event) Each() iter.Seq[Delivery] {
	return func(yield func(Delivery) bool) {
		if e.t == nil {
			return
		}
		for i := range e.t.chunks {
			if !e.t.chunks[i].each(yield) {
				return
			}
		}
	}
}

// emit completes an event of a task and hands it to the sinks.
func (r *run) emit(t *task, e *Event) {
	e.App, e.Worker, e.Job, e.ID, e.Ref = r.cfg.App, r.w.index, t.firstID(), t.id, t.decoded.Ref
	e.Seed = t.made()
	for _, s := range r.w.sinks {
		r.hand(s, e)
	}
}

// firstID is the id that the job's producer got.
func (t *task) firstID() string {
	if t.decoded.Parent != nil {
		return t.decoded.Parent.Job
	}
	return t.id
}

func (r *run) emitTried(t *task) {
	r.scratch = Event{At: time.Now(), Action: Tried, N: t.addressed()}
	r.emit(t, &r.scratch)
	r.scratch = Event{}
}

// event returns the event of a push that has ended.
func (p *push) event(a Action) Event {
	o := &p.outcome
	return Event{
		At: p.began.Add(p.took), Token: shortToken(&p.n), APNsID: o.APNsID, Action: a,
		Class: o.Class, Status: o.Status, Reason: o.Reason, Err: o.Err,
		Took: p.took, Delay: p.delay, N: 1, Sent: !p.remembered && !p.doubted, p: p,
	}
}

// tellDelivered reports the delivered pushes of a task in one event.
func (r *run) tellDelivered(t *task) {
	e := &r.scratch
	if t.list() {
		*e = Event{At: time.Now(), Action: Deleted, Class: apnsconn.Delivered, Status: 200, N: t.delivered, Sent: true, t: t}
	} else {
		*e = t.chunks[len(t.chunks)-1].pushes[0].event(Deleted)
	}
	r.emit(t, e)
	*e = Event{}
}

// tell reports all other ends, once the task is settled.
func (r *run) tell(t *task) {
	if len(t.notes) == 0 && t.lastWord == "" {
		return // as after nearly every job
	}
	var lines lines
	for _, o := range t.notes {
		r.scratch = t.eventOf(o)
		if t.list() {
			r.scratch.lines = &lines
		}
		r.emit(t, &r.scratch)
	}
	r.scratch = Event{}
	t.lineMore(&lines)
	if t.lastWord != "" {
		r.w.limitedLog.Log(slog.LevelWarn, t.lastWord, "job", t.id, "err", t.lastErr)
	}
}

// hand calls a sink, and recovers if it panics.
func (r *run) hand(s Sink, e *Event) {
	defer func() {
		if v := recover(); v != nil {
			r.app.Counters.Panics.Add(1)
			r.log.Error("panic in a sink of events", "panic", v)
		}
	}()
	s.Pushed(e)
}

const (
	// maxRecent is how many pushes each list of a Recent holds: more than a person reads,
	// in 50 KiB.
	maxRecent = 50
	// recentEvery is how often a delivered push is noted, with bursts of recentBurst after a
	// rest. Nobody reads more than 20 a second, and so a high rate costs next to nothing.
	recentEvery = 50 * time.Millisecond
	recentBurst = 25
	// maxShown bounds a reason, which is APNs' text, in bytes.
	maxShown = 200
)

// Recent remembers how the last pushes of one app ended, for people who look. It keeps the
// last failures apart, since a flood of good pushes would wash them away. It is shared by
// the app's workers. The zero value is ready for use; Last and Active of nil
// tell of no push.
type Recent struct {
	next atomic.Int64 // Unix time in ns: no delivered push is noted before it

	mu            sync.Mutex
	all, failures []Event // rings of maxRecent copies, which keep no job in memory
	nAll, nFailed int     // noted since the start
}

// Last returns the last pushes and, apart from them, the last failures, each latest first
// and at most 50. At a high rate it has only some of the delivered pushes, and never
// pushes that were not sent.
func (r *Recent) Last() (all, failures []Event) {
	if r == nil {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return latestFirst(r.all, r.nAll), latestFirst(r.failures, r.nFailed)
}

// Active is when a push last ended, to about recentEvery; zero if none has.
func (r *Recent) Active() time.Time {
	if r == nil {
		return time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nAll == 0 {
		return time.Time{}
	}
	return r.all[(r.nAll-1)%len(r.all)].At
}

func latestFirst(ring []Event, n int) []Event {
	out := make([]Event, 0, len(ring))
	for i := range ring {
		out = append(out, ring[(n-1-i)%len(ring)])
	}
	return out
}

// Pushed notes a push that was sent and has ended, also if the guard doubts its answer. It
// leaves out pushes that a connection gave back unsent: one lost connection would crowd
// everything else out.
func (r *Recent) Pushed(e *Event) {
	doubted := e.p != nil && e.p.doubted
	switch {
	case !e.Sent && !doubted, e.Class == apnsconn.NotSent:
	case e.Class != apnsconn.Delivered:
		r.note(e.kept(), true)
	case e.N == 1 && e.Token != "":
		r.delivered(e)
	default:
		one := *e
		one.N = 1
		for d := range e.Each() {
			one.Token, one.APNsID, one.At, one.Took = job.Short(d.Token), d.APNsID, d.At, d.Took
			r.delivered(&one)
		}
	}
}

// delivered notes a delivered push, unless another was noted just before.
func (r *Recent) delivered(e *Event) {
	next := r.next.Load()
	at := e.At.UnixNano()
	if at < next || !r.next.CompareAndSwap(next, max(next, at-int64((recentBurst-1)*recentEvery))+int64(recentEvery)) {
		return
	}
	r.note(e.kept(), false)
}

func (r *Recent) note(e Event, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	keep(&r.all, &r.nAll, e)
	if failed {
		keep(&r.failures, &r.nFailed, e)
	}
}

func keep(ring *[]Event, n *int, e Event) {
	if len(*ring) < maxRecent {
		*ring = append(*ring, e)
	} else {
		(*ring)[*n%maxRecent] = e
	}
	*n++
}

// kept returns a copy of an event that outlives it and keeps no more memory than needed.
func (e *Event) kept() Event {
	out := *e
	for _, text := range [...]*string{&out.App, &out.Job, &out.ID, &out.Ref, &out.Token, &out.APNsID, &out.Reason, &out.BuryReason} {
		*text = cut(*text)
	}
	if e.Err != nil {
		out.Err = errors.New(cut(e.Err.Error()))
	}
	out.t, out.p = nil, nil
	return out
}

// cut copies the part of a text that is shown.
func cut(s string) string {
	return strings.ToValidUTF8(strings.Clone(s[:min(len(s), maxShown)]), "")
}
