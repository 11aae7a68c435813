package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
)

// Pause and Resume are of a tree whose one app is held or not.
func (f *fakeTree) Pause(name, reason string) error {
	if name != topic {
		return noApp(name)
	}
	f.apps[0].Paused = worker.PauseState{Paused: true, Reason: reason}
	f.apps[0].Health = supervisor.Health{State: supervisor.Paused, Reason: reason}
	return nil
}

func (f *fakeTree) Resume(name string) error {
	if name != topic {
		return noApp(name)
	}
	f.apps[0].Paused, f.apps[0].Health = worker.PauseState{}, supervisor.Health{State: supervisor.Running}
	return nil
}

func (*putTree) Pause(string, string) error { return supervisor.ErrNoApp }
func (*putTree) Resume(string) error        { return supervisor.ErrNoApp }

// Orders about an app are carried out, and in the log.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	app := fullApp()
	app.Health = supervisor.Health{State: supervisor.Running}
	var log strings.Builder
	api := New(&fakeTree{apps: []supervisor.AppStatus{app}}, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	for _, c := range []struct {
		order, done, reason string
		state               supervisor.State
	}{{"pause", "paused", "paused by admin", supervisor.Paused}, {"resume", "resumed", "", supervisor.Running}} {
		w := send(h, "admin-0123", "POST", "/v1/apps/"+topic+"/"+c.order, "")
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"state":"`+string(c.state)+`"`) || !strings.Contains(w.Body.String(), c.reason) {
			t.Errorf("%s: %d %s", c.order, w.Code, w.Body)
		}
		if line := "http: app " + c.done + `" key=admin from=192.0.2.1 app=` + topic + ` topic=` + topic; !strings.Contains(log.String(), line) {
			t.Errorf("log: %s", &log)
		}
		if w := send(h, "admin-0123", "POST", "/v1/apps/com.example.none/"+c.order, ""); w.Code != 404 {
			t.Errorf("%s: %d %s", c.order, w.Code, w.Body)
		}
		if w := send(h, "admin-0123", "GET", "/readyz/apps", ""); w.Code != 200 {
			t.Errorf("an app that an operator holds is no trouble: %d %s", w.Code, w.Body)
		}
	}
}

// That the last reload was refused, and why, is told to who may know it.
func TestRefusedReload(t *testing.T) {
	t.Parallel()
	refused := &RefusedReload{At: time.Now().UTC(), Fault: "propeller.yaml:3: <no> such file"}
	tree := newCountedTree(topic, "com.example.other")
	var last *RefusedReload
	reloads := func() (time.Time, *RefusedReload) { return time.Now(), last }
	api := New(tree, Options{Reloads: reloads, Metrics: NewMetrics(tree, MetricsOptions{Version: "v", Reloads: reloads, Forgotten: new(atomic.Int64), UnusedApps: yes})})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	for _, r := range []*RefusedReload{nil, refused} {
		last = r
		for key, want := range map[string]string{"reader-0123": refused.Fault, "other-0123": "", "": "nothing"} {
			var apps Apps
			var ready readiness
			_ = json.Unmarshal(send(h, key, "GET", "/v1/apps", "").Body.Bytes(), &apps)
			w := send(h, key, "GET", "/readyz", "")
			if err := json.Unmarshal(w.Body.Bytes(), &ready); err != nil || w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			for _, told := range []*RefusedReload{apps.RefusedReload, ready.RefusedReload} {
				if isTold := told != nil; isTold != (r != nil && want != "nothing") || isTold && (told.Fault != want || !told.At.Equal(refused.At)) {
					t.Errorf("%q is told %+v of %+v", key, told, r)
				}
			}
			if key == "" {
				continue
			}
			g := newGuest(t, h).signIn(key)
			for _, path := range []string{"/", "/apps/com.example.other"} {
				text := g.get(path).Body.String()
				if strings.Contains(text, "was refused") != (r != nil) || strings.Contains(text, "3: &lt;no&gt; such") != (r != nil && want != "") {
					t.Errorf("%q at %s, refused %v: %s", key, path, r != nil, text)
				}
			}
		}
		if text := send(h, "reader-0123", "GET", "/metrics", "").Body.String(); strings.Contains(text, "\npropeller_config_reload_ok 1\n") != (r == nil) {
			t.Errorf("%s", text)
		}
	}
}

// Tubes of no app are told to who may see all apps.
func TestUnknownTubesAreTold(t *testing.T) {
	t.Parallel()
	tree := &fakeTree{unknown: []supervisor.UnknownTube{{Name: "a<b", TubeStats: queue.TubeStats{Ready: 4711, Buried: 1}}}}
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	for key, told := range map[string]bool{"reader-0123": true, "other-0123": false} {
		var apps Apps
		if err := json.Unmarshal(send(h, key, "GET", "/v1/apps", "").Body.Bytes(), &apps); err != nil {
			t.Fatal(err)
		}
		if told && (len(apps.UnknownTubes) != 1 || apps.UnknownTubes[0] != (unknownTube{"a<b", 4711, 0, 0, 1})) || !told && apps.UnknownTubes != nil {
			t.Errorf("%q is told %+v", key, apps.UnknownTubes)
		}
		if text := newGuest(t, h).signIn(key).get("/").Body.String(); strings.Contains(text, "a&lt;b</code>: 4711 ready, 0 delayed, 1 buried") != told {
			t.Errorf("%q sees %s", key, text)
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
	tree := &fakeTree{apps: []supervisor.AppStatus{fullApp(), {Name: "bare", Topic: "bare"}}}
	w := httptest.NewRecorder()
	New(tree, Options{Reload: func(context.Context) error { return nil }}).Socket().ServeHTTP(w, httptest.NewRequest("POST", "/v1/reload", nil))
	if want := `{"apps":2,"credentials":[{"app":"com.example.app","fault":"expired"}]}` + "\n"; w.Code != 200 || w.Body.String() != want {
		t.Errorf("%d %s, want %s", w.Code, w.Body, want)
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
