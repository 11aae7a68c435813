package httpapi

import (
	"context"
	"net/http"
	"time"

	"propeller/httpapi/page"
	"propeller/supervisor"
)

// Bounds of the form to send a push.
const (
	// outcomeEvery is how often the page looks what has become of a push.
	outcomeEvery = 100 * time.Millisecond
	// outcomeTime is how long it does: nobody waits longer, and a reload goes on.
	outcomeTime = time.Hour
	// obstacleEvery is how often it looks whether the app sends at all, which takes a
	// look at all apps.
	obstacleEvery = time.Second
)

// sendPage is what the form to send a push shows.
type sendPage struct {
	Topics []string
	Topic  string // chosen
}

func (p *pages) sendForm(w http.ResponseWriter, r *http.Request, v *visitor) {
	d := sendPage{Topic: r.URL.Query().Get("topic")}
	for _, st := range p.api.tree.Status() {
		if v.may(st.Topic) {
			d.Topics = append(d.Topics, st.Topic)
		}
	}
	p.show(w, v, http.StatusOK, "send", page.View{Title: "Send a test push", Main: d})
}

// preview answers what the push in the form would be.
func (p *pages) preview(w http.ResponseWriter, r *http.Request, v *visitor) {
	if !v.limit.Allow() {
		tooMany(v.client).write(w)
		return
	}
	e, err := formEnvelope(r)
	if err != nil {
		writeJSON(w, http.StatusOK, Lint{Error: errorOf(err)})
		return
	}
	writeJSON(w, http.StatusOK, p.api.lintEnvelope(v.client, e))
}

// send puts the push in the form, and answers its id.
func (p *pages) send(w http.ResponseWriter, r *http.Request, v *visitor) {
	if !v.limit.Allow() {
		tooMany(v.client).write(w)
		return
	}
	e, err := formEnvelope(r)
	if err != nil {
		fault := errorOf(err)
		problemOf(fault.Status, fault.Key, fault.Detail).write(w)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), putTime)
	defer cancel()
	result := p.api.enqueue(ctx, v.client, e)
	if fault := result.Error; fault != nil {
		problemOf(fault.Status, fault.Key, fault.Detail).write(w)
		return
	}
	p.api.audit(r, v.client, "push sent from the page", "topic", e.Topic, "job", shortID(result.ID))
	writeJSON(w, http.StatusAccepted, result)
}

// sentPush is what the form's page is told of a push.
type sentPush struct {
	Notification
	Obstacle string `json:"obstacle,omitempty"` // why its app does not send it at present
}

// sentPush is what has become of a push so far; ok is false for one that is not
// remembered, or that is none of the visitor's business.
func (p *pages) sentPush(v *visitor, id string) (n Notification, ok bool) {
	if v == nil {
		return n, false
	}
	n, ok = p.api.o.Outcomes.look(id)
	return n, ok && v.may(n.Topic)
}

// obstacle says why a push that has not ended waits; "" if it just does.
func (p *pages) obstacle(n *Notification) string {
	if n.ended() {
		return ""
	}
	st := p.find(n.Topic)
	if st == nil {
		return "the app is not in the configuration any more"
	}
	return obstacleOf(st)
}

// obstacleOf says why an app sends nothing at present.
func obstacleOf(st *supervisor.AppStatus) string {
	h := st.Health
	if h.State.Works() {
		return ""
	}
	switch h.State {
	case supervisor.Broken, supervisor.Guarded:
		return "the app is " + h.String() + "; one job a minute is tried"
	case supervisor.Paused:
		return "the app is " + h.Reason + ", until it is resumed"
	case supervisor.NoQueue:
		return "the app has " + h.String()
	case supervisor.TubePaused:
		return "the app's tube is paused " + h.Reason
	default:
		return "the app is " + h.String()
	}
}

const notRemembered = "this push is not remembered"

// fate tells what has become of a push, to who finds no place to be told as it
// happens.
func (p *pages) fate(w http.ResponseWriter, r *http.Request, v *visitor) {
	n, ok := p.sentPush(v, r.URL.Query().Get("id"))
	if !ok {
		p.fault(w, r, v, http.StatusNotFound, notRemembered)
		return
	}
	writeJSON(w, http.StatusOK, sentPush{n, p.obstacle(&n)})
}

// outcome tells what becomes of a push, as server-sent events, until that is
// known.
func (p *pages) outcome(w http.ResponseWriter, r *http.Request, v *visitor) {
	id := r.URL.Query().Get("id")
	n, ok := p.sentPush(v, id)
	if !ok {
		p.fault(w, r, v, http.StatusNotFound, notRemembered)
		return
	}
	leave, ok := p.enter(w, r, v, followCost)
	if !ok {
		return
	}
	defer leave()
	out, ctx, cancel := p.stream(w, r)
	defer cancel()
	again := time.NewTicker(outcomeEvery)
	defer again.Stop()
	var told, now sentPush
	var looked time.Time // for an obstacle
	for end := time.Now().Add(outcomeTime); ok && time.Now().Before(end); n, ok = p.sentPush(p.visitor(r), id) {
		now.Notification = n
		if n.ended() || time.Since(looked) >= obstacleEvery {
			now.Obstacle, looked = p.obstacle(&n), time.Now()
		}
		if now != told {
			if out.send("outcome", now) != nil {
				return
			}
			told = now
		}
		if n.ended() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// ended says that nothing more becomes of the notification by itself.
func (n *Notification) ended() bool {
	switch n.State {
	case FateQueued, FateDelayed, FateTrying:
		return false
	}
	return true
}

// shortID is a job's id for the log; a queue's own are short.
func shortID(id string) string { return id[:min(len(id), 100)] }
