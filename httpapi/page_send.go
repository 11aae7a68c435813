package httpapi

import (
	"context"
	"net/http"
	"time"
)

// Bounds of the form to send a push.
const (
	// outcomeEvery is how often the page looks what has become of a push.
	outcomeEvery = 100 * time.Millisecond
	// outcomeTime is how long it does: nobody waits longer, and a reload goes on.
	outcomeTime = time.Hour
)

// sendPage is what the form to send a push shows.
type sendPage struct {
	Topics []string
	Topic  string // chosen
}

func (p *page) sendForm(w http.ResponseWriter, r *http.Request, v *visitor) {
	d := sendPage{Topic: r.URL.Query().Get("topic")}
	for _, st := range p.api.tree.Status() {
		if v.may(st.Topic) {
			d.Topics = append(d.Topics, st.Topic)
		}
	}
	p.show(w, v, http.StatusOK, "send", pageData{Title: "Send a test push", Main: d})
}

// preview answers what the push in the form would be.
func (p *page) preview(w http.ResponseWriter, r *http.Request, v *visitor) {
	e, err := formEnvelope(r)
	if err != nil {
		writeJSON(w, http.StatusOK, Lint{Error: errorOf(err)})
		return
	}
	writeJSON(w, http.StatusOK, p.api.lintEnvelope(v.client, e))
}

// send puts the push in the form, and answers its id.
func (p *page) send(w http.ResponseWriter, r *http.Request, v *visitor) {
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

// outcome tells what becomes of a push, as server-sent events, until that is
// known.
func (p *page) outcome(w http.ResponseWriter, r *http.Request, v *visitor) {
	id := r.URL.Query().Get("id")
	n, ok := p.api.o.Outcomes.look(id)
	if !ok || !v.may(n.Topic) {
		p.fault(w, r, v, http.StatusNotFound, "this push is not remembered")
		return
	}
	leave, ok := p.enter(w, r, v)
	if !ok {
		return
	}
	defer leave()
	out, ctx, cancel := p.stream(w, r)
	defer cancel()
	again := time.NewTicker(outcomeEvery)
	defer again.Stop()
	end := time.Now().Add(outcomeTime)
	for told := (Notification{}); ok && v != nil && v.may(n.Topic) && time.Now().Before(end); {
		if n != told {
			if out.send("outcome", n) != nil {
				return
			}
			told = n
		}
		if n.ended() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		n, ok = p.api.o.Outcomes.look(id)
		v = p.visitor(r)
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
