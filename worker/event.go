package worker

import (
	"iter"
	"log/slog"
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
	Retried Action = "retried" // it goes back to the queue, for at least Event.Pause
	Resent  Action = "resent"  // it was certainly not sent, and is sent again without going back to the queue
	Buried  Action = "buried"  // its job is buried with the reason
	Expired Action = "expired" // it was too late; nothing was sent
)

// Event is the end of a push. Its worker reports it once: for a delivered push at its end,
// for others when the job is settled. It is valid until Pushed returns.
type Event struct {
	At     time.Time
	App    string   // the app's topic
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
	e.App, e.Worker, e.Job, e.ID, e.Ref = r.cfg.Topic, r.w.index, t.firstID(), t.id, t.decoded.Ref
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
		r.w.few.Log(slog.LevelWarn, t.lastWord, "job", t.id, "err", t.lastErr)
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
