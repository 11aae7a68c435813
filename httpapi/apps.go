package httpapi

import (
	"fmt"
	"net/http"

	"propeller/supervisor"
)

func (a *API) apps(w http.ResponseWriter, _ *http.Request, c *client) {
	out := Apps{Apps: []App{}, RefusedReload: a.refusedReload(c), UnknownTubes: a.unknownTubes(c)}
	for _, s := range a.tree.Status() {
		if c.may(s.Topic) {
			out.Apps = append(out.Apps, appOf(&s))
		}
	}
	writeJSON(w, http.StatusOK, out)
}

// unknownTubes are the tubes that belong to no app, for a client that may see all apps.
func (a *API) unknownTubes(c *client) (out []UnknownTube) {
	if c == nil || c.topics != nil {
		return nil
	}
	for _, t := range a.tree.UnknownTubes() {
		out = append(out, UnknownTube{t.Name, t.Ready, t.Delayed, t.Reserved, t.Buried})
	}
	return out
}

func (a *API) app(w http.ResponseWriter, r *http.Request, _ *client) {
	topic := r.PathValue("topic")
	s := a.status(topic)
	if s == nil {
		err := noApp(topic)
		writeProblem(w, statusOf(err), err.Error())
		return
	}
	out := appOf(s)
	out.addPushes(s)
	writeJSON(w, http.StatusOK, out)
}

// status is an app as of now; nil if there is none with that topic.
func (a *API) status(topic string) *supervisor.AppStatus {
	all := a.tree.Status()
	for i := range all {
		if all[i].Topic == topic {
			return &all[i]
		}
	}
	return nil
}

func noApp(topic string) error { return fmt.Errorf("topic %.60q: %w", topic, supervisor.ErrNoApp) }
