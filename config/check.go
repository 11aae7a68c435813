package config

import (
	"errors"
	"fmt"
	"slices"

	"propeller/apnsconn"
)

// draft is an app on its way: its values, and where they came from.
type draft struct {
	App
	layer layer
	bad   map[string]bool // keys given with a fault: nothing builds on them
	path  string          // "apps[1]"; flagPath for flags
	line  int             // where the app starts
}

// draft sets the fields that l gives over the built-in defaults.
func (p *parser) draft(l layer, path string, line int) *draft {
	d := &draft{App: Default().Apps[0], layer: l, path: path, line: line}
	before := len(p.credential)
	d.bad = assign(p, l, appFields(), &d.App)
	d.Faults = slices.Clone(p.credential[before:])
	return d
}

// has reports whether key was given, rightly or not.
func (d *draft) has(key string) bool {
	_, ok := d.layer[key]
	return ok
}

// at returns where key was given, or would be.
func (d *draft) at(key string) entry {
	if e, ok := d.layer[key]; ok {
		return e
	}
	if d.path == flagPath {
		return entry{key: flagPath + flagName(key), flag: true, cred: ofCredential(key)}
	}
	return entry{key: join(d.path, key), line: d.line, cred: ofCredential(key)}
}

// name is how key is written: in the file, or as a flag.
func (d *draft) name(key string) string {
	if d.path == flagPath {
		return flagPath + flagName(key)
	}
	return key
}

// finish checks what concerns several keys or several apps, loads the
// credentials, and returns the apps.
func (p *parser) finish(drafts []*draft, cfg *Config) []App {
	p.checkUnique(drafts)
	for _, d := range drafts {
		p.checkTopic(d)
		p.checkRetry(d)
		p.checkServer(d)
		if !p.bare {
			p.checkProxy(d)
			p.loadRoots(d)
			p.checkFeedback(d)
		}
		d.ByCertificate = d.has("cert") && !d.has("key")
		d.warnOfTimes(cfg)
		if !p.bare {
			p.credentialOf(d)
		}
	}
	p.checkFeedbackTubes(drafts)
	apps := make([]App, len(drafts))
	for i, d := range drafts {
		apps[i] = d.App
	}
	return apps
}

// warnOfTimes compares push_timeout with the times of the whole daemon.
func (d *draft) warnOfTimes(cfg *Config) {
	if d.PushTimeout > cfg.ShutdownTimeout {
		d.Warnings = append(d.Warnings, fmt.Sprintf(
			"push_timeout %s is longer than shutdown_timeout %s: at shutdown a push that is still unanswered is cut off, and sent again later",
			short(d.PushTimeout), short(cfg.ShutdownTimeout)))
	}
	if d.PushTimeout > cfg.Watchdog {
		d.Warnings = append(d.Warnings, fmt.Sprintf(
			"watchdog %s is shorter than push_timeout %s: for this app it takes as long as that",
			short(cfg.Watchdog), short(d.PushTimeout)))
	}
}

// checkTopic demands a topic and derives the tube from it.
func (p *parser) checkTopic(d *draft) {
	if !d.has("topic") {
		p.wrong(d.at("topic"), errors.New("is missing: give the app's bundle id"))
		d.bad["topic"] = true
	}
	if !d.has("tube") {
		d.Tube = d.Topic
	}
}

// checkUnique finds topics and tubes that two apps claim.
func (p *parser) checkUnique(drafts []*draft) {
	topics, tubes := map[string]*draft{}, map[string]*draft{}
	for _, d := range drafts {
		if d.Topic != "" {
			if first, ok := topics[d.Topic]; ok {
				p.wrong(d.at("topic"), fmt.Errorf("the topic of %s (line %d) too: remove one of the two", first.path, first.line))
				continue // its tube would only repeat that
			}
			topics[d.Topic] = d
		}
		tube, at := d.Tube, d.at("tube")
		if tube == "" {
			tube, at = d.Topic, d.at("topic")
		}
		if tube == "" {
			continue
		}
		if first, ok := tubes[tube]; ok {
			p.wrong(at, fmt.Errorf("the tube of %s (line %d) too: two apps would take each other's jobs", first.path, first.line))
			continue
		}
		tubes[tube] = d
	}
}

// checkRetry compares the three times with each other.
func (p *parser) checkRetry(d *draft) {
	if d.bad["retry.min"] || d.bad["retry.max"] || d.bad["retry.give_up_after"] {
		return
	}
	// The fault is put on a key that was given; a default cannot be wrong.
	on := func(key, other string) entry {
		if !d.has(key) && d.has(other) {
			return d.at(other)
		}
		return d.at(key)
	}
	r := d.Retry
	if r.Min > r.Max {
		p.wrong(on("retry.max", "retry.min"), fmt.Errorf("retry.min %s is more than retry.max %s", short(r.Min), short(r.Max)))
	}
	if r.GiveUpAfter < r.Min {
		p.wrong(on("retry.give_up_after", "retry.min"), fmt.Errorf(
			"retry.give_up_after %s is less than retry.min %s: nothing would be tried again", short(r.GiveUpAfter), short(r.Min)))
	}
}

// checkServer finds out where APNs is.
func (p *parser) checkServer(d *draft) {
	if d.bad["server"] || d.Mock() {
		return
	}
	addr, env, err := apnsconn.ServerAddr(d.Server)
	if err != nil {
		// Its text quotes the value, which may hold what a variable expands to.
		p.wrong(d.at("server"), errCause{"must be production, sandbox, mock or https://host:port", err})
		d.bad["server"] = true
		return
	}
	d.Addr, d.Env = addr, env
}
