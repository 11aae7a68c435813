package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
	"propeller/worker/buried"
)

// countedTree has apps that work, and counts who asks.
type countedTree struct {
	Tree
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
			Topic: topic, Health: supervisor.Health{State: supervisor.Running}, Counters: new(worker.Counters), Steps: new(supervisor.Steps), Recent: new(worker.Recent), Workers: []worker.Status{{Serving: true}},
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
		s := &sampler{tree: tree}
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
		s := &sampler{tree: tree}
		leave := s.join()
		defer leave()
		time.Sleep(2*sampleEvery + time.Millisecond)
		if n := tree.asked.Load(); n != int64(len(topics)) {
			t.Errorf("%d questions in three looks", n)
		}
		s.mu.Lock()
		for topic, a := range s.apps {
			if a.row.Buried != "0" {
				t.Errorf("%s: %+v", topic, a.row)
			}
		}
		s.mu.Unlock()
		tree.hangs.Store(true)
		looks, before := tree.looks.Load(), tree.asked.Load()
		time.Sleep(10 * sampleEvery)
		if n, asked := tree.looks.Load()-looks, tree.asked.Load()-before; n < 9 || asked > 11 {
			t.Errorf("%d looks and %d questions in 10 s with a queue that does not answer", n, asked)
		}
	})
}

// Pushes a second, of the last seconds and in the chart; a gap while nobody
// looked is filled with its average, a long one is forgotten.
func TestSamplerRates(t *testing.T) {
	t.Parallel()
	st := &supervisor.AppStatus{Topic: "a", Counters: new(worker.Counters), Steps: new(supervisor.Steps)}
	a, now := new(sampled), time.Unix(1e9, 0)
	look := func(after time.Duration, ended int64) {
		now = now.Add(after)
		a.look(st, nil, now, ended)
	}
	look(0, 1000)
	if _, ok := a.rate(); ok || len(a.rates) != 0 {
		t.Errorf("a rate after one look: %v", a.rates)
	}
	look(time.Second, 1010)
	look(time.Second, 1030)
	if rate, _ := a.rate(); rate != 15 || !slices.Equal(a.rates, []float64{10, 20}) {
		t.Errorf("%v, %v", rate, a.rates)
	}
	look(4*time.Second, 1050)
	if want := []float64{10, 20, 5, 5, 5, 5}; !slices.Equal(a.rates, want) {
		t.Errorf("%v", a.rates)
	}
	for i := range 200 {
		look(time.Second, int64(1050+i))
	}
	if len(a.rates) != maxRates {
		t.Errorf("%d in the chart", len(a.rates))
	}
	look(time.Hour, 5000)
	if len(a.rates) != 0 {
		t.Errorf("%v after an hour", a.rates)
	}
}

// What the rows say in words.
func TestAppRow(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	for rate, want := range map[float64]string{0: "0", 0.5: "0.5", 99.94: "99.9", 100: "100", 12345.6: "12,346"} {
		if got := perSecond(rate); got != want {
			t.Errorf("%v: %s", rate, got)
		}
	}
	st := fullApp()
	st.Recent, st.CredentialFault = nil, ""
	var never time.Time
	is := func(s supervisor.State, reason string, since time.Time) {
		st.Health = supervisor.Health{State: s, Reason: reason, Since: since}
	}
	for _, c := range []struct {
		change                       func()
		state, held, also, why, help string
	}{
		{func() { is(supervisor.Stalled, "x", now) }, "stalled", "", "", "x, since 01:46:40 UTC", ""},
		{func() { is(supervisor.Running, "", never) }, "running", "", "", "", ""},
		{func() { is(supervisor.Idle, "", never) }, "idle", "", "", "", ""},
		{func() {
			st.Held = worker.HoldState{Held: true}
			is(supervisor.Paused, "paused by x", now.Add(-24*time.Hour))
		}, "paused", "held", "", "paused by x, since Sep 8 01:46 UTC", ""},
		{func() { is(supervisor.NoQueue, "q", never) }, "no queue", "held", "also paused by an operator", "q", ""},
		{func() { is(supervisor.Broken, "403 x", never) }, "broken", "held", "also paused by an operator", "403 x", "APNs does not accept this certificate or key"},
		{func() { st.CredentialFault = "cert: expired" }, "broken", "held", "also paused by an operator; new credential refused", "403 x; it keeps the credential it has, since the new one cannot be used: cert: expired", "APNs does not accept this certificate or key"},
		{func() { st.Held = worker.HoldState{}; is(supervisor.Running, "", never) }, "running", "", "new credential refused", "it keeps the credential it has, since the new one cannot be used: cert: expired", ""},
		{func() { st.Workers = nil; is(supervisor.Broken, "cert: expired", never) }, "broken", "", "", "cert: expired", ""},
	} {
		c.change()
		if r := new(sampled).rowOf(&st, now); r.State != c.state || r.Held != c.held || r.Also != c.also || r.Why != c.why || r.Help != c.help || r.Ready != unknown {
			t.Errorf("%+v, want %+v", r, c)
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
			data = line[len("data: "):]
		}
	}
	return "", ""
}

// until reads events until one is as wanted.
func (w *watching) until(want func(e liveEvent) bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		name, data := w.next()
		var e liveEvent
		if err := json.Unmarshal([]byte(data), &e); err != nil || name != "look" {
			w.t.Fatalf("event %q %q: %v", name, data, err)
		}
		if want(e) {
			return
		}
	}
	w.t.Fatal("still not")
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
	app := watch(t, newGuest(t, h).signIn("reader-0123"), addr, "/events?topic="+topic)
	if kind := all.resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("%s", kind)
	}
	all.until(func(e liveEvent) bool {
		return slices.Equal(e.Topics, []string{topic, "com.example.other"}) && len(e.Apps) == 2 && e.Total.Apps == "2 apps"
	})
	one.until(func(e liveEvent) bool {
		return slices.Equal(e.Topics, []string{"com.example.other"}) && len(e.Apps) == 1
	})
	app.until(func(e liveEvent) bool {
		return slices.Equal(e.Topics, []string{topic}) && len(e.Parts) == 4 && strings.Contains(e.Parts["workers"], "waits for jobs")
	})
	tree.buried.Store(4711)
	tree.mu.Lock()
	tree.apps[0].Workers = []worker.Status{{Serving: true, Waiting: "<apns>"}}
	tree.mu.Unlock()
	all.until(func(e liveEvent) bool { return len(e.Apps) > 0 && e.Apps[0].Buried == "4711" && e.Topics == nil })
	app.until(func(e liveEvent) bool {
		return len(e.Parts) == 1 && strings.Contains(e.Parts["workers"], "&lt;apns&gt;")
	})
	tree.mu.Lock()
	tree.apps = tree.apps[1:]
	tree.mu.Unlock()
	app.until(func(e liveEvent) bool { return e.Topics != nil && len(e.Topics) == 0 })

	api.Use(Settings{Keys: testKeys[3:]}) // of others
	for name := "look"; name != "signedout"; {
		if name, _ = all.next(); name == "" {
			t.Fatal("the stream ended without a word")
		}
	}
	one.resp.Body.Close()
	app.resp.Body.Close()
	waitFor(t, func() bool {
		api.pages.sampler.joining.Lock()
		defer api.pages.sampler.joining.Unlock()
		return api.pages.sampler.viewers == 0 && api.lasting.takenBy("reader") == 0
	})
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
	w.until(func(liveEvent) bool { return true })
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
	push := []string{"topic", topic, "token", goodToken, "title", "Hi", "body", "", "badge", "3", "delay", ""}
	var lint Lint
	if w := g.post("/send/preview", push...); w.Code != 200 || json.Unmarshal(w.Body.Bytes(), &lint) != nil || !lint.OK || string(lint.Payload) != `{"aps":{"alert":{"title":"Hi"},"badge":3}}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for name, bad := range map[string]string{"topic": "none", "token": "xyz", "badge": "many", "delay": "-1"} {
		wrong := slices.Clone(push)
		wrong[slices.Index(wrong, name)+1] = bad
		lint = Lint{}
		if w := g.post("/send/preview", wrong...); w.Code != 200 || json.Unmarshal(w.Body.Bytes(), &lint) != nil || lint.OK || lint.Error.Key != name {
			t.Errorf("preview of %s %q: %d %s", name, bad, w.Code, w.Body)
		}
		var p Problem
		if w := g.post("/send", wrong...); w.Code != 400 || json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Key != name {
			t.Errorf("%s %q: %d %s", name, bad, w.Code, w.Body)
		}
	}
	var result Result
	if w := g.post("/send", push...); w.Code != 202 || json.Unmarshal(w.Body.Bytes(), &result) != nil || result.ID != "7" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if line := `msg="http: push sent from the page" key=sender from=192.0.2.1 topic=` + topic + " job=7"; !strings.Contains(log.String(), line) || strings.Contains(log.String(), goodToken) {
		t.Errorf("log: %s", log)
	}
	follow := "/send/events?id=" + url.QueryEscape(result.ID)
	api.lasting.try("sender", api.lasting.each)
	if w := g.get(follow); w.Code != 503 || !strings.Contains(w.Body.String(), errLasting.Error()) {
		t.Errorf("without a place: %d %s", w.Code, w.Body)
	}
	var sent sentPush
	if w := g.get("/send/outcome?id=7"); w.Code != 200 || json.Unmarshal(w.Body.Bytes(), &sent) != nil || sent.ID != "7" || sent.State != FateQueued {
		t.Errorf("asked without a place: %d %s", w.Code, w.Body)
	}
	api.lasting.free("sender", api.lasting.each)
	w := watch(t, g, addr, follow)
	state := func() (n Notification) {
		t.Helper()
		name, data := w.next()
		if err := json.Unmarshal([]byte(data), &n); err != nil || name != "outcome" {
			t.Fatalf("%q %q: %v", name, data, err)
		}
		return n
	}
	if n := state(); n.State != FateQueued {
		t.Errorf("%+v", n)
	}
	api.o.Outcomes.Pushed(&worker.Event{App: topic, Job: "7", Seed: api.o.Outcomes.byID["7"].from.seed, N: 1, Action: worker.Tried})
	if n := state(); n.State != FateTrying {
		t.Errorf("%+v", n)
	}
	api.o.Outcomes.Pushed(&worker.Event{At: time.Now(), App: topic, Job: "7", Seed: api.o.Outcomes.byID["7"].from.seed, N: 1, Action: worker.Deleted, Class: apnsconn.Token, Status: 410, Reason: "Unregistered"})
	if n := state(); n.State != FateRefused || n.Reason != "Unregistered" {
		t.Errorf("%+v", n)
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
	if w := other.post("/send", push...); w.Code != 403 {
		t.Errorf("to another app: %d", w.Code)
	}
}

// Why a push waits that was sent to an app which sends nothing.
func TestObstacle(t *testing.T) {
	t.Parallel()
	tree := newCountedTree(topic)
	p := newPages(New(tree, Options{}))
	st := &tree.apps[0]
	waits := Notification{Topic: topic, State: FateQueued}
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
	if got := p.obstacle(&Notification{Topic: topic, State: FateDelivered}); got != "" {
		t.Errorf("of one that has arrived: %q", got)
	}
	if got := p.obstacle(&Notification{Topic: "gone", State: FateQueued}); !strings.Contains(got, "configuration") {
		t.Errorf("of an app that is gone: %q", got)
	}
}

// The page's words for pushes that have ended.
func TestAppPage(t *testing.T) {
	t.Parallel()
	st := fullApp()
	now := time.Unix(1e9, 0)
	st.Workers[0] = worker.Status{Serving: true, Connected: true, Link: worker.Link{
		Since: now.Add(-5 * time.Minute), Open: 3, Limit: 500, GoAway: worker.GoAway{At: now, Reason: "Shutdown"},
	}}
	rows := appPageOf(&st, appRow{}, now).Workers
	if r := rows[0]; r.Does != "works" || r.Age != "5 min" || r.Streams != "3 of 500" || r.GoAway != "Shutdown" || r.Trouble {
		t.Errorf("%+v", r)
	}
	if r := rows[1]; r.Does != "does not run" || !r.Trouble || r.Streams != unknown {
		t.Errorf("%+v", r)
	}
	ended := endedRows([]worker.Event{{At: now, Worker: 2, Token: "12345678", Class: apnsconn.Token, Status: 410, Reason: "Unregistered", Took: 40 * time.Millisecond, APNsID: "A"}})
	if want := (endedRow{Failure{now, 2, "12345678", "token", 410, "410 Unregistered", "A", 40}, "The device token is not active for this topic any more", "40 ms"}); ended[0] != want {
		t.Errorf("%+v", ended)
	}
}

// A job that JetStream was given back is reserved in its numbers until the next is
// asked for: of an app that asks for none it is ready.
func TestWaiting(t *testing.T) {
	t.Parallel()
	st := fullApp()
	st.Health = supervisor.Health{State: supervisor.Running}
	view := func() int { a := appOf(&st); return a.Waiting() }
	row := func() string { return new(sampler).rowOf(&st, time.Now()).Ready }
	if view() != 1 || row() != "1" {
		t.Errorf("%d, %s of an app that runs", view(), row())
	}
	st.Health.State = supervisor.Broken
	if view() != 1 || row() != "1" {
		t.Errorf("%d, %s of one whose workers hold all that is reserved", view(), row())
	}
	st.Workers = []worker.Status{{Held: 1}}
	if view() != 3 || row() != "3" {
		t.Errorf("%d, %s, want 3: one, and two that nobody holds", view(), row())
	}
	st.Health.State = supervisor.Paused
	if view() != 3 {
		t.Errorf("%d of a paused app", view())
	}
	st.Queue = nil
	if view() != 0 || row() != unknown {
		t.Errorf("%d, %s without numbers", view(), row())
	}
}
