package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"propeller/queue"
	"propeller/supervisor"
)

func loadOpenAPI(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, router
}

// The document has every route, and no other; those for everybody need no key.
func TestOpenAPIRoutes(t *testing.T) {
	t.Parallel()
	doc, _ := loadOpenAPI(t)
	var have []string
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			have = append(have, fmt.Sprint(method, " ", path, " ", op.Security != nil))
		}
	}
	var want []string
	for _, r := range New(new(fakeTree), Options{}).routes() {
		want = append(want, fmt.Sprint(strings.ReplaceAll(r.pattern, "...", ""), " ", r.role == roleNone))
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("the document has\n%s\nthere are\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// openTree has all that can be asked for.
type openTree struct{ fakeTree }

func (*openTree) Put(_ context.Context, name string, _ []byte, _ time.Duration) (string, error) {
	if name != topic {
		return "", noApp(name)
	}
	return "7", nil
}

// openAdmin has one buried job.
type openAdmin struct{ queue.Admin }

func (openAdmin) Peek(_ context.Context, _, id string) (queue.StoredJob, error) {
	if id != "7" {
		return queue.StoredJob{}, queue.ErrNotFound
	}
	return queue.StoredJob{ID: "7", Body: []byte(`{"token":"x"}`), Age: time.Minute}, nil
}

func (a openAdmin) List(_ context.Context, _ string, _ queue.State, f func([]queue.StoredJob) error) error {
	b, err := a.Peek(context.Background(), "", "7")
	return errors.Join(err, f([]queue.StoredJob{b}))
}

func (openAdmin) TubeStats(context.Context, string) (queue.TubeStats, error) {
	return queue.TubeStats{Buried: 1}, nil
}
func (openAdmin) Kick(context.Context, string, string) error   { return nil }
func (openAdmin) Delete(context.Context, string, string) error { return nil }

// Every answer of the API is as the document says, good ones and problems.
func TestOpenAPIAnswers(t *testing.T) {
	t.Parallel()
	_, router := loadOpenAPI(t)
	tree := new(openTree)
	tree.jobs = jobsOf(openAdmin{})
	tree.apps = []supervisor.AppStatus{fullApp()}
	tree.apps[0].Counters.Buried.Add(1)
	outcomes := new(Outcomes)
	api := New(tree, Options{
		Outcomes: outcomes, Reload: func(context.Context) error { return nil },
		Metrics: NewMetrics(tree, MetricsOptions{Version: "v", Reloads: func() (at time.Time, _ *RefusedReload) { return at, nil }, Forgotten: new(atomic.Int64), UnusedApps: yes}),
		Reloads: func() (at time.Time, _ *RefusedReload) {
			return at, &RefusedReload{At: time.Unix(1e9, 0), Fault: "propeller.yaml:3: no"}
		},
	})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	const base = "/v1/apps/" + topic
	form := "auth_token=admin-0123&topic=" + topic + "&token=" + goodToken
	steps := []struct {
		method, path, kind, body string
		status                   int
	}{
		{"GET", "/healthz", "", "", 200},
		{"GET", "/readyz", "", "", 200},
		{"GET", "/readyz/apps", "", "", 503},
		{"GET", "/readyz/apps/" + topic, "", "", 503},
		{"GET", "/readyz/apps/none", "", "", 404},
		{"GET", "/openapi.yaml", "", "", 200},
		{"GET", "/metrics", "", "", 200},
		{"POST", "/post", "application/x-www-form-urlencoded", form + "&badge=3", 200},
		{"POST", "/post", "application/x-www-form-urlencoded", form + "&badge=x", 400},
		{"POST", "/v1/notifications", "application/json", notification(`,"delay":9`), 202},
		{"POST", "/v1/notifications", "application/json", notification(`,"badge":"x"`), 400},
		{"POST", "/v1/notifications", "application/json", "[" + notification("") + "," + notification(`,"badge":"x"`) + "]", 202},
		{"POST", "/v1/notifications", ndjson, notification("") + "\n", 202},
		{"GET", "/v1/notifications/7", "", "", 200},
		{"GET", "/v1/notifications/8", "", "", 404},
		{"POST", "/v1/lint", "application/json", notification(""), 200},
		{"POST", "/v1/lint", "application/json", notification(`,"badge":"x"`), 200},
		{"POST", "/v1/reload", "", "", 200},
		{"GET", "/v1/apps", "", "", 200},
		{"GET", base, "", "", 200},
		{"GET", "/v1/apps/none", "", "", 404},
		{"POST", base + "/pause", "", "", 200},
		{"POST", base + "/resume", "", "", 200},
		{"POST", base + "/jobs?delay=1s", "application/json", `{"token":"` + goodToken + `","title":"x"}`, 200},
		{"POST", base + "/jobs", "application/json", `{}`, 400},
		{"GET", base + "/buried?limit=5", "", "", 200},
		{"GET", base + "/buried/7", "", "", 200},
		{"GET", base + "/buried/8", "", "", 404},
		{"POST", base + "/buried/kick", "application/json", `{"ids":["7"]}`, 200},
		{"POST", base + "/buried/delete", "application/json", `{"all":true}`, 200},
		{"POST", base + "/buried/delete", "application/json", `{}`, 400},
	}
	for _, s := range steps {
		request := func() *http.Request {
			r := httptest.NewRequest(s.method, s.path, strings.NewReader(s.body))
			r.Header.Set("Authorization", "Bearer admin-0123")
			if s.kind != "" {
				r.Header.Set("Content-Type", s.kind)
			}
			return r
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request())
		if w.Code != s.status {
			t.Errorf("%s %s: %d %s", s.method, s.path, w.Code, w.Body)
		}
		r := request()
		route, params, err := router.FindRoute(r)
		if err != nil {
			t.Fatalf("%s %s: %v", s.method, s.path, err)
		}
		in := &openapi3filter.RequestValidationInput{
			Request: r, Route: route, PathParams: params,
			Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
		}
		if s.status < 400 && s.kind != ndjson {
			if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil {
				t.Errorf("request %s %s: %v", s.method, s.path, err)
			}
		}
		if kind := w.Header().Get("Content-Type"); kind != "application/json" && kind != problemType {
			if response := route.Operation.Responses.Status(w.Code); response == nil {
				response = route.Operation.Responses.Default()
				if response == nil || response.Value.Content.Get(kind) == nil {
					t.Errorf("answer %s %s: %d %s is not in the document", s.method, s.path, w.Code, kind)
				}
			}
			continue
		}
		err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: in, Status: w.Code, Header: w.Header(), Body: io.NopCloser(strings.NewReader(w.Body.String())),
		})
		if err != nil {
			t.Errorf("answer %s %s: %d %v", s.method, s.path, w.Code, err)
		}
	}
}
