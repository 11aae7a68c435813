package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"

	"propeller/supervisor"
)

// healthyTree has an app in each of the given states; its topic is the state.
func healthyTree(states ...supervisor.State) *countedTree {
	tree := newCountedTree()
	for _, s := range states {
		tree.apps = append(tree.apps, newCountedTree(string(s)).apps...)
		tree.apps[len(tree.apps)-1].Health = supervisor.Health{State: s, Reason: "x", NoQueue: s == supervisor.NoQueue}
	}
	return tree
}

// The daemon is ready as long as it can work for one app; an app is ready by its state.
func TestReadiness(t *testing.T) {
	t.Parallel()
	all := map[string]string{"broken": "broken: x", "guarded": "guarded: x", "no_queue": "no queue: x", "stalled": "stalled: x", "unreachable": "unreachable: x", "failing": "failing: x"}
	noQueue := map[string]string{"no_queue": "no queue: x"}
	for _, c := range []struct {
		name   string
		states []supervisor.State
		daemon readiness
		apps   readiness
	}{
		{"no apps", nil, readiness{Ready: true}, readiness{Ready: true}},
		{"every state", supervisor.States(), readiness{Ready: true}, readiness{Trouble: all}},
		{"no queue for one", []supervisor.State{supervisor.NoQueue, supervisor.Broken}, readiness{Ready: true}, readiness{Trouble: map[string]string{"broken": all["broken"], "no_queue": all["no_queue"]}}},
		{"no queue for any", []supervisor.State{supervisor.NoQueue}, readiness{Trouble: noQueue}, readiness{Trouble: noQueue}},
		{"all well", []supervisor.State{supervisor.Running, supervisor.Idle, supervisor.Paused, supervisor.TubePaused}, readiness{Ready: true}, readiness{Ready: true}},
	} {
		h := New(healthyTree(c.states...), Options{}).Socket()
		check := func(path string, want readiness) {
			t.Helper()
			status := http.StatusOK
			if !want.Ready {
				status = http.StatusServiceUnavailable
			}
			var got readiness
			if ask(t, h, "GET", path, "", status, &got); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s: %+v, want %+v", c.name, path, got, want)
			}
		}
		check("/readyz", c.daemon)
		check("/readyz/apps", c.apps)
		for _, s := range c.states {
			want := readiness{Ready: all[string(s)] == ""}
			if !want.Ready {
				want.Trouble = map[string]string{string(s): all[string(s)]}
			}
			check("/readyz/apps/"+string(s), want)
		}
		ask(t, h, "GET", "/readyz/apps/none", "", http.StatusNotFound, new(Problem))
	}
}

// An app without workers, because its credential cannot be used, does not know whether it
// has a queue: the others say so, as long as there are any.
func TestReadinessWithoutWorkers(t *testing.T) {
	t.Parallel()
	const n = 300
	states := slices.Repeat([]supervisor.State{supervisor.Running}, n)
	tree := healthyTree(states...)
	for i := range tree.apps {
		tree.apps[i].Name = fmt.Sprintf("com.example.a%d", i)
		tree.apps[i].Topic = tree.apps[i].Name
	}
	bad := &tree.apps[n/2]
	bad.Workers, bad.Health = nil, supervisor.Health{State: supervisor.Broken, Reason: "x"}
	h := New(tree, Options{}).Socket()
	status := func(path string, want int) (got readiness) {
		t.Helper()
		ask(t, h, "GET", path, "", want, &got)
		return got
	}
	status("/readyz", 200)
	if got := status("/readyz/apps", 503).Trouble; len(got) != 1 || got[bad.Topic] != "broken: x" {
		t.Errorf("trouble %v", got)
	}
	status("/readyz/apps/"+bad.Topic, 503)
	status("/readyz/apps/"+tree.apps[0].Topic, 200)
	for i := range tree.apps {
		if a := &tree.apps[i]; a != bad {
			a.Health = supervisor.Health{State: supervisor.NoQueue, Reason: "away", NoQueue: true}
		}
	}
	if got := status("/readyz", 503).Trouble; len(got) != n-1 || got[bad.Topic] != "" {
		t.Errorf("trouble of %d apps, %q", len(got), got[bad.Topic])
	}
	tree.apps = []supervisor.AppStatus{*bad}
	status("/readyz", 200)
}

// A client without a key learns that something is wrong, but not what or in which app; a client
// with a key for another app learns nothing about this one.
func TestReadinessOfStrangers(t *testing.T) {
	t.Parallel()
	tree := healthyTree(supervisor.NoQueue)
	tree.apps[0].Name, tree.apps[0].Topic = topic, topic
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	h := api.Network()
	for key, told := range map[string]bool{"": false, "other-0123": false, "reader-0123": true} {
		for path, status := range map[string]int{"/readyz": 503, "/readyz/apps": 503, "/readyz/apps/" + topic: 503} {
			if key == "other-0123" && path == "/readyz/apps/"+topic {
				status = 403
			}
			w := send(h, key, "GET", path, "")
			var got readiness
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != status || got.Ready || (got.Trouble != nil) != told {
				t.Errorf("%s with %q: %d %s", path, key, w.Code, w.Body)
			}
		}
	}
}

// A daemon that is stopping is not ready, even if all its apps are.
func TestReadinessAtTheEnd(t *testing.T) {
	t.Parallel()
	h := New(healthyTree(supervisor.Running), Options{}).Socket()
	r := httptest.NewRequest("GET", "/readyz", nil)
	ending, end := context.WithCancel(t.Context())
	defer end()
	for _, status := range []int{200, 503} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), endingKey{}, ending)))
		if w.Code != status {
			t.Errorf("%d %s, want %d", w.Code, w.Body, status)
		}
		if status == 200 {
			end()
		}
	}
}
