package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"propeller/supervisor"
	"propeller/worker"
)

// Pause and Resume are of a tree whose one app is held or not.
func (f *fakeTree) Pause(name, reason string) error {
	if name != topic {
		return noApp(name)
	}
	f.apps[0].Held = worker.HoldState{Held: true, Reason: reason}
	return nil
}

func (f *fakeTree) Resume(name string) error {
	if name != topic {
		return noApp(name)
	}
	f.apps[0].Held = worker.HoldState{}
	return nil
}

func (*putTree) Pause(string, string) error { return supervisor.ErrNoApp }
func (*putTree) Resume(string) error        { return supervisor.ErrNoApp }

// Orders about an app are carried out, and in the log.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	app := fullApp()
	app.Stalled = nil
	var log strings.Builder
	api := New(&fakeTree{apps: []supervisor.AppStatus{app}}, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	for _, c := range []struct {
		order, done, state, reason string
	}{{"pause", "paused", StatePaused, "by order of admin"}, {"resume", "resumed", StateRunning, ""}} {
		w := send(h, "admin-0123", "POST", "/v1/apps/"+topic+"/"+c.order, "")
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"state":"`+c.state+`"`) || !strings.Contains(w.Body.String(), c.reason) {
			t.Errorf("%s: %d %s", c.order, w.Code, w.Body)
		}
		if line := "http: app " + c.done + `" key=admin from=192.0.2.1 topic=` + topic; !strings.Contains(log.String(), line) {
			t.Errorf("log: %s", &log)
		}
		if w := send(h, "admin-0123", "POST", "/v1/apps/com.example.none/"+c.order, ""); w.Code != 404 {
			t.Errorf("%s: %d %s", c.order, w.Code, w.Body)
		}
		if w := send(h, "admin-0123", "GET", "/readyz", ""); w.Code != 200 {
			t.Errorf("an app that an operator holds is no trouble: %d %s", w.Code, w.Body)
		}
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	ask := func(reload func(context.Context) error) *httptest.ResponseRecorder {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		New(new(fakeTree), Options{Reload: reload}).Socket().ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/v1/reload", nil))
		return w
	}
	if w := ask(nil); w.Code != 501 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(func(context.Context) error { return nil }); w.Code != 200 || w.Body.String() != `{"apps":0}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(func(ctx context.Context) error { return ctx.Err() }); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	api := New(new(fakeTree), Options{Reload: func(context.Context) error { return errors.New("propeller.yaml:3: no") }})
	api.Use(Settings{Keys: testKeys})
	if w := send(api.Network(), "admin-0123", "POST", "/v1/reload", ""); w.Code != 422 || !strings.Contains(w.Body.String(), "propeller.yaml:3") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
