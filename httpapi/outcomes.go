package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/worker"
	"propeller/worker/job"
)

// maxOutcomes bounds what is remembered of notifications: some 40 MB. With
// more, the oldest leave.
const maxOutcomes = 100_000

// The states of a notification.
const (
	stateQueued    = "queued"    // or waiting for its next try
	stateDelayed   = "delayed"   // until DelayedUntil
	stateTrying    = "trying"    // being sent
	stateDelivered = "delivered" // APNs has taken it
	stateRefused   = "refused"   // its token must not be used again
	stateBuried    = "buried"    // set aside with the reason
	stateExpired   = "expired"   // too late
	stateFinished  = "finished"  // all its tokens have ended, not all alike
)

// pushStatus is what became of one job of a notification.
type pushStatus struct {
	ID           string    `json:"id"`
	App          string    `json:"app"`
	Topic        string    `json:"topic"`
	State        string    `json:"state"`
	Put          time.Time `json:"put"`
	DelayedUntil time.Time `json:"delayed_until,omitzero"`
	NextTry      time.Time `json:"next_try,omitzero"` // not tried again before
	Tries        int       `json:"tries"`
	Tokens       int       `json:"tokens"` // and what has become of them:
	Delivered    int       `json:"delivered"`
	Refused      int       `json:"refused"`
	Buried       int       `json:"buried"`
	Expired      int       `json:"expired"`
	Reason       string    `json:"reason,omitempty"`  // of the last that was not delivered
	Status       int       `json:"status,omitempty"`  // of APNs' last answer
	APNsID       string    `json:"apns_id,omitempty"` // of the last push
	At           time.Time `json:"at,omitzero"`       // when that was
}

// Ended reports whether nothing more becomes of the notification by itself.
func (n *pushStatus) Ended() bool {
	switch n.State {
	case stateQueued, stateDelayed, stateTrying:
		return false
	}
	return true
}

// Outcomes remembers what became of notifications that were put over HTTP. It
// is a worker.Sink. The zero value is ready for use; nil remembers nothing.
type Outcomes struct {
	used atomic.Bool // something was put by HTTP: until then workers need not be heard

	mu      sync.Mutex
	byID    map[string]*outcome
	order   []*outcome          // oldest first, a ring once it is full
	next    int                 // in order, when it is full
	pending int                 // groups of puts under way
	early   map[source]*outcome // what came of jobs of which some may be of these
}

// outcome is what is known of one job.
type outcome struct {
	n      pushStatus
	from   source
	trying bool
}

// source is the job that a producer put. Its id alone proves nothing: a queue's client can
// write any into a job. Who knows the seed as well has read the job.
type source struct {
	id, app string
	seed    job.Seed
}

// donePut is a put that has returned.
type donePut struct {
	id     string
	app    string
	topic  string // the app's
	body   []byte
	delay  time.Duration
	tokens int
	err    error
}

// begin is called before a put, or several at the same time.
func (o *Outcomes) begin() {
	if o == nil {
		return
	}
	o.used.Store(true)
	o.mu.Lock()
	o.pending++
	o.mu.Unlock()
}

// end is called after begin, with what became of the puts.
func (o *Outcomes) end(puts ...donePut) {
	if o == nil {
		return
	}
	froms := make([]source, len(puts)) // hashed before the lock, for which all workers' events wait
	for i := range puts {
		if p := &puts[i]; p.err == nil {
			froms[i] = source{p.id, p.app, job.SeedOf(p.id, p.body)}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for i := range puts {
		if p := &puts[i]; p.err == nil {
			o.putLocked(p, froms[i], now)
		}
	}
	if o.pending--; o.pending == 0 {
		o.early = nil
	}
}

func (o *Outcomes) putLocked(p *donePut, from source, now time.Time) {
	x := o.early[from]
	if x == nil {
		x = &outcome{n: pushStatus{ID: p.id}, from: from}
	}
	delete(o.early, from)
	o.addLocked(x) // in place of an earlier one, if the queue uses an id again
	x.n.App, x.n.Topic, x.n.Tokens, x.n.Put = p.app, p.topic, p.tokens, now
	if p.delay > 0 {
		x.n.DelayedUntil = now.Add(p.delay)
	}
}

// addLocked adds one, and makes room for it.
func (o *Outcomes) addLocked(x *outcome) {
	if o.byID == nil {
		o.byID = make(map[string]*outcome)
	}
	o.byID[x.n.ID] = x
	if len(o.order) < maxOutcomes {
		o.order = append(o.order, x)
		return
	}
	if old := o.order[o.next]; o.byID[old.n.ID] == old {
		delete(o.byID, old.n.ID)
	}
	o.order[o.next] = x
	o.next = (o.next + 1) % maxOutcomes
}

// Pushed implements worker.Sink. Until something is put over HTTP it only reads one
// variable.
func (o *Outcomes) Pushed(e *worker.Event) {
	if !o.used.Load() || e.Action == worker.Resent {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	from := source{e.Job, e.App, e.Seed}
	if x := o.byID[e.Job]; x != nil && x.from == from {
		x.pushed(e)
		return
	}
	if o.pending == 0 {
		return // put elsewhere, or not what it says
	}
	x := o.early[from]
	if x == nil && len(o.early) == maxEarly {
		return
	}
	if x == nil {
		if o.early == nil {
			o.early = make(map[source]*outcome)
		}
		from.id = strings.Clone(from.id)
		x = &outcome{n: pushStatus{ID: from.id}, from: from}
		o.early[from] = x
	}
	x.pushed(e)
}

// maxEarly bounds the jobs that end while the answers to puts are awaited.
const maxEarly = maxOutcomes / 2

// pushed records the end of some of the job's pushes.
func (x *outcome) pushed(e *worker.Event) {
	n := &x.n
	switch e.Action {
	case worker.Tried:
		n.Tries++
		n.NextTry, x.trying = time.Time{}, true
		// Some of the tokens tried again may have been buried, and kicked.
		n.Buried = max(0, min(n.Buried, n.Tokens-n.Delivered-n.Refused-n.Expired-e.N))
		return
	case worker.Retried:
		n.NextTry = later(n.NextTry, time.Now().Add(e.Delay).UTC())
	case worker.Buried:
		n.Buried += e.N
	case worker.Expired:
		n.Expired += e.N
	case worker.Deleted:
		switch {
		case e.Class == apnsconn.Delivered:
			n.Delivered += e.N
		case e.Class == apnsconn.Token:
			n.Refused += e.N
		}
	}
	x.trying = false
	n.At, n.Status = e.At.UTC(), e.Status
	if why := e.Explanation(); why != "" {
		n.Reason = strings.Clone(why)
	}
	if e.APNsID != "" {
		n.APNsID = strings.Clone(e.APNsID)
	}
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// state is the one word for all of it.
func (x *outcome) state(now time.Time) string {
	n := &x.n
	switch {
	case n.Delivered >= n.Tokens:
		return stateDelivered
	case n.Refused >= n.Tokens:
		return stateRefused
	case n.Buried >= n.Tokens:
		return stateBuried
	case n.Expired >= n.Tokens:
		return stateExpired
	case n.Delivered+n.Refused+n.Buried+n.Expired >= n.Tokens:
		return stateFinished
	case x.trying:
		return stateTrying
	case n.Tries == 0 && now.Before(n.DelayedUntil):
		return stateDelayed
	}
	return stateQueued
}

// look returns what is known of a job, and whether anything is.
func (o *Outcomes) look(id string) (n pushStatus, ok bool) {
	if o == nil {
		return n, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.byID[id]
	if x == nil {
		return n, false
	}
	n = x.n
	if n.State = x.state(time.Now()); n.State == stateDelivered {
		n.Reason = "" // of an earlier try
	}
	n.Put, n.DelayedUntil = n.Put.UTC(), n.DelayedUntil.UTC()
	return n, true
}

// buriedAs builds a notification that is not remembered from its buried jobs.
func (a *API) buriedAs(id string) (n pushStatus, ok bool) {
	app, found := a.tree.FindBuried(id)
	for i := range found {
		e := &found[i]
		n.Buried += e.Tokens
		if e.At.After(n.At) {
			n.Put, n.At, n.Tries, n.Reason, n.Status, n.APNsID = e.Put.UTC(), e.At.UTC(), e.Tries, e.Reason, e.Status, e.APNsID
		}
	}
	if len(found) == 0 {
		return n, false
	}
	rules, err := a.tree.App(app)
	n.ID, n.App, n.Topic, n.State, n.Tokens = id, app, rules.Topic, stateBuried, n.Buried
	return n, err == nil
}

// notification answers what has become of one.
func (a *API) notification(w http.ResponseWriter, r *http.Request, c *client) {
	id := r.PathValue("id")
	n, ok := a.o.Outcomes.look(id)
	if !ok {
		n, ok = a.buriedAs(id)
	}
	if !ok || !c.may(n.App, n.Topic) {
		writeProblem(w, http.StatusNotFound, fmt.Sprintf(
			"notification %.100q: neither remembered nor known to be buried: it was not put over HTTP, was put before the daemon started, or more than %d others have been put since", id, maxOutcomes))
		return
	}
	writeJSON(w, http.StatusOK, n)
}
