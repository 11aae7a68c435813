package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/httpapi/page"
	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
	"propeller/worker/buried"
	"propeller/worker/job"
)

// countedTree has apps that work, and counts who asks.
type countedTree struct {
	appTree
	mu     sync.Mutex
	apps   []supervisor.AppStatus
	looks  atomic.Int64
	asked  atomic.Int64 // the queue
	buried atomic.Int64
	hangs  atomic.Bool // the queue does not answer
}

func newCountedTree(topics ...string) *countedTree {
	c := new(countedTree)
	for _, topic := range topics {
		c.apps = append(c.apps, supervisor.AppStatus{
			Name: topic, Topic: topic, Health: supervisor.Health{State: supervisor.Running}, Counters: new(worker.Counters), Steps: new(supervisor.Steps), Recent: new(worker.Recent), Workers: []worker.Status{{Serving: true}},
		})
	}
	return c
}

func (*countedTree) LostJobs() int64 { return 0 }

func (*countedTree) UnknownTubes() []supervisor.UnknownTube { return nil }

func (c *countedTree) Status() []supervisor.AppStatus {
	c.looks.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.apps)
}

func (c *countedTree) AppStatus(name string) (supervisor.AppStatus, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return statusIn(c.apps, name)
}

func (c *countedTree) App(name string) (job.Rules, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return appIn(c.apps, name)
}

func (c *countedTree) AppOf(topic string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return appOfIn(c.apps, topic)
}

func (c *countedTree) Jobs(topic string) (buried.Jobs, error) {
	return buried.Jobs{Queue: countedAdmin{tree: c}, Tube: topic}, nil
}

type countedAdmin struct {
	queue.Admin
	tree *countedTree
}

func (a countedAdmin) TubeStats(ctx context.Context, _ string) (queue.TubeStats, error) {
	a.tree.asked.Add(1)
	if a.tree.hangs.Load() {
		<-ctx.Done()
		return queue.TubeStats{}, ctx.Err()
	}
	return queue.TubeStats{Buried: int(a.tree.buried.Load())}, nil
}

// The tree and the queue are asked once a second for all who look together, and
// not at all while nobody does.
func TestSamplerShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tree := newCountedTree("a", "b")
		s := &sampler{tree: tree, draw: func(a *liveApp) string { return a.Name }}
		leave := []func(){s.join(), s.join(), s.join()}
		time.Sleep(10*time.Second + time.Millisecond)
		if looks, asked := tree.looks.Load(), tree.asked.Load(); looks != 11 || asked != 22 {
			t.Errorf("%d looks, %d questions in 10 s for three", looks, asked)
		}
		leave[0]()
		leave[1]()
		time.Sleep(time.Second)
		if looks := tree.looks.Load(); looks != 12 {
			t.Errorf("%d looks after another second for one", looks)
		}
		leave[2]()
		time.Sleep(time.Hour)
		if looks := tree.looks.Load(); looks != 12 {
			t.Errorf("%d looks for nobody", looks-12)
		}
	})
}

// Of very many apps each has its turn, and a queue that does not answer keeps
// the rest from nothing.
func TestSamplerAsksInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var topics []string
		for i := range 3 * askedAtOnce {
			topics = append(topics, fmt.Sprintf("app%03d", i))
		}
		tree := newCountedTree(topics...)
		s := &sampler{tree: tree, draw: func(a *liveApp) string { return a.Name }}
		leave := s.join()
		defer leave()
		time.Sleep(2*sampleEvery + time.Millisecond)
		if n := tree.asked.Load(); n != int64(len(topics)) {
			t.Errorf("%d questions in three looks", n)
		}
		s.mu.Lock()
		last := s.last
		s.mu.Unlock()
		for i := range last.apps {
			if a := &last.apps[i]; a.app.Queue == nil || s.drawRow(a, last) != topics[i] {
				t.Errorf("%s: %+v", topics[i], a)
			}
		}
		tree.hangs.Store(true)
		looks, before := tree.looks.Load(), tree.asked.Load()
		time.Sleep(10 * sampleEvery)
		if n, asked := tree.looks.Load()-looks, tree.asked.Load()-before; n < 9 || asked > 11 {
			t.Errorf("%d looks and %d questions in 10 s with a queue that does not answer", n, asked)
		}
	})
}

// slowViewer is a browser that takes a while for each event.
type slowViewer struct {
	*httptest.ResponseRecorder
	takes     time.Duration
	deadlines int
	after     func(events int)
	events    int
}

func (v *slowViewer) SetWriteDeadline(time.Time) error { v.deadlines++; return nil }

func (v *slowViewer) Write(b []byte) (int, error) {
	time.Sleep(v.takes)
	v.events++
	v.after(v.events)
	return v.ResponseRecorder.Write(b)
}

// lookAt is a look at apps, none of which has been drawn.
func lookAt(tick int64, status ...supervisor.AppStatus) *look {
	now := &look{tick: tick, at: time.Unix(1e9+tick, 0), index: make(map[string]int)}
	for i := range status {
		now.apps = append(now.apps, shown{status: &status[i], app: &liveApp{App: App{Name: status[i].Name}}, row: new(row)})
		now.index[status[i].Name] = i
	}
	return now
}

// liveOf is the overview that a reader opened at a path.
func liveOf(t *testing.T, api *API, path string, out *slowViewer) *live {
	t.Helper()
	api.pages.sampler.draw = func(a *liveApp) string { return "<tr>" + a.Name + "</tr>" }
	r := httptest.NewRequest("GET", path, nil)
	r.AddCookie(newGuest(t, api.Network()).signIn("reader-0123").cookie)
	return &live{pages: api.pages, r: r, query: r.URL.Query(), out: eventStream{out, http.NewResponseController(out)}, sent: make(map[string]string), rows: make(map[string]string)}
}

// A key that is removed sees no more of a look that is on its way, and all events of a look
// have one deadline.
func TestLiveChecksWithinALook(t *testing.T) {
	t.Parallel()
	api := New(newCountedTree(), Options{})
	api.Use(Settings{Keys: []Key{{Name: "reader", Token: "reader-0123", Role: RoleRead}}})
	out := &slowViewer{ResponseRecorder: httptest.NewRecorder(), takes: askAgain / 4}
	l, now := liveOf(t, api, "/events", out), lookAt(1, sleepers(100)...)
	out.after = func(events int) {
		if events == 3 {
			api.Use(Settings{Keys: testKeys[3:]})
		}
	}
	if l.tell(now) {
		t.Error("it goes on")
	}
	if body := out.Body.String(); out.events > 10 || !strings.Contains(body, "event: reload") || strings.Contains(body, "event: done") {
		t.Errorf("%d events: %s", out.events, body)
	}
	if out.deadlines != 0 {
		t.Errorf("%d deadlines within a look", out.deadlines)
	}
}

// Pushes a second, of the last seconds and in the chart; a gap while nobody
// looked is filled with its average, a long one is forgotten.
func TestSamplerRates(t *testing.T) {
	t.Parallel()
	st := &supervisor.AppStatus{Name: "a", Topic: "a", Counters: new(worker.Counters), Steps: new(supervisor.Steps)}
	a, now := new(sampled), time.Unix(1e9, 0)
	look := func(after time.Duration, ended int64) {
		now = now.Add(after)
		a.look(st, now, ended)
	}
	look(0, 1000)
	if a.rate() != nil || len(a.rates) != 0 {
		t.Errorf("a rate after one look: %v", a.rates)
	}
	look(time.Second, 1010)
	look(time.Second, 1030)
	if rate := a.rate(); rate == nil || *rate != 15 || !slices.Equal(a.rates, []float64{10, 20}) {
		t.Errorf("%v, %v", rate, a.rates)
	}
	look(4*time.Second, 1050)
	if want := []float64{10, 20, 5, 5, 5, 5}; !slices.Equal(a.rates, want) {
		t.Errorf("%v", a.rates)
	}
	for i := range 200 {
		look(time.Second, int64(1050+i))
	}
	if len(a.rates) != page.ChartPoints {
		t.Errorf("%d in the chart", len(a.rates))
	}
	look(time.Hour, 5000)
	if len(a.rates) != 0 {
		t.Errorf("%v after an hour", a.rates)
	}
}

// shownIn is the text of the elements of a class in a part of a page, with "; " between.
func shownIn(part, class string) string {
	var out []string
	for _, found := range regexp.MustCompile(`class="(?:[^"]* )?`+class+`"[^>]*>([^<]*)<`).FindAllStringSubmatch(part, -1) {
		out = append(out, html.UnescapeString(found[1]))
	}
	return strings.Join(out, "; ")
}

// What an app's row, and the head of its page, say in words.
func TestAppInWords(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	now := time.Now()
	today := now.UTC().Format("15:04:05 UTC")
	st := fullApp()
	st.CredentialFault = ""
	var never time.Time
	is := func(s supervisor.State, reason string, since time.Time) {
		st.Health = supervisor.Health{State: s, Reason: reason, Since: since}
	}
	const keeps = "its new credential cannot be used, so it keeps the one it has: cert: expired"
	const refused = "APNs does not accept this certificate or key"
	for _, c := range []struct {
		change                       func()
		state, held, also, why, help string
	}{
		{func() { is(supervisor.Stalled, "x", now) }, "stalled", "", "", "x, since " + today, ""},
		{func() { is(supervisor.Running, "", never) }, "running", "", "", "", ""},
		{func() { is(supervisor.Idle, "", never) }, "idle", "", "", "", ""},
		{func() {
			st.Paused = worker.PauseState{Paused: true}
			is(supervisor.Paused, "paused by x", now)
		}, "paused", "held", "", "paused by x, since " + today, ""},
		{func() { is(supervisor.NoQueue, "q", never) }, "no queue", "held", "also paused by an operator", "q", ""},
		{func() { is(supervisor.Broken, "403 x", never) }, "broken", "held", "also paused by an operator", "403 x", refused},
		{func() { st.CredentialFault = "cert: expired" }, "broken", "held", "also paused by an operator; new credential refused", "403 x; " + keeps, refused},
		{func() { st.Paused = worker.PauseState{}; is(supervisor.Running, "", never) }, "running", "", "new credential refused", keeps, ""},
		{func() { st.Workers = nil; is(supervisor.Broken, "cert: expired", never) }, "broken", "", "", "cert: expired", ""},
	} {
		c.change()
		app := new(sampled).view(&st)
		row, head := api.pages.part("overview", "row", app), api.pages.part("app", "summary", page.View{Main: app})
		for _, part := range []string{row, head} {
			if shownIn(part, "state") != c.state || shownIn(part, "also") != c.also || shownIn(part, "why") != c.why || shownIn(part, "help") != c.help || shownIn(part, "ready") != "–" {
				t.Errorf("%s\nwant %+v", part, c)
			}
		}
		if !strings.Contains(head, `data-held="`+c.held+`"`) || !strings.Contains(row, `data-state="`+c.state+`"`) {
			t.Errorf("%s\n%s\nwant %+v", row, head, c)
		}
	}
}

// watching is a page that is live.
type watching struct {
	t    *testing.T
	in   *bufio.Scanner
	resp *http.Response
}

func watch(t *testing.T, g *guest, addr, path string) *watching {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.AddCookie(g.cookie)
	resp, err := newClient(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	return &watching{t, in, resp}
}

// next returns the next event, with an empty name after the last.
func (w *watching) next() (name, data string) {
	for w.in.Scan() {
		switch line := w.in.Text(); {
		case line == "":
			return name, data
		case strings.HasPrefix(line, "event: "):
			name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			data = strings.TrimPrefix(data+"\n"+line[len("data: "):], "\n")
		}
	}
	return "", ""
}

// parts reads the parts that one look has changed, by their ids.
func (w *watching) parts() map[string]string {
	w.t.Helper()
	got := make(map[string]string)
	for {
		switch name, data := w.next(); name {
		case "part":
			id := regexp.MustCompile(`^<\w+ id="([^"]+)"`).FindStringSubmatch(data)
			if id == nil {
				w.t.Fatalf("a part without an id: %s", data)
			}
			got[id[1]] = data
		case "done":
			return got
		default:
			w.t.Fatalf("event %q %q after %v", name, data, got)
		}
	}
}

// until reads events until those of one look are as wanted.
func (w *watching) until(want func(parts map[string]string) bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if want(w.parts()) {
			return
		}
	}
	w.t.Fatal("still not")
}

// last reads events until the stream ends, and returns the name of the last.
func (w *watching) last() (name string) {
	for {
		next, _ := w.next()
		if next == "" {
			return name
		}
		name = next
	}
}

// What changes reaches every page that is live, of one's own apps only, and
// nothing is asked any more when the last has gone.
func TestPageEvents(t *testing.T) {
	t.Parallel()
	tree := newCountedTree(topic, "com.example.other")
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, h)
	all := watch(t, newGuest(t, h).signIn("reader-0123"), addr, "/events")
	one := watch(t, newGuest(t, h).signIn("other-0123"), addr, "/events")
	app := watch(t, newGuest(t, h).signIn("reader-0123"), addr, "/events?app="+topic)
	if kind := all.resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("%s", kind)
	}
	const row, other = "app-" + topic, "app-com.example.other"
	all.until(func(parts map[string]string) bool {
		return parts[row] != "" && parts[other] != "" && shownIn(parts["totals"], "apps") == "2 apps"
	})
	one.until(func(parts map[string]string) bool {
		return parts[row] == "" && parts[other] != "" && shownIn(parts["totals"], "apps") == "1 app"
	})
	app.until(func(parts map[string]string) bool {
		return len(parts) == 6 && strings.Contains(parts["workers"], "waiting for jobs")
	})
	tree.buried.Store(4711)
	tree.mu.Lock()
	tree.apps[0].Workers = []worker.Status{{Serving: true, Waiting: "<apns>\revent: x"}}
	tree.mu.Unlock()
	all.until(func(parts map[string]string) bool {
		return shownIn(parts[row], "buried") == "4711" && parts["refused"] == ""
	})
	app.until(func(parts map[string]string) bool {
		return parts["failures"] == "" && parts["refused"] == "" && strings.Contains(parts["workers"], "&lt;apns&gt;\nevent: x")
	})
	tree.mu.Lock()
	tree.apps = tree.apps[1:]
	tree.mu.Unlock()
	if last := app.last(); last != "reload" {
		t.Errorf("of an app that is gone, the last event is %q", last)
	}

	api.Use(Settings{Keys: testKeys[3:]}) // of others
	if last := all.last(); last != "reload" {
		t.Errorf("of a key that is gone, the last event is %q", last)
	}
	one.resp.Body.Close()
	app.resp.Body.Close()
	waitFor(t, func() bool {
		api.pages.sampler.joining.Lock()
		defer api.pages.sampler.joining.Unlock()
		return api.pages.sampler.viewers == 0 && api.lasting.takenBy("reader") == 0
	})
}

// A page that shows other apps than there are is told to load again.
func TestPageOfOtherApps(t *testing.T) {
	t.Parallel()
	tree := newCountedTree("a", "b")
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, h)
	g := newGuest(t, h).signIn("reader-0123")
	events := regexp.MustCompile(`data-events="([^"]+)"`).FindStringSubmatch(g.get("/").Body.String())
	if events == nil {
		t.Fatal("the page is not live")
	}
	w := watch(t, g, addr, html.UnescapeString(events[1]))
	w.parts()
	tree.mu.Lock()
	slices.Reverse(tree.apps)
	tree.mu.Unlock()
	w.parts()
	w.parts() // the order is no matter
	tree.mu.Lock()
	tree.apps[0].Name, tree.apps[0].Topic = "c", "c"
	tree.mu.Unlock()
	if last := w.last(); last != "reload" {
		t.Errorf("the last event is %q", last)
	}
}

// Pages that are live end with the server, and there are not very many.
func TestPageEventsEnd(t *testing.T) {
	t.Parallel()
	api := New(newCountedTree(topic), Options{})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	g := newGuest(t, h).signIn("reader-0123")
	s, err := NewWeb(Web{Listen: "127.0.0.1:0"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	s.Answer(h)
	addr := s.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx) }()
	w := watch(t, g, addr, "/events")
	w.parts()
	for method, path := range map[string]string{"HEAD": "/events", "GET": "/events?place="} {
		if w := g.do(httptest.NewRequest(method, path, nil)); w.Code != 204 || w.Body.Len() > 0 || api.lasting.takenBy("reader") != viewCost {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	api.lasting.try("reader", api.lasting.each-viewCost)
	if w := newGuest(t, h).signIn("admin-0123").get("/events?place="); w.Code != 204 {
		t.Errorf("with another key: %d", w.Code)
	}
	for _, path := range []string{"/events", "/events?place="} {
		if w := g.get(path); w.Code != 503 || !strings.Contains(w.Body.String(), errLasting.Error()) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	stop()
	if _, err := io.ReadAll(w.resp.Body); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	<-ended
}

// A test push: what it would be, that it is put, and what becomes of it.
func TestPageSend(t *testing.T) {
	t.Parallel()
	api, _, log := newPageAPI()
	tree := new(openTree)
	tree.apps = []supervisor.AppStatus{fullApp()}
	api.tree = tree
	h := api.Network()
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, h)
	g := newGuest(t, h).signIn("sender-0123")
	push := map[string]string{"topic": topic, "token": goodToken, "title": "Hi", "badge": "3"}
	var lint lintResult
	if w := g.postJSON("/send/preview", push); w.Code != 200 || json.Unmarshal(w.Body.Bytes(), &lint) != nil || !lint.OK || string(lint.Payload) != `{"aps":{"alert":{"title":"Hi"},"badge":3}}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for name, bad := range map[string]string{"topic": "none", "token": "xyz", "badge": "many", "delay": "-1"} {
		wrong := maps.Clone(push)
		wrong[name] = bad
		lint = lintResult{}
		if w := g.postJSON("/send/preview", wrong); w.Code != 200 || json.Unmarshal(w.Body.Bytes(), &lint) != nil || lint.OK || lint.Error.Key != name {
			t.Errorf("preview of %s %q: %d %s", name, bad, w.Code, w.Body)
		}
		var p Problem
		if w := g.postJSON("/send", wrong); w.Code != 400 || json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Key != name {
			t.Errorf("%s %q: %d %s", name, bad, w.Code, w.Body)
		}
	}
	var result result
	if w := g.postJSON("/send", push); w.Code != 202 || json.Unmarshal(w.Body.Bytes(), &result) != nil || result.ID != "7" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if line := `msg="http: push sent from the page" key=sender from=192.0.2.1 app=` + topic + ` topic=` + topic + " job=7"; !strings.Contains(log.String(), line) || strings.Contains(log.String(), goodToken) {
		t.Errorf("log: %s", log)
	}
	lines := strings.Count(log.String(), "push sent from the page")
	if w := g.postJSON("/send", []any{push}); w.Code != 400 || !strings.Contains(w.Body.String(), "one push at a time") {
		t.Errorf("a list: %d %s", w.Code, w.Body)
	}
	body, err := json.Marshal(push)
	if err != nil {
		t.Fatal(err)
	}
	stream := httptest.NewRequest("POST", "/send", strings.NewReader(string(body)+"\n"))
	stream.Header.Set("Content-Type", "application/x-ndjson")
	if w := g.do(stream); w.Code != 415 || !strings.Contains(w.Body.String(), "one push at a time") {
		t.Errorf("a stream: %d %s", w.Code, w.Body)
	}
	if strings.Count(log.String(), "push sent from the page") != lines {
		t.Errorf("log: %s", log)
	}
	follow := "/send/events?id=" + url.QueryEscape(result.ID)
	api.lasting.try("sender", api.lasting.each)
	if w := g.get(follow); w.Code != 503 || !strings.Contains(w.Body.String(), errLasting.Error()) {
		t.Errorf("without a place: %d %s", w.Code, w.Body)
	}
	if w := g.get("/send/outcome?id=7"); w.Code != 200 || shownIn(w.Body.String(), "fate") != stateQueued || !strings.Contains(w.Body.String(), "<dd>7</dd>") {
		t.Errorf("asked without a place: %d %s", w.Code, w.Body)
	}
	api.lasting.free("sender", api.lasting.each)
	w := watch(t, g, addr, follow)
	state := func(want string, ended bool) (part string) {
		t.Helper()
		name, part := w.next()
		if name != "part" || shownIn(part, "fate") != want || strings.Contains(part, "data-ended") != ended {
			t.Errorf("%q %q", name, part)
		}
		return part
	}
	state(stateQueued, false)
	api.o.Outcomes.Pushed(&worker.Event{App: topic, Job: "7", Seed: api.o.Outcomes.byID["7"].from.seed, N: 1, Action: worker.Tried})
	state(stateTrying, false)
	api.o.Outcomes.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "7", Seed: api.o.Outcomes.byID["7"].from.seed, N: 1, Action: worker.Deleted, Class: apnsconn.Token, Status: 410, Reason: "Unregistered"})
	if part := state(stateRefused, true); !strings.Contains(part, "<dd>Unregistered</dd>") {
		t.Errorf("%s", part)
	}
	if name, _ := w.next(); name != "" {
		t.Errorf("event %q after the end", name)
	}
	other := newGuest(t, h).signIn("other-0123")
	for _, path := range []string{"/send/events", "/send/outcome"} {
		if w := g.get(path + "?id=8"); w.Code != 404 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if w := other.get(path + "?id=7"); w.Code != 404 {
			t.Errorf("%s of another app's: %d", path, w.Code)
		}
	}
	if w := other.postJSON("/send", push); w.Code != 403 {
		t.Errorf("to another app: %d", w.Code)
	}
}

// Why a push waits that was sent to an app which sends nothing.
func TestObstacle(t *testing.T) {
	t.Parallel()
	tree := newCountedTree(topic)
	p := newPages(New(tree, Options{}))
	st := &tree.apps[0]
	waits := pushStatus{App: topic, Topic: topic, State: stateQueued}
	for _, c := range []struct {
		health supervisor.Health
		want   string
	}{
		{supervisor.Health{State: supervisor.Running}, ""},
		{supervisor.Health{State: supervisor.Idle}, ""},
		{supervisor.Health{State: supervisor.Stalled, Reason: "s"}, "the app is stalled: s"},
		{supervisor.Health{State: supervisor.Unreachable, Reason: "u"}, "the app is unreachable: u"},
		{supervisor.Health{State: supervisor.Failing, Reason: "f"}, "the app is failing: f"},
		{supervisor.Health{State: supervisor.Paused, Reason: "paused by x"}, "the app is paused by x, until it is resumed"},
		{supervisor.Health{State: supervisor.TubePaused, Reason: "in the queue until x"}, "the app's tube is paused in the queue until x"},
		{supervisor.Health{State: supervisor.NoQueue, Reason: "q"}, "the app has no queue: q"},
		{supervisor.Health{State: supervisor.Guarded, Reason: "wrong environment?"}, "the app is guarded: wrong environment?; one job a minute is tried"},
		{supervisor.Health{State: supervisor.Broken, Reason: "403 BadCertificate"}, "the app is broken: 403 BadCertificate; one job a minute is tried"},
	} {
		st.Health = c.health
		if got := p.obstacle(&waits); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := p.obstacle(&pushStatus{App: topic, Topic: topic, State: stateDelivered}); got != "" {
		t.Errorf("of one that has arrived: %q", got)
	}
	if got := p.obstacle(&pushStatus{Topic: "gone", State: stateQueued}); !strings.Contains(got, "configuration") {
		t.Errorf("of an app that is gone: %q", got)
	}
}

// What an app's page says of its workers, and of pushes that have ended.
func TestAppPage(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	st := fullApp()
	now := time.Now()
	st.Workers[0] = worker.Status{Serving: true, Connected: true, Link: worker.Link{
		Since: now.Add(-5 * time.Minute), Open: 3, Limit: 500, GoAway: worker.GoAway{At: now, Reason: "Shutdown"},
	}}
	st.Counters = new(worker.Counters)
	app := new(sampled).view(&st)
	app.Failures = failuresOf([]worker.Event{{At: now, Worker: 2, Token: "12345678", Class: apnsconn.Token, Status: 410, Reason: "Unregistered", Took: 40 * time.Millisecond, APNsID: "A"}})
	v := page.View{Main: app}
	has := func(part string, want ...string) {
		t.Helper()
		text := api.pages.part("app", part, v)
		for _, want := range want {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q: %s", part, want, text)
			}
		}
	}
	has("workers", `<td role="cell" class="text first">sending</td>`, ">5 min<", ">3 of 500<", ">Shutdown <time", `<td role="cell" class="text first worry">not running</td>`, `data-label="Streams">–<`)
	has("failures", ">12345678…<", `data-class="token"`, `title="The device token is not active for this topic any more">410 Unregistered<`, ">40 ms<", ">A<")
	has("outcomes", "None since startup.")
	app.Held = true
	app.Workers[1].Serving = true
	has("workers", ">paused<")
	app.Held, app.State = false, supervisor.Broken
	has("workers", ">trying one job a minute<")
}

// Why pushes were not delivered, the most frequent reason in front.
func TestRefusals(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	st := fullApp()
	app := new(sampled).view(&st)
	app.Refusals = refusalsOf(map[worker.Refusal]int64{
		{Class: apnsconn.Token, Reason: "Unregistered"}: 12345, {Class: apnsconn.Unknown}: 3, {Class: apnsconn.Rejected, Reason: "Strange"}: 3, {Class: apnsconn.Rejected, Reason: "BadTopic"}: 3,
	})
	want := []refusal{{"token", "410 Unregistered", 12345}, {"rejected", "400 BadTopic", 3}, {"rejected", "Strange", 3}, {"unknown", "", 3}}
	if !slices.Equal(app.Refusals, want) {
		t.Errorf("%+v", app.Refusals)
	}
	text := api.pages.part("app", "refusals", page.View{Main: app})
	for _, want := range []string{">410 Unregistered<", ">12,345<", ">no reason from APNs<", "The device token is not active"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// A job that JetStream was given back is reserved in its numbers until the next is
// asked for: of an app that asks for none it is ready.
func TestWaiting(t *testing.T) {
	t.Parallel()
	st := fullApp()
	st.Health = supervisor.Health{State: supervisor.Running}
	view := func() int { a := appOf(&st); return a.Waiting() }
	api, _, _ := newPageAPI()
	row := func() string { return shownIn(api.pages.part("overview", "row", new(sampler).view(&st)), "ready") }
	if view() != 1 || row() != "1" {
		t.Errorf("%d, %s of an app that runs", view(), row())
	}
	st.Health.State = supervisor.Broken
	if view() != 1 || row() != "1" {
		t.Errorf("%d, %s of one whose workers hold all that is reserved", view(), row())
	}
	st.Workers = []worker.Status{{Reserved: 1}}
	if view() != 3 || row() != "3" {
		t.Errorf("%d, %s, want 3: one, and two that nobody holds", view(), row())
	}
	st.Health.State = supervisor.Paused
	if view() != 3 {
		t.Errorf("%d of a paused app", view())
	}
	st.Queue = nil
	if view() != 0 || row() != "–" {
		t.Errorf("%d, %s without numbers", view(), row())
	}
}
