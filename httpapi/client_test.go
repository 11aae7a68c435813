package httpapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
)

// A client by URL asks with its key, below the daemon's base path, over TCP and
// over a socket.
func TestClientForURL(t *testing.T) {
	t.Parallel()
	tree := &fakeTree{apps: []supervisor.AppStatus{fullApp(), {Name: "other", Topic: "other", Counters: new(worker.Counters), Steps: new(supervisor.Steps)}}}
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys, BasePath: "/push"})
	web := httptest.NewServer(api.Network())
	t.Cleanup(web.Close)
	path := filepath.Join(t.TempDir(), "s")
	serveWeb(t, Web{Listen: "unix:" + path}, api.Network())
	for _, at := range []string{web.URL + "/push/", web.URL, "unix:" + path} {
		for key, want := range map[string]int{"admin-0123": 200, "wrong-key": 401, "": 401} {
			c, err := ForURL(at, key)
			if err != nil {
				t.Fatal(err)
			}
			apps, err := c.Apps(t.Context())
			problem, refused := errors.AsType[*Problem](err)
			if refused && problem.Status != want || !refused && (err != nil || want != 200 || len(apps.Apps) != 2) {
				t.Errorf("%s with %q: %+v, %v", at, key, apps, err)
			}
			app, err := c.App(t.Context(), "other")
			if want == 200 && (err != nil || app.Topic != "other") {
				t.Errorf("%s: %+v, %v", at, app, err)
			}
			if _, err := c.App(t.Context(), "none"); want == 200 && (err == nil || !strings.Contains(err.Error(), "no such app")) {
				t.Errorf("%s: %v", at, err)
			}
			c.Close()
		}
	}
}

func TestClientURLs(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"", "127.0.0.1:8080", "ftp://x", "http://", "unix:", "http://user:secret-word@host"} {
		if _, err := ForURL(at, ""); err == nil || strings.Contains(err.Error(), "secret-word") {
			t.Errorf("%q: %v", at, err)
		}
	}
}

// A job that a daemon was never told of has not been put, however it fails: while it is asked
// whether it is alive nothing is under way. One that was may have been put.
func TestPutThatNobodyHeard(t *testing.T) {
	t.Parallel()
	for path, uncertain := range map[string]bool{"/healthz": false, "/v1/apps/a/jobs": true} {
		web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				panic(http.ErrAbortHandler)
			}
		}))
		t.Cleanup(web.Close)
		c, err := ForURL(web.URL, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		c.name = "a"
		if _, err := c.Put(t.Context(), []byte("{}"), 0); err == nil || errors.Is(err, queue.ErrUncertain) != uncertain {
			t.Errorf("%s is not answered: %v", path, err)
		}
	}
}

// A client of a state_dir is there before its daemon, and after.
func TestClientForState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := ForState(dir)
	t.Cleanup(c.Close)
	if _, err := c.Apps(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
	_, stop := serve(t, hold(t, dir), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, Apps{Apps: []App{{Topic: r.URL.Path}}})
	}))
	if apps, err := c.Apps(t.Context()); err != nil || len(apps.Apps) != 1 || apps.Apps[0].Topic != "/v1/apps" {
		t.Errorf("%+v, %v", apps, err)
	}
	stop()
	if _, err := c.Apps(t.Context()); err == nil {
		t.Error("the daemon is gone, and it answers")
	}
}
