package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"propeller/supervisor"
)

// reloadTime bounds a reload: it reads files, and opens a queue at most.
const reloadTime = time.Minute

func (a *API) pause(w http.ResponseWriter, r *http.Request, c *client) {
	a.operate(w, r, c, "app paused", a.tree.Pause(r.PathValue("topic"), "paused by "+c.name))
}

func (a *API) resume(w http.ResponseWriter, r *http.Request, c *client) {
	a.operate(w, r, c, "app resumed", a.tree.Resume(r.PathValue("topic")))
}

// operate answers an order about an app with how the app is now: a browser by its page.
func (a *API) operate(w http.ResponseWriter, r *http.Request, c *client, action string, err error) {
	topic := r.PathValue("topic")
	if err != nil {
		a.refuse(w, r, c, statusOf(err), err.Error())
		return
	}
	a.audit(r, c, action, "topic", topic)
	if wantsPage(r, c) {
		a.pages.redirect(w, r, appPath(topic))
		return
	}
	a.app(w, r, c)
}

// refusedReload is the last reload if it was refused, as far as a client may know;
// nil: it was not, or c is nobody.
func (a *API) refusedReload(c *client) *RefusedReload {
	if a.o.Reloads == nil || c == nil {
		return nil
	}
	refused := a.o.Reloads().Refused
	if refused != nil && c.topics != nil {
		return &RefusedReload{At: refused.At}
	}
	return refused
}

// Reloaded is the answer of POST /v1/reload.
type Reloaded struct {
	Apps int `json:"apps"` // in the configuration now
	// Credentials are those that cannot be used: their apps are broken, or go on with
	// the ones they had.
	Credentials []CredentialFault `json:"credentials,omitempty"`
}

// CredentialFault is why an app's credential cannot be used.
type CredentialFault struct {
	App   string `json:"app"`
	Fault string `json:"fault"`
}

// reloadedOf is what a reload has led to.
func reloadedOf(apps []supervisor.AppStatus) Reloaded {
	out := Reloaded{Apps: len(apps)}
	for i := range apps {
		if fault := apps[i].CredentialFault; fault != "" {
			out.Credentials = append(out.Credentials, CredentialFault{apps[i].Topic, fault})
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
		writeProblem(w, http.StatusServiceUnavailable, "the reload is not done yet; the log will say how it ended")
	default:
		writeProblem(w, http.StatusUnprocessableEntity, err.Error())
	}
}
