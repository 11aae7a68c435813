package supervisor

import (
	"time"

	"propeller/config"
)

// badCredential is why the credential in an app's files cannot be used.
type badCredential struct {
	reason string
	since  time.Time
}

// note records what the configuration says about an app, and logs what is wrong with the
// credential.
func (s *Supervisor) note(a *app, c *config.App) {
	a.wanted = c
	a.noted++
	was := a.bad.Load()
	if len(c.Faults) == 0 {
		if a.bad.Store(nil); was != nil {
			s.o.Log.Info("the credential can be used again: the app works", "app", c.Name, "topic", c.Topic)
		}
		return
	}
	is := &badCredential{c.Fault(), time.Now()}
	if was != nil && was.reason == is.reason {
		is.since = was.since
	}
	a.bad.Store(is)
	for _, f := range c.Faults {
		if a.cfg.Broken() {
			s.o.Log.Error("app broken: its credential cannot be used; its jobs stay in the queue until a reload finds a good one, or its files change", "app", c.Name, "topic", c.Topic, "fault", f.Error())
		} else {
			s.o.Log.Error("the credential that the configuration names cannot be used; the app keeps the one it has, as long as this process runs", "app", c.Name, "topic", c.Topic, "fault", f.Error())
		}
	}
}

// rereadTime bounds how long one Renew reads credentials; the next one reads the others.
const rereadTime = 200 * time.Millisecond

// reread is what the files of an app's credential hold now.
type reread struct {
	noted int // the app's, when they were read: if it has changed since, this is outdated
	cfg   *config.App
}

// Renew checks the files of credentials that cannot be used or that APNs refuses, and reads those
// that have changed: an app whose credential has become good goes on with it. It reads nothing
// else of the configuration. Only one Renew may run at a time.
func (s *Supervisor) Renew() {
	now, read := time.Now(), make(map[*app]reread)
	for a, wanted := range s.unfit() { // in random order, so that none is left out for ever
		if !wanted.cfg.Changed(now) {
			continue
		}
		again := wanted.cfg.Reread(now)
		wanted.cfg = &again
		read[a] = wanted
		if time.Since(now) > rereadTime {
			break
		}
	}
	if len(read) > 0 {
		s.renew(read)
	}
}

// unfit returns the apps whose credentials Renew must check, and what the configuration says about
// them.
func (s *Supervisor) unfit() map[*app]reread {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out map[*app]reread
	for _, a := range s.apps {
		if len(a.wanted.Faults) == 0 && !a.shared.Breaker().Broken {
			continue
		}
		if out == nil {
			out = make(map[*app]reread)
		}
		out[a] = reread{a.noted, a.wanted}
	}
	return out
}

// renew replaces apps by what was read, if that differs.
func (s *Supervisor) renew(read map[*app]reread) {
	s.applying.Lock()
	defer s.applying.Unlock()
	select {
	case <-s.ended:
		return
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var fresh []*app
	for a, r := range read {
		c := r.cfg
		switch {
		case s.apps[a.cfg.Name] != a || a.noted != r.noted:
		case c.Fault() == a.wanted.Fault() && c.SameCredential(a.wanted):
			a.wanted = c
		default:
			s.drain(s.place(c, false))
			fresh = append(fresh, s.apps[c.Name])
		}
	}
	if len(fresh) > 0 {
		s.layDown(fresh, false)
	}
	s.lanes.forget(s.apps)
}
