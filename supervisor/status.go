package supervisor

import (
	"cmp"
	"slices"
	"time"

	"propeller/config"
	"propeller/queue"
	"propeller/worker"
	"propeller/worker/feedback"
)

// AppStatus is an app at one moment.
type AppStatus struct {
	Name    string
	Topic   string
	Tube    string
	Health  Health
	Paused  worker.PauseState // by an operator, whatever the state
	Webhook *Webhook          // nil if the app has none

	// CredentialExpiry is when the certificate expires or expired; zero without one.
	CredentialExpiry time.Time
	// CredentialFault says why the configured credential cannot be used; "" if it can. With a
	// fault the app is broken, or works with the previous credential.
	CredentialFault string
	// Queue is nil if the queue has not been asked yet, or does not answer.
	Queue *QueueStats
	// Records is about the feedback tube, which apps may share; nil like Queue, and without such
	// a tube.
	Records *QueueStats

	Asleep   bool             // it has no jobs, and nothing of it runs
	Workers  []worker.Status  // none serves while it sleeps
	Counters *worker.Counters // since the process began, as the next
	Steps    *Steps           // of the watchdog
	Recent   *worker.Recent   // how the last pushes ended
}

// QueueStats are the numbers of an app's tube, when the watchdog looked.
type QueueStats struct {
	queue.TubeStats
	At time.Time
	// Incomplete says why the numbers leave out some of the queue's servers; "" if they do not.
	Incomplete string
}

// Webhook is an app's webhook at one moment.
type Webhook struct {
	Down     bool // the last request failed
	Reason   string
	Since    time.Time
	Counters *feedback.WebhookCounters
	// Stalled says that the webhook has records but delivers none, for no known reason; nil if it does not
	// stall.
	Stalled *Stall
	Steps   *Steps // of the watchdog
}

// held is an app with what Supervisor.mu guards of it, as of one moment.
type held struct {
	watched
	size   int
	wanted *config.App
}

// held returns the app as of now. Supervisor.mu is held.
func (a *app) held() held {
	w := watched{app: a, waits: a.waits, tree: a.tree}
	if a.tree != nil {
		w.workers = slices.Clone(a.tree.workers)
	}
	return held{w, a.size, a.wanted}
}

// status returns the app's status. blind is why an app that sleeps cannot be woken; nil if it can.
func (a held) status(blind error) AppStatus {
	seen := a.look(time.Now(), blind)
	s := AppStatus{
		Name: a.cfg.Name, Topic: a.cfg.Topic, Tube: a.cfg.Tube, Health: judge(&seen, a.before()), Paused: seen.pause, Queue: seen.tube, Records: a.records.Load(),
		Workers: seen.workers, Counters: &a.totals.Counters, Steps: &a.totals.steps, Recent: &a.totals.Recent,
	}
	s.CredentialExpiry = a.cfg.CredentialExpiry()
	if a.cfg.Broken() {
		s.CredentialExpiry = a.wanted.CredentialExpiry() // Same does not compare it
	}
	if bad := a.bad.Load(); bad != nil {
		s.CredentialFault = bad.reason
	}
	if s.Asleep = a.tree == nil; s.Asleep && !a.cfg.Broken() {
		s.Workers = make([]worker.Status, a.size)
	}
	if !a.cfg.Feedback.Webhook.IsZero() {
		w := &Webhook{Counters: &a.totals.webhook, Steps: &a.totals.webhookSteps}
		if a.tree != nil {
			w.Stalled = a.tree.webhook.stalled.Load()
		}
		w.Since, w.Reason, w.Down = w.Counters.Down()
		s.Webhook = w
	}
	return s
}

// look returns what can be seen of the app now. blind is why an app that sleeps cannot be woken;
// nil if it can.
func (w watched) look(now time.Time, blind error) snapshot {
	s := snapshot{
		now: now, breaker: w.shared.Breaker(), pause: w.totals.Paused(), stalled: w.stalled.Load(), puts: w.puts.failed.Load(),
		tube: w.stats.Load(), outcomes: w.totals.outcomes.tally(now), active: w.totals.Recent.Active(),
	}
	switch {
	case w.cfg.Broken():
		s.bad = w.bad.Load()
	case w.tree == nil:
		s.blind, s.waits = blind, w.waits
	}
	if len(w.workers) > 0 {
		s.workers = make([]worker.Status, len(w.workers))
	}
	for i, one := range w.workers {
		s.workers[i] = one.Status()
	}
	return s
}

// before returns the past for the app's next snapshot.
func (a *app) before() past {
	if p := a.past.Load(); p != nil {
		return *p
	}
	return past{}
}

// Status lists the apps in the order of their names.
func (s *Supervisor) Status() []AppStatus {
	s.mu.Lock()
	apps := make([]held, 0, len(s.apps))
	for _, a := range s.apps {
		apps = append(apps, a.held())
	}
	blind := s.sleep.blind()
	s.mu.Unlock()
	slices.SortFunc(apps, func(a, b held) int { return cmp.Compare(a.cfg.Name, b.cfg.Name) })
	out := make([]AppStatus, 0, len(apps))
	for i := range apps {
		out = append(out, apps[i].status(blind))
	}
	return out
}

// AppStatus is the status of one app; ok is false if there is no app of this name.
func (s *Supervisor) AppStatus(name string) (_ AppStatus, ok bool) {
	s.mu.Lock()
	a := s.apps[name]
	if a == nil {
		s.mu.Unlock()
		return AppStatus{}, false
	}
	now, blind := a.held(), s.sleep.blind()
	s.mu.Unlock()
	return now.status(blind), true
}

// LostJobs is how many jobs the queue has lost, as far as known, since it was opened.
func (s *Supervisor) LostJobs() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q, ok := s.queue.(queue.LossReporter); ok {
		return q.LostJobs()
	}
	return 0
}

// awake returns the apps that are awake, and where the watchdog asks for the tubes' numbers; nil if
// the queue cannot be asked.
func (s *Supervisor) awake() ([]watched, queue.Admin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]watched, 0, len(s.sleep.awake))
	for a := range s.sleep.awake {
		out = append(out, watched{app: a, tree: a.tree, workers: slices.Clone(a.tree.workers)})
	}
	admin, _ := s.queue.(queue.Admin)
	return out, admin
}

// asleep returns the apps that sleep.
func (s *Supervisor) asleep() []watched {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]watched, 0, len(s.apps)-len(s.sleep.awake))
	for _, a := range s.apps {
		if a.tree == nil {
			out = append(out, watched{app: a, waits: a.waits})
		}
	}
	return out
}

// blind says why the queue cannot wake apps that sleep; nil if it can.
func (s *Supervisor) blind() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sleep.blind()
}

// blind is the same. Supervisor.mu is held.
func (z *sleep) blind() error {
	if z.watch == nil {
		return nil
	}
	return z.watch.Err()
}
