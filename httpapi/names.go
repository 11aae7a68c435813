package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"propeller/supervisor"
	"propeller/worker/job"
)

// An app is called by its name. Requests from before apps had names say its topic; that goes on
// working wherever it is clear which app is meant.

// errOther: the client's key is for other apps.
var errOther = errors.New("this key is for other apps")

// may says whether the client may do something to an app.
func (c *client) may(name, topic string) bool {
	return !c.scoped() || slices.Contains(c.apps, name) || slices.Contains(c.topics, topic)
}

// scoped reports whether the client's key is for some apps only.
func (c *client) scoped() bool { return c.apps != nil || c.topics != nil }

// chosenError is what is wrong with the app that a notification names.
type chosenError struct {
	key string // that names it
	error
}

func (e *chosenError) Unwrap() error { return e.error }

// chosen returns the app that a notification names, and what its jobs are judged by.
func (a *API) chosen(c *client, e *job.Envelope) (name string, rules job.Rules, err error) {
	key, said := "app", e.App
	switch {
	case e.App != "":
		name = e.App
	case e.Topic == "":
		return "", rules, &job.Error{Key: "topic", Why: "missing: name the app, by app or topic"}
	default:
		key, said = "topic", e.Topic
		name, err = a.appOf(c, e.Topic)
	}
	if err == nil {
		rules, err = a.tree.App(name)
	}
	switch {
	case !isAmbiguous(err) && !c.may(name, rules.Topic): // nor learn whether there is such an app
		err = fmt.Errorf("%s %.60q: %w", key, said, errOther)
	case err == nil && e.App != "" && e.Topic != "" && e.Topic != rules.Topic:
		return "", rules, &job.Error{Key: "topic", Why: fmt.Sprintf("is not that of app %.60q: leave it out", e.App)}
	}
	if err != nil {
		return "", rules, &chosenError{key, err}
	}
	return name, rules, nil
}

// appOf returns the app that a topic stands for. Of several, the error names those that the
// client may know of; c is nil for one without a key.
func (a *API) appOf(c *client, topic string) (name string, err error) {
	name, err = a.tree.AppOf(topic)
	if several, ok := errors.AsType[*supervisor.AmbiguousError](err); ok {
		known := &supervisor.AmbiguousError{Topic: several.Topic}
		for _, app := range several.Apps {
			if c != nil && c.may(app, topic) {
				known.Apps = append(known.Apps, app)
			}
		}
		if len(known.Apps) == 0 && c != nil {
			return "", fmt.Errorf("topic %.60q: %w", topic, errOther)
		}
		return "", known
	}
	return name, err
}

// resolve puts the name and the topic of the app that a request's path is about into the path
// values "app" and "topic". An app that is not there keeps what the path calls it, and has no
// topic. The error says which apps may be meant.
func (a *API) resolve(r *http.Request, c *client) error {
	said := r.PathValue("app")
	if said == "" {
		return nil
	}
	rules, err := a.tree.App(said)
	if err == nil {
		r.SetPathValue("topic", rules.Topic)
		return nil
	}
	name, err := a.appOf(c, said)
	if isAmbiguous(err) {
		r.SetPathValue("topic", said) // of all of them
		return err
	}
	if err == nil {
		if rules, err = a.tree.App(name); err == nil {
			r.SetPathValue("app", name)
			r.SetPathValue("topic", rules.Topic)
		}
	}
	return nil
}

// named returns the app of a request's path, as resolve has found it.
func named(r *http.Request) (name, topic string) { return r.PathValue("app"), r.PathValue("topic") }

func noApp(name string) error { return fmt.Errorf("app %.60q: %w", name, supervisor.ErrNoApp) }
