package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"propeller/supervisor"
)

// reloadTime bounds a reload: it reads files, and opens a queue at most.
const reloadTime = time.Minute

func (a *API) pause(w http.ResponseWriter, r *http.Request, c *client) {
	a.operate(w, r, c, "app paused", a.tree.Pause(r.PathValue("app"), "paused by "+c.name))
}

func (a *API) resume(w http.ResponseWriter, r *http.Request, c *client) {
	a.operate(w, r, c, "app resumed", a.tree.Resume(r.PathValue("app")))
}

// operate answers an order about an app with how the app is now: a browser by its page.
func (a *API) operate(w http.ResponseWriter, r *http.Request, c *client, action string, err error) {
	name, topic := named(r)
	if err != nil {
		a.refuse(w, r, c, statusOf(err), err.Error())
		return
	}
	a.audit(r, c, action, "app", name, "topic", topic)
	if wantsPage(r, c) {
		a.pages.redirect(w, r, appPath(name))
		return
	}
	a.app(w, r, c)
}

// refusedReload is the last reload if it was refused, as far as a client may know;
// nil: it was not, or c is unknown.
func (a *API) refusedReload(c *client) *RefusedReload {
	if a.o.Reloads == nil || c == nil {
		return nil
	}
	_, refused := a.o.Reloads()
	if refused != nil && c.scoped() {
		return &RefusedReload{At: refused.At}
	}
	return refused
}

// reloaded is the answer of POST /v1/reload.
type reloaded struct {
	Apps int `json:"apps"` // in the configuration now
	// Credentials are those that cannot be used: their apps are broken, or go on with
	// the ones they had.
	Credentials []credentialFault `json:"credentials,omitempty"`
}

// credentialFault is why an app's credential cannot be used.
type credentialFault struct {
	App   string `json:"app"`
	Fault string `json:"fault"`
}

// reloadedOf is what a reload has led to.
func reloadedOf(apps []supervisor.AppStatus) reloaded {
	out := reloaded{Apps: len(apps)}
	for i := range apps {
		if fault := apps[i].CredentialFault; fault != "" {
			out.Credentials = append(out.Credentials, credentialFault{apps[i].Name, fault})
		}
	}
	return out
}

// errNoReload: this daemon cannot reload.
var errNoReload = errors.New("this daemon has no configuration to read again")

func (a *API) reload(w http.ResponseWriter, r *http.Request, c *client) {
	if a.o.Reload == nil {
		writeProblem(w, http.StatusNotImplemented, errNoReload.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), reloadTime)
	defer cancel()
	err := a.o.Reload(ctx)
	a.audit(r, c, "reload", "ok", err == nil)
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, reloadedOf(a.tree.Status()))
	case ctx.Err() != nil:
		writeProblem(w, http.StatusServiceUnavailable, "the reload is still running; the log will say how it ended")
	default:
		writeProblem(w, http.StatusUnprocessableEntity, err.Error())
	}
}

func (a *API) apps(w http.ResponseWriter, _ *http.Request, c *client) {
	out := Apps{Apps: []App{}, RefusedReload: a.refusedReload(c), UnknownTubes: a.unknownTubes(c)}
	for _, s := range a.tree.Status() {
		if c.may(s.Name, s.Topic) {
			out.Apps = append(out.Apps, appOf(&s))
		}
	}
	writeJSON(w, http.StatusOK, out)
}

// unknownTubes are the tubes that belong to no app, for a client that may see all apps.
func (a *API) unknownTubes(c *client) (out []unknownTube) {
	if c == nil || c.scoped() {
		return nil
	}
	for _, t := range a.tree.UnknownTubes() {
		out = append(out, unknownTube{t.Name, t.Ready, t.Delayed, t.Reserved, t.Buried})
	}
	return out
}

func (a *API) app(w http.ResponseWriter, r *http.Request, _ *client) {
	name := r.PathValue("app")
	s, ok := a.tree.AppStatus(name)
	if !ok {
		err := noApp(name)
		writeProblem(w, statusOf(err), err.Error())
		return
	}
	out := appOf(&s)
	out.addPushes(&s)
	writeJSON(w, http.StatusOK, out)
}

// readiness is the answer of GET /readyz and the paths below it.
type readiness struct {
	Ready bool `json:"ready"`
	// Trouble says what is wrong, by the names of the apps that are not ready. Clients
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
	out := readiness{Ready: len(all) == 0, Stopping: ending(r).Err() != nil, RefusedReload: a.refusedReload(c)}
	trouble := make(map[string]string)
	work := slices.ContainsFunc(all, works)
	for i := range all {
		if work && !works(all[i]) {
			continue // it does not know whether it has a queue
		}
		if h := all[i].Health; !h.NoQueue {
			out.Ready = true
		} else if told(c, &all[i]) {
			trouble[all[i].Name] = h.String()
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

// appReady says whether one app is in trouble. The caller knows its name already, but
// learns the reason only with a key.
func (a *API) appReady(w http.ResponseWriter, r *http.Request, c *client) {
	name, topic := named(r)
	if c != nil && !c.may(name, topic) {
		writeProblem(w, http.StatusForbidden, fmt.Sprintf("key %q is for other apps", c.name))
		return
	}
	s, ok := a.tree.AppStatus(name)
	if !ok {
		err := noApp(name)
		writeProblem(w, statusOf(err), err.Error())
		return
	}
	out := readinessOf([]supervisor.AppStatus{s}, c)
	out.write(w)
}

func readinessOf(apps []supervisor.AppStatus, c *client) readiness {
	out := readiness{Ready: true, Trouble: make(map[string]string)}
	for i := range apps {
		h := apps[i].Health
		if !h.State.Trouble() {
			continue
		}
		out.Ready = false
		if told(c, &apps[i]) {
			out.Trouble[apps[i].Name] = h.String()
		}
	}
	return out
}

// told reports whether c may see what is wrong with an app.
func told(c *client, s *supervisor.AppStatus) bool { return c != nil && c.may(s.Name, s.Topic) }

func (r *readiness) write(w http.ResponseWriter) {
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, r)
}
