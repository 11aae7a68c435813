package httpapi

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"propeller/httpapi/page"
	"propeller/supervisor"
)

// Bounds of a live page.
const (
	// eventTime is how long writing what one look has to tell may take.
	eventTime = 10 * time.Second
	// moveEvery is how often the rows of an overview that does not show all apps may move,
	// but for apps in trouble, whose rows move at once.
	moveEvery = 10 * time.Second
	// askAgain is how long parts are written before the visitor is checked again: the
	// session may be over, the key be for less.
	askAgain = 100 * time.Millisecond
)

// live is a page that is kept up to date.
type live struct {
	pages *pages
	r     *http.Request
	out   eventStream
	of    string     // one app's page, by its name; "": the overview
	query url.Values // says which apps the overview shows: apps or rows, see listOf and hashOf, q and page

	c     *client           // nil: the page is not shown to them any more
	asked time.Time         // when c was found
	sent  map[string]string // parts by id
	rows  map[string]string // of the overview, by app, as they were sent

	// Of an overview that does not show all apps:
	list    []string  // the names of those it shows; nil before the first look
	trouble []string  // of these, those that were in trouble when the rows last moved
	moved   time.Time // when they did
}

// events tells a live page what changes, as server-sent events (HTML Standard, 9.2): each
// part of it that is drawn differently now, by its id.
func (p *pages) events(w http.ResponseWriter, r *http.Request, c *client) {
	q := r.URL.Query()
	l := &live{pages: p, r: r, of: p.asked(r, c), query: q, sent: make(map[string]string), rows: make(map[string]string)}
	leave, ok := p.enter(w, r, c, viewCost)
	if !ok {
		return
	}
	defer leave()
	done := p.sampler.join()
	defer done()
	out, ctx, cancel := stream(w, r)
	defer cancel()
	l.out = out
	for seen := int64(0); ; {
		now, ok := p.sampler.see(ctx, seen)
		if !ok {
			return
		}
		out.hurry()
		if !l.tell(now) || out.control.Flush() != nil {
			return
		}
		seen = now.tick
	}
}

// tell writes what has changed. false: the page is to end.
func (l *live) tell(now *look) bool {
	l.asked = time.Time{}
	if !l.allowed() {
		return false
	}
	if l.of != "" {
		return l.tellApp(now)
	}
	c := l.c
	apps := now.meant(func(a *supervisor.AppStatus) bool { return c.may(a.Name, a.Topic) })
	found := pick(apps, l.query.Get("q"), pageOf(l.query))
	if !l.fits(found) {
		_ = l.out.send("reload", "there are other apps")
		return false
	}
	return l.tellRows(found, now) && l.tellParts(l.pages.overviewParts(c, totalsOf(apps), found))
}

// tellApp writes what has changed of one app's page.
func (l *live) tellApp(now *look) bool {
	a := now.find(l.of)
	if a == nil {
		_ = l.out.send("reload", "there is no such app any more")
		return false
	}
	a.see(now)
	return l.tellParts(l.pages.appParts(l.c, a))
}

// fits reports whether the page is one of what is to be shown: all apps, those it was drawn
// with, or some of them.
func (l *live) fits(found *picked) bool {
	all := l.query.Get("apps")
	if !found.whole {
		return all == ""
	}
	return !l.query.Has("rows") && (all == "" || all == listOf(found.names()))
}

// tellParts writes those parts that are drawn differently now.
func (l *live) tellParts(parts iter.Seq2[string, string]) bool {
	for id, html := range parts {
		if html == l.sent[id] {
			continue
		}
		if !l.allowed() || l.out.send("part", html) != nil {
			return false
		}
		l.sent[id] = html
	}
	return l.out.send("done", "all parts that have changed") == nil
}

// tellRows writes the rows of the overview that are drawn differently now; of one that does
// not show all apps all of them, if there are others to show.
func (l *live) tellRows(found *picked, now *look) bool {
	names := found.names()
	if !found.whole && l.moves(names, found.trouble, now.at) {
		first := l.list == nil
		l.list, l.trouble, l.moved = names, names[:found.trouble], now.at
		if !first || l.query.Get("rows") != hashOf(names) {
			return l.tellAllRows(found, now)
		}
	}
	if !found.whole {
		names = l.list
	}
	for _, name := range names {
		a := now.find(name)
		if a == nil {
			continue // until the rows move
		}
		if !l.allowed() {
			return false
		}
		html := l.pages.sampler.drawRow(a, now)
		if html == l.rows[name] || !l.c.may(name, a.status.Topic) {
			continue
		}
		if l.out.send("part", html) != nil {
			return false
		}
		l.rows[name] = html
	}
	return true
}

// moves reports whether the page is to show these rows, the first of which are in trouble, in
// place of its own.
func (l *live) moves(names []string, trouble int, now time.Time) bool {
	switch {
	case l.list == nil:
		return true
	case slices.Equal(names, l.list):
		return false
	}
	return !slices.Equal(names[:trouble], l.trouble) || now.Sub(l.moved) >= moveEvery
}

// tellAllRows writes the part of the page that holds the rows, as the overview's template has it.
func (l *live) tellAllRows(found *picked, now *look) bool {
	if !l.allowed() {
		return false
	}
	clear(l.rows)
	var b strings.Builder
	b.WriteString(`<tbody id="rows" role="rowgroup">`)
	for i := range found.rows {
		a := &found.rows[i]
		if !l.c.may(a.status.Name, a.status.Topic) {
			continue
		}
		html := l.pages.sampler.drawRow(a, now)
		b.WriteString(html)
		l.rows[a.status.Name] = html
	}
	b.WriteString("</tbody>")
	return l.out.send("part", b.String()) == nil
}

// allowed reports whether the page may still be shown, as of askAgain ago at most. If not,
// it tells the page.
func (l *live) allowed() bool {
	if time.Since(l.asked) < askAgain {
		return l.c != nil
	}
	l.c, l.asked = l.pages.visitor(l.r), time.Now()
	if l.c == nil || l.of != "" && !l.c.may(l.of, l.topic()) {
		l.c = nil
		_ = l.out.send("reload", "it is not shown to you any more")
	}
	return l.c != nil
}

// topic is that of the page's app; "" if there is no such app any more.
func (l *live) topic() string {
	rules, _ := l.pages.api.tree.App(l.of)
	return rules.Topic
}

// appParts are the parts of an app's page that may change, by their ids.
func (p *pages) appParts(c *client, a *shown) iter.Seq2[string, string] {
	return func(yield func(id, html string) bool) {
		v := p.view(c)
		app := *a.app
		app.addPushes(a.status)
		v.Main = &app
		if !yield("refused", p.part("overview", "refused", v)) {
			return
		}
		for _, id := range []string{"summary", "workers", "failures", "refusals", "outcomes"} {
			if !yield(id, p.part("app", id, v)) {
				return
			}
		}
	}
}

// overviewParts are those of the overview, without its rows.
func (p *pages) overviewParts(c *client, t totals, found *picked) iter.Seq2[string, string] {
	return func(yield func(id, html string) bool) {
		if !yield("refused", p.part("overview", "refused", p.view(c))) || !yield("totals", p.part("overview", "totals", t)) {
			return
		}
		if !found.whole {
			yield("more", p.part("overview", "more", found))
		}
	}
}

// part draws a part of a page; "" if that fails, which the log tells.
func (p *pages) part(name, part string, data any) string {
	html, err := page.Fragment(name, part, data)
	if err != nil {
		p.api.o.Log.Error("http: page", "page", name, "part", part, "err", err)
		return ""
	}
	return string(html)
}

// enter takes the cost of a stream of events, or answers that there is no room for one.
func (p *pages) enter(w http.ResponseWriter, r *http.Request, c *client, cost int64) (leave func(), ok bool) {
	if p.api.lasting.try(c.name, cost) {
		leave = func() { p.api.lasting.free(c.name, cost) }
		if r.Method != http.MethodHead && !r.URL.Query().Has("place") {
			return leave, true
		}
		leave() // what is asked is only whether there is one
		w.WriteHeader(http.StatusNoContent)
		return nil, false
	}
	p.api.refuse(w, r, c, http.StatusServiceUnavailable, errLasting.Error())
	return nil, false
}

// eventStream writes server-sent events.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// stream begins one. Its context ends with the request, and with the server.
func stream(w http.ResponseWriter, r *http.Request) (eventStream, context.Context, func()) {
	out := eventStream{w, http.NewResponseController(w)}
	_ = out.control.SetReadDeadline(time.Time{}) // the server's is for requests that end; see lineTime
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	w.WriteHeader(http.StatusOK)
	_ = out.control.Flush() // the browser knows at once that it has a place
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(ending(r), cancel)
	return out, ctx, func() {
		stop()
		cancel()
	}
}

// lineEnds replaces the line ends of event streams: what follows one is another line of the same data.
var lineEnds = strings.NewReplacer("\r\n", "\ndata: ", "\r", "\ndata: ", "\n", "\ndata: ")

// hurry gives all events of one look eventTime from now.
func (s eventStream) hurry() { _ = s.control.SetWriteDeadline(time.Now().Add(eventTime)) }

// send sends one event, with the next Flush at the latest.
func (s eventStream) send(name, data string) error {
	_, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, lineEnds.Replace(data))
	return err
}

// Bounds of the form to send a push.
const (
	// outcomeEvery is how often the page looks what has become of a push.
	outcomeEvery = 100 * time.Millisecond
	// outcomeTime is how long it does; loading the page again goes on.
	outcomeTime = time.Hour
	// obstacleEvery is how often it looks whether the app sends at all.
	obstacleEvery = time.Second
)

// sentPush is what the form's page is told of a push.
type sentPush struct {
	pushStatus
	Obstacle string // why its app does not send it at present
}

// sent is what has become of a push so far; ok is false for one that is not
// remembered, or not for this visitor to see.
func (p *pages) sent(c *client, id string) (n pushStatus, ok bool) {
	n, ok = p.api.o.Outcomes.look(id)
	return n, ok && c != nil && c.may(n.App, n.Topic)
}

// obstacle says why a push that has not ended waits; "" if it just does.
func (p *pages) obstacle(n *pushStatus) string {
	if n.Ended() {
		return ""
	}
	st, ok := p.api.tree.AppStatus(n.App)
	if !ok {
		return "the app is no longer in the configuration"
	}
	h := st.Health
	switch h.State {
	case supervisor.Running, supervisor.Idle:
		return ""
	case supervisor.Broken, supervisor.Guarded:
		return "the app is " + h.String() + "; one job a minute is tried"
	case supervisor.Paused:
		return "the app is " + h.Reason + ", until it is resumed"
	case supervisor.NoQueue:
		return "the app has " + h.String()
	case supervisor.TubePaused:
		return "the app's tube is paused " + h.Reason
	}
	return "the app is " + h.String()
}

const notRemembered = "this push is not remembered"

// outcome shows what has become of a push.
func (p *pages) outcome(w http.ResponseWriter, r *http.Request, c *client) {
	n, ok := p.sent(c, r.URL.Query().Get("id"))
	if !ok {
		p.fault(w, r, c, http.StatusNotFound, notRemembered)
		return
	}
	answerHTML(http.StatusOK, []byte(p.part("send", "outcome", &sentPush{n, p.obstacle(&n)}))).write(w)
}

// follow shows the same each time that it changes, as server-sent events, until the push
// has ended.
func (p *pages) follow(w http.ResponseWriter, r *http.Request, c *client) {
	id := r.URL.Query().Get("id")
	n, ok := p.sent(c, id)
	if !ok {
		p.fault(w, r, c, http.StatusNotFound, notRemembered)
		return
	}
	leave, ok := p.enter(w, r, c, followCost)
	if !ok {
		return
	}
	defer leave()
	out, ctx, cancel := stream(w, r)
	defer cancel()
	again := time.NewTicker(outcomeEvery)
	defer again.Stop()
	var told, now sentPush
	var looked time.Time // for an obstacle
	for end := time.Now().Add(outcomeTime); ok && time.Now().Before(end); n, ok = p.sent(p.visitor(r), id) {
		now.pushStatus = n
		if n.Ended() || time.Since(looked) >= obstacleEvery {
			now.Obstacle, looked = p.obstacle(&n), time.Now()
		}
		if now != told {
			out.hurry()
			if out.send("part", p.part("send", "outcome", &now)) != nil || out.control.Flush() != nil {
				return
			}
			told = now
		}
		if n.Ended() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}
