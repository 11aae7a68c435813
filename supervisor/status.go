package supervisor

import (
	"cmp"
	"slices"
	"time"

	"propeller/queue"
	"propeller/worker"
	"propeller/worker/feedback"
)

// AppStatus is an app at one moment.
type AppStatus struct {
	Topic string
	Tube  string
	// Broken: APNs refuses the credential. Paused: APNs refuses the app's device
	// tokens. At most one is true, and Reason says
	// why, since Since; without either both are zero.
	Broken, Paused bool
	Reason         string
	Since          time.Time
	Held           worker.HoldState // by an operator; this is no trouble
	Stalled        *Stall           // nil: it makes progress, or has nothing to do
	// QueueAway says that no worker can receive jobs, or the queue takes no records
	// or jobs; nil: it does, or did a few seconds ago.
	QueueAway *Stall
	Webhook   *Webhook // nil: it has none

	// CredentialExpiry is when the certificate expires; zero without one.
	CredentialExpiry time.Time
	// Queue is nil as long as the queue has not been asked, or does not answer.
	Queue *QueueStats
	// Records are in the feedback tube, which apps may share; nil as Queue, and
	// without such a tube.
	Records *QueueStats

	Workers  []worker.Status
	Counters *worker.Counters // since the process began, as the next
	Steps    *Steps           // of the watchdog
	Recent   *worker.Recent   // how the last pushes ended
}

// QueueStats are the numbers of an app's tube, when the watchdog looked.
type QueueStats struct {
	queue.TubeStats
	At time.Time
}

// Webhook is an app's webhook at one moment.
type Webhook struct {
	Down     bool // the last request failed
	Reason   string
	Since    time.Time
	Counters *feedback.WebhookCounters
	// Stalled: it has records and delivers none, though nothing is known to keep
	// it from that; nil: it does not.
	Stalled *Stall
	Steps   *Steps // of the watchdog
}

// Trouble says why the app is not ready, which makes the daemon not ready; ""
// when it is. A webhook that is down delays records and no push: it is none.
func (a *AppStatus) Trouble() string {
	switch {
	case a.Broken:
		return "broken: " + a.Reason
	case a.Paused:
		return "paused: " + a.Reason
	case a.QueueAway != nil:
		return a.QueueAway.Reason
	case a.Stalled != nil:
		return "stalled: " + a.Stalled.Reason
	}
	return ""
}

func (a *app) status() AppStatus {
	b := a.common.Breaker.State()
	s := AppStatus{
		Topic: a.cfg.Topic, Tube: a.cfg.Tube, Broken: b.Broken, Paused: b.Paused, Reason: b.Reason, Since: b.Since,
		Held: a.ledger.hold.State(), Stalled: a.stalled.Load(), Queue: a.stats.Load(), Records: a.records.Load(), Counters: &a.ledger.pushes, Steps: &a.ledger.steps, Recent: &a.ledger.recent,
	}
	if c := a.cfg.Certificate; c != nil {
		s.CredentialExpiry = c.NotAfter
	}
	if a.webhook != nil {
		w := &Webhook{Counters: &a.ledger.webhook, Stalled: a.webhook.stalled.Load(), Steps: &a.ledger.webhookSteps}
		w.Since, w.Reason, w.Down = w.Counters.Down()
		s.Webhook = w
	}
	for _, w := range a.workers {
		s.Workers = append(s.Workers, w.Status())
	}
	s.QueueAway = a.queueAway(s.Workers, time.Now())
	return s
}

// Status lists the apps in the order of their topics.
func (s *Supervisor) Status() []AppStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]AppStatus, 0, len(s.apps))
	for _, a := range s.apps {
		out = append(out, a.status())
	}
	slices.SortFunc(out, func(a, b AppStatus) int { return cmp.Compare(a.Topic, b.Topic) })
	return out
}

// LostJobs is how many jobs the queue has noticed to be lost since it was opened.
func (s *Supervisor) LostJobs() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q, ok := s.queue.(queue.Loser); ok {
		return q.LostJobs()
	}
	return 0
}

// watched is what the watchdog looks after, and where it asks for the tubes'
// numbers; nil if the queue cannot be asked.
func (s *Supervisor) watched() ([]watched, queue.Admin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]watched, 0, len(s.apps))
	for _, a := range s.apps {
		out = append(out, watched{a, slices.Clone(a.workers)})
	}
	admin, _ := s.queue.(queue.Admin)
	return out, admin
}
