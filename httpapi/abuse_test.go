package httpapi

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
)

// in says that somebody is let in, whatever is answered then.
const in = 0

// everyRoute is how each request is answered to who comes with no key or a wrong
// one, with the keys reader and sender, with an admin's for another app, and with
// an admin's for all; and what it does for those who are let in. It is written by
// hand, and TestEveryRoute fails when a route is not in it.
var everyRoute = []struct { // never written to
	pattern, body                          string
	stranger, reader, sender, other, admin int
	does                                   string // of touchedTree; "" for nothing
}{
	{"POST /post", form, 401, 401, in, 403, in, "put"},
	{"GET /healthz", "", in, in, in, in, in, ""},
	{"GET /readyz", "", in, in, in, in, in, ""},
	{"GET /readyz/apps", "", in, in, in, in, in, ""},
	{"GET /readyz/apps/{app}", "", in, in, in, 403, in, ""},
	{"GET /openapi.yaml", "", in, in, in, in, in, ""},
	{"GET /metrics", "", 401, in, in, 403, in, ""},
	{"POST /v1/notifications", push, 401, 403, in, 403, in, "put"},
	{"GET /v1/notifications/{id...}", "", 401, in, in, 404, in, ""},
	{"POST /v1/lint", push, 401, 403, in, in, in, ""}, // which says that sending it would be refused
	{"GET /v1/apps", "", 401, in, in, in, in, ""},
	{"GET /v1/apps/{app}", "", 401, in, in, 403, in, ""},
	{"POST /v1/apps/{app}/pause", "", 401, 403, 403, 403, in, "pause"},
	{"POST /v1/apps/{app}/resume", "", 401, 403, 403, 403, in, "resume"},
	{"POST /v1/reload", "", 401, 403, 403, 403, in, "reload"},
	{"GET /v1/apps/{app}/buried", "", 401, in, in, 403, in, ""},
	{"GET /v1/apps/{app}/buried/{id...}", "", 401, 403, 403, 403, in, "peek"},
	{"POST /v1/apps/{app}/buried/kick", choice, 401, 403, 403, 403, in, "kick"},
	{"POST /v1/apps/{app}/buried/delete", choice, 401, 403, 403, 403, in, "delete"},
	{"POST /v1/apps/{app}/jobs", goodJob, 401, 403, in, 403, in, "put"},
	{"GET /debug/pprof/{$}", "", 401, 403, 403, 403, in, ""},
	{"GET /debug/pprof/{profile}", "", 401, 403, 403, 403, in, ""},
	{"GET /debug/pprof/profile", "", 401, 403, 403, 403, in, ""},
	{"GET /debug/pprof/trace", "", 401, 403, 403, 403, in, ""},

	{"GET /{$}", "", 303, in, in, in, in, ""},
	{"GET /events", "", 401, in, in, in, in, ""},
	{"GET /apps/{app}", "", 303, in, in, 403, in, ""},
	{"POST /apps/{app}/pause", form, 401, 403, 403, 403, in, "pause"},
	{"POST /apps/{app}/resume", form, 401, 403, 403, 403, in, "resume"},
	{"GET /apps/{app}/buried", "", 303, in, in, 403, in, ""},
	{"GET /apps/{app}/buried/{id...}", "", 303, 403, 403, 403, in, "peek"},
	{"POST /apps/{app}/buried/kick", form, 401, 403, 403, 403, in, "kick"},
	{"POST /apps/{app}/buried/delete", form, 401, 403, 403, 403, in, "delete"},
	{"GET /send", "", 303, 403, in, in, in, ""},
	{"POST /send", push, 401, 403, in, 403, in, "put"},
	{"POST /send/preview", push, 401, 403, in, in, in, ""},
	{"GET /send/events", "", 303, 403, in, 404, in, ""},
	{"GET /send/outcome", "", 303, 403, in, 404, in, ""},
	{"GET /login", "", in, in, in, in, in, ""},
	{"POST /login", form, 401, in, in, in, in, ""},
	{"POST /logout", form, 401, in, in, in, in, ""},
	{"GET /assets/{version}/{file}", "", in, in, in, in, in, ""},
}

// The bodies of the requests, all about the app topic.
var ( // never written to
	form    = "topic=" + topic + "&token=" + goodToken + "&title=x&id=7"
	goodJob = `{"token":"` + goodToken + `","title":"x"}`
	push    = `{"topic":"` + topic + `","token":"` + goodToken + `","title":"x"}`
	choice  = `{"ids":["7"]}`
)

// touchedTree is a tree with one app that keeps what is done to it.
type touchedTree struct {
	openAdmin
	fakeTree

	mu      sync.Mutex
	touched []string
}

func newTouchedTree() *touchedTree {
	app := fullApp()
	app.Health, app.Recent = supervisor.Health{State: supervisor.Running}, new(worker.Recent)
	t := &touchedTree{fakeTree: fakeTree{apps: []supervisor.AppStatus{app}}}
	t.jobs = jobsOf(t)
	return t
}

func (t *touchedTree) touch(what string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touched = append(t.touched, what)
	return nil
}

// take returns what has been done since the last time.
func (t *touchedTree) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { t.touched = nil }()
	return t.touched
}

func (t *touchedTree) Put(context.Context, string, []byte, time.Duration) (string, error) {
	return "8", t.touch("put")
}
func (t *touchedTree) PutAll(ctx context.Context, jobs []supervisor.NewJob) []queue.Stored {
	return putEach(ctx, t, jobs)
}
func (t *touchedTree) Pause(string, string) error { return t.touch("pause") }
func (t *touchedTree) Resume(string) error        { return t.touch("resume") }

func (t *touchedTree) Peek(ctx context.Context, tube, id string) (queue.StoredJob, error) {
	_ = t.touch("peek")
	return t.openAdmin.Peek(ctx, tube, id)
}
func (t *touchedTree) List(ctx context.Context, tube string, state queue.State, f func([]queue.StoredJob) error) error {
	return t.openAdmin.List(ctx, tube, state, f)
}
func (t *touchedTree) TubeStats(ctx context.Context, tube string) (queue.TubeStats, error) {
	return t.openAdmin.TubeStats(ctx, tube)
}
func (t *touchedTree) Kick(context.Context, string, string) error   { return t.touch("kick") }
func (t *touchedTree) Delete(context.Context, string, string) error { return t.touch("delete") }

// Every route of API and page, asked over the network with each key, about an app
// or a push of an app: whoever may not is told so, and nothing is done for them.
func TestEveryRoute(t *testing.T) {
	t.Parallel()
	tree := newTouchedTree()
	outcomes := new(Outcomes)
	outcomes.begin()
	outcomes.end(donePut{id: "7", app: topic, topic: topic, delay: 0, tokens: 1})
	api := New(tree, Options{Outcomes: outcomes, Metrics: http.NotFoundHandler(), Reload: func(context.Context) error { return tree.touch("reload") }})
	api.Use(Settings{Keys: testKeys, PProf: true})
	api.wrong.limit.SetLimit(rate.Inf) // there are many
	patterns, onPage := patternsOf(api)
	var listed []string
	for _, row := range everyRoute {
		listed = append(listed, row.pattern)
	}
	slices.Sort(listed)
	if !slices.Equal(patterns, listed) {
		t.Fatalf("the table has\n%q\nthere are\n%q", listed, patterns)
	}

	base := "http://" + serveWeb(t, Web{Listen: "127.0.0.1:0"}, api.Network())
	client := newClient(t)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, row := range everyRoute {
		for key, want := range map[string]int{
			"": row.stranger, "wrong-0123": row.stranger, "reader-0123": row.reader, "sender-0123": row.sender, "other-0123": row.other, "admin-0123": row.admin,
		} {
			r := requestFor(t, base, row.pattern, row.body, key)
			if onPage[row.pattern] {
				signed(r, newGuest(t, api.Network()), row.body, key)
			}
			tree.take()
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			got, to, done := resp.StatusCode, resp.Header.Get("Location"), tree.take()
			resp.Body.Close()
			switch {
			case want != in && (got != want || len(done) > 0):
				t.Errorf("%s with key %q: %d, want %d; done %q", row.pattern, key, got, want, done)
			case want == in && (got == 401 || got == 403 || strings.HasPrefix(to, "/login?") || row.does == "" != (len(done) == 0) || row.does != "" && !slices.Contains(done, row.does)):
				t.Errorf("%s with key %q, who may: %d to %q, done %q", row.pattern, key, got, to, done)
			}
		}
	}
}

// patternsOf lists the routes of the network, in order, and says which are the
// page's.
func patternsOf(api *API) (all []string, onPage map[string]bool) {
	onPage = make(map[string]bool)
	for _, r := range append(api.routes(), api.profiles()...) {
		all = append(all, r.pattern)
	}
	for _, r := range api.pages.routes() {
		all = append(all, r.pattern)
		onPage[r.pattern] = true
	}
	slices.Sort(all)
	return all, onPage
}

// requestFor is a request of a route with a key, "" for none.
func requestFor(t *testing.T, base, pattern, body, key string) *http.Request {
	t.Helper()
	method, path := pathOf(pattern)
	path = strings.Replace(path, "{profile}", "symbol", 1) + "?id=7&seconds=1"
	r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == form {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	return r
}

// signed makes a request one of a browser that has signed in with a key, or tries
// to with a session that is none.
func signed(r *http.Request, g *guest, body, key string) {
	r.Header.Del("Authorization") // browsers send none
	switch key {
	case "":
	case "wrong-0123":
		g.cookie = &http.Cookie{Name: "propeller_session", Value: "wrong"}
	default:
		g.signIn(key)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if g.cookie != nil {
		r.AddCookie(g.cookie)
	}
	if body == form {
		body += "&key=" + key
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
}
