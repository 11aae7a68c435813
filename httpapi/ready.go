package httpapi

import (
	"fmt"
	"net/http"
	"slices"

	"propeller/supervisor"
)

// Readiness is the answer of GET /readyz and the paths below it.
type Readiness struct {
	Ready bool `json:"ready"`
	// Trouble says what is wrong, by the topics of the apps that are not ready. Clients
	// without a key do not get it.
	Trouble map[string]string `json:"trouble,omitempty"`
	// Stopping: the daemon is stopping.
	Stopping bool `json:"stopping,omitempty"`
	// RefusedReload does not affect Ready. Clients without a key do not get it.
	RefusedReload *RefusedReload `json:"refused_reload,omitempty"`
}

// ready says whether this daemon can work. An app's trouble does not count, unless no
// app has a queue.
func (a *API) ready(w http.ResponseWriter, r *http.Request, c *client) {
	all := a.tree.Status()
	out := Readiness{Ready: len(all) == 0, Stopping: isEnding(r), RefusedReload: a.refusedReload(c)}
	trouble := make(map[string]string)
	work := slices.ContainsFunc(all, works)
	for i := range all {
		if work && !works(all[i]) {
			continue // it does not know whether it has a queue
		}
		if h := all[i].Health; !h.NoQueue {
			out.Ready = true
		} else if told(c, all[i].Topic) {
			trouble[all[i].Topic] = h.String()
		}
	}
	if !out.Ready {
		out.Trouble = trouble
	}
	out.Ready = out.Ready && !out.Stopping
	out.write(w)
}

// works reports whether an app has workers: one whose credential cannot be used has none.
func works(s supervisor.AppStatus) bool { return len(s.Workers) > 0 }

// appsReady says whether no app is in trouble.
func (a *API) appsReady(w http.ResponseWriter, _ *http.Request, c *client) {
	out := readinessOf(a.tree.Status(), c)
	out.RefusedReload = a.refusedReload(c)
	out.write(w)
}

// appReady says whether one app is in trouble. The caller knows its topic already, but
// learns the reason only with a key.
func (a *API) appReady(w http.ResponseWriter, r *http.Request, c *client) {
	topic := r.PathValue("topic")
	if c != nil && !c.may(topic) {
		writeProblem(w, http.StatusForbidden, fmt.Sprintf("key %q is for other apps", c.name))
		return
	}
	s := a.status(topic)
	if s == nil {
		err := noApp(topic)
		writeProblem(w, statusOf(err), err.Error())
		return
	}
	out := readinessOf([]supervisor.AppStatus{*s}, c)
	out.write(w)
}

func readinessOf(apps []supervisor.AppStatus, c *client) Readiness {
	out := Readiness{Ready: true, Trouble: make(map[string]string)}
	for i := range apps {
		h := apps[i].Health
		if !h.State.Trouble() {
			continue
		}
		out.Ready = false
		if told(c, apps[i].Topic) {
			out.Trouble[apps[i].Topic] = h.String()
		}
	}
	return out
}

// told reports whether c may see what is wrong with an app.
func told(c *client, topic string) bool { return c != nil && c.may(topic) }

func (r *Readiness) write(w http.ResponseWriter) {
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, r)
}

// isEnding reports whether the server of a request is stopping.
func isEnding(r *http.Request) bool {
	select {
	case <-ending(r):
		return true
	default:
		return false
	}
}
