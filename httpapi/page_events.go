package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// eventTime is how long an event may be on its way to who reads it.
const eventTime = 10 * time.Second

// liveEvent is what a live page is told at each tick.
type liveEvent struct {
	Apps   []appRow             `json:"apps"`   // that have changed
	Topics []string             `json:"topics"` // of all apps, if there are others than before; else null
	Total  totals               `json:"total"`
	Rates  map[string][]float64 `json:"rates,omitempty"` // of the charts until now; with the first event
	Now    map[string]float64   `json:"now,omitempty"`   // the charts' next points, where they are others than the last
	Parts  map[string]string    `json:"parts,omitempty"` // of an app's page, that have changed
	// Refused is the text about the last reload, if it was refused.
	Refused string `json:"refused,omitempty"`
}

// events tells a page what changes, as server-sent events (HTML Standard, 9.2).
func (p *pages) events(w http.ResponseWriter, r *http.Request, v *visitor) {
	leave, ok := p.enter(w, r, v, viewCost)
	if !ok {
		return
	}
	defer leave()
	done := p.sampler.join()
	defer done()
	out, ctx, cancel := p.stream(w, r)
	defer cancel()
	l := &live{of: r.URL.Query().Get("topic"), page: p, now: make(map[string]float64), parts: make(map[string]string)}
	for {
		// Each time: the session may be over, the key be for less.
		v := p.visitor(r)
		if v == nil || l.of != "" && !v.may(l.of) {
			_ = out.send("signedout", struct{}{})
			return
		}
		seen, ok := p.sampler.see(ctx, l.seen, func(topic string) bool {
			return v.may(topic) && (l.of == "" || l.of == topic)
		})
		if !ok {
			return
		}
		e := l.next(seen)
		e.Refused = p.refusedReload(v, time.Now())
		if out.send("look", e) != nil {
			return
		}
	}
}

// enter takes what a stream of events costs, or says that there is no more.
func (p *pages) enter(w http.ResponseWriter, r *http.Request, v *visitor, cost int64) (leave func(), ok bool) {
	name := v.name
	if p.api.lasting.try(name, cost) {
		leave = func() { p.api.lasting.free(name, cost) }
		if r.Method != http.MethodHead && !r.URL.Query().Has("place") {
			return leave, true
		}
		leave() // what is asked is only whether there is one
		w.WriteHeader(http.StatusNoContent)
		return nil, false
	}
	p.fault(w, r, v, http.StatusServiceUnavailable, errLasting.Error())
	return nil, false
}

// live is one live page.
type live struct {
	page   *pages
	of     string // one app, or "" for all
	seen   int64
	topics string
	now    map[string]float64
	parts  map[string]string
}

// next is the event after what was seen before.
func (l *live) next(seen look) liveEvent {
	e := liveEvent{Apps: append([]appRow{}, seen.rows...), Total: totalsOf(seen.status, seen.rate)}
	if l.seen == 0 {
		e.Rates = seen.rates
	}
	if all := fmt.Sprint(seen.topics); all != l.topics {
		l.topics, e.Topics = all, append([]string{}, seen.topics...)
	}
	for i, topic := range seen.topics {
		if now := seen.now[i]; now != l.now[topic] {
			if e.Now == nil {
				e.Now = make(map[string]float64)
			}
			e.Now[topic], l.now[topic] = now, now
		}
	}
	if l.of != "" && len(seen.status) == 1 {
		e.Parts = l.render(&seen.status[0], time.Now())
	}
	l.seen = seen.tick
	return e
}

// eventStream writes server-sent events.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// stream begins one. Its context ends with the request, and with the server.
func (p *pages) stream(w http.ResponseWriter, r *http.Request) (eventStream, context.Context, func()) {
	out := eventStream{w, http.NewResponseController(w)}
	_ = out.control.SetReadDeadline(time.Time{}) // the server's is for requests that end; see lineTime
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	w.WriteHeader(http.StatusOK)
	_ = out.control.Flush() // that there is a place is known before there is something to tell
	ctx, cancel := context.WithCancel(r.Context())
	stop := make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-ending(r):
			cancel()
		case <-stop:
		}
	}()
	return out, ctx, func() {
		close(stop)
		<-over
		cancel()
	}
}

// send sends one event.
func (s eventStream) send(name string, what any) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(eventTime))
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, text); err != nil {
		return err
	}
	return s.control.Flush()
}
