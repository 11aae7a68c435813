package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"net/http"
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
	// lookRows is how many rows of the overview one look brings at most. The page already
	// shows all apps; the next looks bring the others.
	lookRows = 1000
	// askAgain is how long parts are written before the visitor is checked again: the
	// session may be over, the key be for less.
	askAgain = 100 * time.Millisecond
)

// live is a page that is kept up to date.
type live struct {
	pages *pages
	r     *http.Request
	out   eventStream
	of    string // one app's page, by its name; "": the overview
	all   string // the apps that the overview shows, see listOf; "": whatever there are

	c     *client           // nil: the page is not shown to them any more
	asked time.Time         // when c was found
	sent  map[string]string // parts by id
	rows  map[string]int64  // the ticks of the rows that were sent, by app
	from  int               // of the apps, whose row is next
}

// events tells a live page what changes, as server-sent events (HTML Standard, 9.2): each
// part of it that is drawn differently now, by its id.
func (p *pages) events(w http.ResponseWriter, r *http.Request, c *client) {
	q := r.URL.Query()
	l := &live{pages: p, r: r, of: p.asked(r, c), all: q.Get("apps"), sent: make(map[string]string), rows: make(map[string]int64)}
	leave, ok := p.enter(w, r, c, p.costOf(l.of))
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

// costOf is what a live page costs: an app's, or the overview with all apps. Where there
// are very many, each key has one.
func (p *pages) costOf(app string) int64 {
	if app != "" {
		return viewCost
	}
	more := len(p.api.tree.Status()) / viewApps
	return min(int64(1+more)*viewCost, p.api.lasting.each)
}

// tell writes what has changed. false: the page is to end.
func (l *live) tell(now *look) bool {
	l.asked = time.Time{}
	if !l.allowed() {
		return false
	}
	c := l.c
	apps := now.meant(func(a *liveApp) bool { return c.may(a.Name, a.Topic) && (l.of == "" || l.of == a.Name) })
	if l.of != "" && len(apps) == 0 || l.of == "" && l.all != "" && l.all != listOf(apps) {
		_ = l.out.send("reload", "there are other apps")
		return false
	}
	if l.of == "" && !l.tellRows(apps) {
		return false
	}
	for id, html := range l.pages.parts(c, l.of, apps) {
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

// tellRows writes the rows of the overview that were drawn again since they were sent.
func (l *live) tellRows(apps []shown) bool {
	n := 0
	for i := range apps {
		at := (l.from + i) % len(apps)
		a := &apps[at]
		if a.row == "" || l.rows[a.app.Name] == a.changed {
			continue
		}
		if n++; n > lookRows {
			l.from = at
			break
		}
		if !l.allowed() {
			return false
		}
		if !l.c.may(a.app.Name, a.app.Topic) {
			continue
		}
		if l.out.send("part", a.row) != nil {
			return false
		}
		l.rows[a.app.Name] = a.changed
	}
	return true
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

// listOf stands for a list of apps, in whatever order.
func listOf(apps []shown) string {
	names := make([]string, len(apps))
	for i := range apps {
		names[i] = apps[i].app.Name
	}
	slices.Sort(names)
	sum := sha256.Sum256([]byte(strings.Join(names, " ")))
	return hex.EncodeToString(sum[:8])
}

// parts are the parts of a page that may change, by their ids, without the overview's rows.
func (p *pages) parts(c *client, of string, apps []shown) iter.Seq2[string, string] {
	return func(yield func(id, html string) bool) {
		v := p.view(c)
		if !yield("refused", p.part("overview", "refused", v)) {
			return
		}
		if of == "" {
			yield("totals", p.part("overview", "totals", totalsOf(apps)))
			return
		}
		app := *apps[0].app
		app.addPushes(apps[0].status)
		v.Main = &app
		for _, id := range []string{"summary", "workers", "failures", "refusals", "outcomes"} {
			if !yield(id, p.part("app", id, v)) {
				return
			}
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
