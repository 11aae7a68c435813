package httpapi

import (
	"fmt"
	"net/http"

	"propeller/supervisor"
)

func (a *API) apps(w http.ResponseWriter, _ *http.Request, c *client) {
	out := Apps{Apps: []App{}, RefusedReload: a.refusedReload(c)}
	for _, s := range a.tree.Status() {
		if c.may(s.Topic) {
			out.Apps = append(out.Apps, appOf(&s))
		}
	}
	writeJSON(w, http.StatusOK, out)
}

func (a *API) app(w http.ResponseWriter, r *http.Request, _ *client) {
	topic := r.PathValue("topic")
	for _, s := range a.tree.Status() {
		if s.Topic == topic {
			out := appOf(&s)
			out.Failures = failuresOf(s.Recent)
			writeJSON(w, http.StatusOK, out)
			return
		}
	}
	err := noApp(topic)
	writeProblem(w, statusOf(err), err.Error())
}

func noApp(topic string) error { return fmt.Errorf("topic %.60q: %w", topic, supervisor.ErrNoApp) }
