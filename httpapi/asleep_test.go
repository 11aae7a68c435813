package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"propeller/httpapi/page"
	"propeller/supervisor"
	"propeller/worker"
)

// sleeper is an app that sleeps.
func sleeper(name string) supervisor.AppStatus {
	return supervisor.AppStatus{
		Name: name, Topic: name, Tube: name, Asleep: true, Health: supervisor.Health{State: supervisor.Idle}, Workers: make([]worker.Status, 2),
		Counters: new(worker.Counters), Steps: new(supervisor.Steps), Recent: new(worker.Recent),
	}
}

// sleepers are n apps that sleep: app00000 and so on.
func sleepers(n int) (apps []supervisor.AppStatus) {
	for i := range n {
		apps = append(apps, sleeper(fmt.Sprintf("app%05d", i)))
	}
	return apps
}

// Of an app that sleeps the page says so, and nothing that would worry anybody.
func TestSleepingApp(t *testing.T) {
	t.Parallel()
	api, _, _ := newPageAPI()
	st := sleeper("a")
	row := func() string { return api.pages.part("overview", "row", new(sampler).view(&st)) }
	if got := row(); shownIn(got, "state") != "asleep" || shownIn(got, "connections") != "0/2" {
		t.Error(got)
	}
	workers := func() string { return api.pages.part("app", "workers", page.View{Main: new(sampler).view(&st)}) }
	if got := workers(); strings.Count(got, ">asleep until there is a job<") != 2 || strings.Contains(got, "worry") {
		t.Error(got)
	}
	st.Health.State = supervisor.Paused
	if got := row(); shownIn(got, "state") != "paused" {
		t.Error(got)
	}
	st.Health.State, st.Workers = supervisor.Broken, nil // no job wakes it
	if a := appOf(&st); a.Asleep {
		t.Error("an app without a credential sleeps")
	}
	st.Asleep, st.Health.State, st.Workers = false, supervisor.Idle, make([]worker.Status, 1)
	if got := row() + workers(); shownIn(got, "state") != "idle" || !strings.Contains(got, "worry") {
		t.Error(got)
	}
}

// What is asked of one app costs a look at that one.
func TestOneAppIsAskedAlone(t *testing.T) {
	t.Parallel()
	tree := newCountedTree("a", "b")
	h := New(tree, Options{}).Socket()
	for _, path := range []string{"/v1/apps/a", "/readyz/apps/a"} {
		if w := send(h, "", "GET", path, ""); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	if w := newGuest(t, api.Network()).signIn("reader-0123").get("/apps/a"); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if looks := tree.looks.Load(); looks != 0 {
		t.Errorf("%d looks at all apps", looks)
	}
}
