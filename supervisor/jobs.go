package supervisor

import (
	"errors"
	"time"

	"propeller/config"
	"propeller/queue"
	"propeller/worker/buried"
	"propeller/worker/job"
)

var (
	// ErrNoApp means that no app of the configuration has this name.
	ErrNoApp = errors.New("no such app")
	// ErrNoAdmin means that the queue cannot list or settle buried jobs.
	ErrNoAdmin = errors.New("this queue cannot be asked about its jobs")
)

// listWait is how long a list of buried jobs waits for them to be read.
const listWait = 5 * time.Second

// Jobs is the operator's view of an app's buried jobs. Errors: ErrNoApp, ErrNoAdmin.
func (s *Supervisor) Jobs(app string) (v buried.Jobs, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[app]
	if a == nil {
		return v, noApp(app)
	}
	admin, ok := s.queue.(queue.Admin)
	if !ok {
		return v, ErrNoAdmin
	}
	return buried.Jobs{Queue: admin, Index: s.buried, Tube: a.cfg.Tube, Topic: a.cfg.Topic, Wait: listWait}, nil
}

// FindBuried returns the buried jobs with this id, as their producer got it, and their app's name.
func (s *Supervisor) FindBuried(id string) (app string, found []buried.Entry) {
	if found = s.buried.Find(id); len(found) == 0 {
		return "", nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.apps {
		if a.cfg.Tube == found[0].Tube {
			return name, found
		}
	}
	return "", nil
}

// freshCount is how old a count of buried jobs may be for a comparison with the index.
const freshCount = time.Minute

// tubes returns the tubes of all apps with the watchdog's last count of their buried jobs; nil if
// the queue cannot be asked.
func (s *Supervisor) tubes() (map[string]buried.Tube, queue.Admin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	admin, ok := s.queue.(queue.Admin)
	if !ok {
		return nil, nil
	}
	out := make(map[string]buried.Tube, len(s.apps))
	for _, a := range s.apps {
		t := buried.Tube{Topic: a.cfg.Topic, Buried: -1}
		if st := a.stats.Load(); st != nil && time.Since(st.At) < freshCount {
			t.Buried = st.Buried
		}
		out[a.cfg.Tube] = t
	}
	return out, admin
}

// RulesOf returns the rules for an app's jobs that follow from its configuration.
func RulesOf(c *config.App) job.Rules {
	return job.Rules{
		Topic: c.Topic, Expiration: c.Expiration, TTL: c.TTL, ExtraKeys: c.ExtraKeys == config.ExtraIgnore,
		Certificate: c.SigningKey == nil && (c.Certificate != nil || c.ByCertificate),
	}
}

// App is what the jobs of an app are judged by. Errors: ErrNoApp.
func (s *Supervisor) App(name string) (job.Rules, error) {
	a, err := s.app(name)
	if err != nil {
		return job.Rules{}, err
	}
	return a.shared.Rules(), nil
}
