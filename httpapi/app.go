package httpapi

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"propeller/apnsconn"
	"propeller/supervisor"
	"propeller/worker"
)

// Apps is the answer of GET /v1/apps.
type Apps struct {
	Apps []App `json:"apps"`
	// RefusedReload is there while the last reload is one that was refused.
	RefusedReload *RefusedReload `json:"refused_reload,omitempty"`
	// UnknownTubes have jobs and belong to no app. Keys with topics do not see them.
	UnknownTubes []unknownTube `json:"unknown_tubes,omitempty"`
}

// unknownTube is a tube that has jobs and belongs to no app: a producer misspelled a
// topic, an app was removed, or another program uses the queue.
type unknownTube struct {
	Tube     string `json:"tube"`
	Ready    int    `json:"ready"`
	Delayed  int    `json:"delayed"`
	Reserved int    `json:"reserved"`
	Buried   int    `json:"buried"`
}

// RefusedReload is a configuration that was not taken over: the one before it is in
// force.
type RefusedReload struct {
	At time.Time `json:"at"`
	// Fault is a line for each fault. It may name any app, so a
	// key for some apps does not get it.
	Fault string `json:"fault,omitempty"`
}

// App is an app at one moment. The numbers count since the process began.
type App struct {
	Name  string `json:"name"`
	Topic string `json:"topic"`
	Tube  string `json:"tube"`

	State   supervisor.State `json:"state"`
	Ready   bool             `json:"ready"`            // whether GET /readyz/apps counts it as ready
	Reason  string           `json:"reason,omitempty"` // absent while running or idle
	Since   time.Time        `json:"since,omitzero"`
	Held    bool             `json:"held,omitempty"`   // by an operator: it takes no jobs
	Asleep  bool             `json:"asleep,omitempty"` // it has no jobs, and its workers run when it has
	Workers []Worker         `json:"workers"`
	Pushes  Pushes           `json:"pushes"`
	Active  time.Time        `json:"active,omitzero"`   // when a push last ended; absent before the first
	Latency *Latency         `json:"latency,omitempty"` // absent before the first answer of APNs
	Queue   *Queue           `json:"queue,omitempty"`   // absent: not asked yet, or it does not answer
	// CredentialExpires is when the certificate does; absent without one.
	CredentialExpires time.Time `json:"credential_expires,omitzero"`
	// credentialFault says why the credential that the configuration names cannot be used:
	// the app is broken, or goes on with the one it had. Absent if the credential can be used.
	CredentialFault string   `json:"credential_fault,omitempty"`
	Watchdog        watchdog `json:"watchdog"`
	Webhook         *Webhook `json:"webhook,omitempty"`
	// Failures are the pushes that last went wrong, at most 50, latest first; of
	// GET /v1/apps/{app} only.
	Failures []failure `json:"failures,omitempty"`

	// Of an app's page only: how the last pushes ended, delivered ones too, and how many
	// were not delivered for each reason, the most frequent in front.
	Outcomes []failure `json:"-"`
	Refusals []refusal `json:"-"`
}

// refusal counts pushes that were not delivered for one reason.
type refusal struct {
	Class  string
	Reason string // with the status, as the log has it; "" if APNs gave none
	Pushes int64
}

// InFlight counts pushes under way and jobs being settled.
func (a *App) InFlight() (n int) {
	for i := range a.Workers {
		n += a.Workers[i].InFlight
	}
	return n
}

// Connected counts connections to APNs.
func (a *App) Connected() (n int) {
	for i := range a.Workers {
		if a.Workers[i].Connected {
			n++
		}
	}
	return n
}

// failure is a push that was not delivered; the keys are those of the log.
type failure struct {
	At     time.Time `json:"at"`
	Worker int       `json:"worker"`
	Token  string    `json:"token"` // the first 8 characters
	Class  string    `json:"class"`
	Status int       `json:"status,omitempty"` // APNs' HTTP status
	Reason string    `json:"reason,omitempty"` // in words, with the status
	APNsID string    `json:"apns_id,omitempty"`
	MS     int64     `json:"ms"` // from sending to the end
}

// Worker is one worker of an app.
type Worker struct {
	Serving   bool   `json:"serving"`
	Connected bool   `json:"connected"`         // to APNs
	Held      int    `json:"held"`              // jobs it works on
	InFlight  int    `json:"in_flight"`         // pushes under way and jobs being settled
	Received  int64  `json:"received"`          // jobs, since the app woke
	Finished  int64  `json:"finished"`          // the same
	Waiting   string `json:"waiting,omitempty"` // why it takes no jobs
	Limit     string `json:"limit,omitempty"`   // what it has reached: in_flight, or the app's max_rate

	Link worker.Link `json:"-"` // of an app's page only
}

// Pushes counts an app's pushes by what became of them.
type Pushes struct {
	Ended              map[string]int64 `json:"ended"` // by class; a class without any is absent
	Buried             int64            `json:"buried"`
	Expired            int64            `json:"expired"`
	PossibleDuplicates int64            `json:"possible_duplicates"`
}

// Delivered counts the pushes that APNs accepted.
func (p *Pushes) Delivered() int64 { return p.Ended[apnsconn.Delivered.String()] }

// Failed counts the pushes that ended, and were not delivered.
func (p *Pushes) Failed() int64 {
	n := -p.Delivered()
	for _, ended := range p.Ended {
		n += ended
	}
	return n
}

// Queue counts the jobs in an app's tube by state, when the watchdog looked.
type Queue struct {
	Ready    int       `json:"ready"`
	Delayed  int       `json:"delayed"`
	Reserved int       `json:"reserved"`
	Buried   int       `json:"buried"`
	At       time.Time `json:"at"`
	// Incomplete says why the numbers are of some of the queue's servers only.
	Incomplete string `json:"incomplete,omitempty"`
}

// watchdog counts what the watchdog has done about an app.
type watchdog struct {
	Replaced  int64 `json:"replaced"`
	Restarted int64 `json:"restarted"`
	Stalled   int64 `json:"stalled"`
	// Last is the last step of each kind, by the names above; a kind without any
	// is absent.
	Last map[string]step `json:"last,omitempty"`
}

// step is one step of the watchdog.
type step struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Webhook is an app's webhook.
type Webhook struct {
	Down      bool      `json:"down"`
	Reason    string    `json:"reason,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Delivered int64     `json:"delivered"` // records
	Failed    int64     `json:"failed"`    // requests
	// Stalled says why records are not delivered though the endpoint takes them.
	Stalled string `json:"stalled,omitempty"`
}

// Waiting is how many of the app's jobs are ready. JetStream counts a released job as
// reserved until it is handed out again. So in an app that sends nothing, reserved jobs that no worker holds count as
// ready. 0 while the queue's numbers are unknown.
func (a *App) Waiting() int {
	if a.Queue == nil {
		return 0
	}
	switch a.State {
	case supervisor.Broken, supervisor.Guarded, supervisor.Unreachable, supervisor.Paused:
	default:
		return a.Queue.Ready // the numbers are not of the very same moment
	}
	nobodys := a.Queue.Reserved
	for _, w := range a.Workers {
		nobodys -= w.Held
	}
	return a.Queue.Ready + max(0, nobodys)
}

// Word is the app's state for people: of an idle app, whether it sleeps.
func (a *App) Word() string {
	if a.Asleep && a.State == supervisor.Idle {
		return "asleep"
	}
	return a.State.Word()
}

// KeepsCredential reports whether the app works with the credential it had, because the
// one that the configuration names now cannot be used.
func (a *App) KeepsCredential() bool { return a.CredentialFault != "" && len(a.Workers) > 0 }

func appOf(s *supervisor.AppStatus) App {
	a := App{
		Name: s.Name, Topic: s.Topic, Tube: s.Tube, State: s.Health.State, Ready: !s.Health.State.Trouble(), Held: s.Paused.Paused, Asleep: asleep(s), Reason: s.Health.Reason, Since: s.Health.Since, Workers: []Worker{},
		Pushes:            pushesOf(s.Counters),
		Active:            s.Recent.Active(),
		Latency:           latencyOf(&s.Counters.Seconds),
		CredentialExpires: s.CredentialExpiry,
		CredentialFault:   s.CredentialFault,
		Watchdog:          watchdogOf(s.Steps),
	}
	if q := s.Queue; q != nil {
		a.Queue = &Queue{q.Ready, q.Delayed, q.Reserved, q.Buried, q.At, q.Incomplete}
	}
	for _, w := range s.Workers {
		a.Workers = append(a.Workers, Worker{w.Serving, w.Connected, w.Reserved, w.InFlight, w.Received, w.Finished, w.Waiting, string(w.Cause.Limit()), w.Link})
	}
	if h := s.Webhook; h != nil {
		a.Webhook = &Webhook{Down: h.Down, Reason: h.Reason, Since: h.Since, Delivered: h.Counters.Delivered.Load(), Failed: h.Counters.Failed.Load()}
		if h.Stalled != nil {
			a.Webhook.Stalled = h.Stalled.Reason
		}
	}
	return a
}

// asleep reports whether a job would wake the app: one whose credential cannot be used has no
// workers that could run.
func asleep(s *supervisor.AppStatus) bool { return s.Asleep && len(s.Workers) > 0 }

// addPushes adds what only the view of one app has: its last pushes, and why they failed.
func (a *App) addPushes(s *supervisor.AppStatus) {
	last, failures := s.Recent.Last()
	a.Outcomes, a.Failures = failuresOf(last), failuresOf(failures)
	a.Refusals = refusalsOf(s.Counters.Refusals())
}

func refusalsOf(counted map[worker.Refusal]int64) (out []refusal) {
	for r, n := range counted {
		reason := r.Reason
		if status := apnsconn.ReasonStatus(reason); status != 0 {
			reason = fmt.Sprint(status, " ", reason) // as the log has it
		}
		out = append(out, refusal{r.Class.String(), reason, n})
	}
	slices.SortFunc(out, func(a, b refusal) int {
		return cmp.Or(cmp.Compare(b.Pushes, a.Pushes), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

func failuresOf(ended []worker.Event) (out []failure) {
	for i := range ended {
		out = append(out, failureOf(&ended[i]))
	}
	return out
}

// failureOf describes the end of any push; a delivered one has no reason.
func failureOf(e *worker.Event) failure {
	return failure{e.At, e.Worker, e.Token, e.Class.String(), e.Status, e.Detail(), e.APNsID, e.Took.Milliseconds()}
}

func watchdogOf(s *supervisor.Steps) watchdog {
	w := watchdog{Replaced: s.Replaced.Load(), Restarted: s.Restarted.Load(), Stalled: s.Stalled.Load()}
	for name, c := range map[string]*supervisor.StepCount{"replaced": &s.Replaced, "restarted": &s.Restarted, "stalled": &s.Stalled} {
		if last := c.Last(); last != nil {
			if w.Last == nil {
				w.Last = make(map[string]step)
			}
			w.Last[name] = step{last.Reason, last.At}
		}
	}
	return w
}

func pushesOf(c *worker.Counters) Pushes {
	p := Pushes{
		Ended: make(map[string]int64), Buried: c.Buried.Load(), Expired: c.Expired.Load(), PossibleDuplicates: c.PossibleDuplicates.Load(),
	}
	for class := apnsconn.Delivered; class <= apnsconn.Unknown; class++ {
		if n := c.Ended(class); n > 0 {
			p.Ended[class.String()] = n
		}
	}
	return p
}

// Latency is how long APNs took to answer pushes.
type Latency struct {
	Pushes uint64 `json:"pushes"` // that were answered
	// P50 and P99 are the median and 99th-percentile response time in milliseconds:
	// estimates, linear within a bucket, like those of Prometheus' histogram_quantile.
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	// Buckets hold all that Pushes counts, the shortest times first.
	Buckets []bucket `json:"buckets"`
}

// bucket counts pushes that took at most AtMost, and longer than the bucket before.
type bucket struct {
	AtMost float64 `json:"at_most_ms,omitempty"` // 0: the last bucket, without a bound
	Pushes uint64  `json:"pushes"`
}

// latencyOf is nil before the first answer.
func latencyOf(h *worker.Histogram) *Latency {
	_, atMost := h.Snapshot()
	bounds := slices.Sorted(maps.Keys(atMost))
	buckets := make([]bucket, len(bounds))
	before := uint64(0)
	for i, bound := range bounds {
		buckets[i].Pushes = atMost[bound] - before
		before = atMost[bound]
		if !math.IsInf(bound, 1) {
			buckets[i].AtMost = bound * 1000
		}
	}
	return newLatency(buckets)
}

// newLatency is nil if the buckets are empty.
func newLatency(buckets []bucket) *Latency {
	l := &Latency{Buckets: buckets}
	for _, b := range buckets {
		l.Pushes += b.Pushes
	}
	if l.Pushes == 0 {
		return nil
	}
	l.P50, l.P99 = l.quantile(.50), l.quantile(.99)
	return l
}

// Since is the latency of the pushes answered after earlier was taken; nil if
// there are none. Where earlier is nil, or of another run of the daemon, it is l
// itself.
func (l *Latency) Since(earlier *Latency) *Latency {
	if l == nil || earlier == nil || len(l.Buckets) != len(earlier.Buckets) {
		return l
	}
	buckets := slices.Clone(l.Buckets)
	for i, b := range earlier.Buckets {
		if b.AtMost != buckets[i].AtMost || b.Pushes > buckets[i].Pushes {
			return l
		}
		buckets[i].Pushes -= b.Pushes
	}
	return newLatency(buckets)
}

// quantile is the time that a part q of the pushes took at most, in milliseconds
// to a tenth. Of the last bucket only the beginning is known.
func (l *Latency) quantile(q float64) float64 {
	rank, seen, low := q*float64(l.Pushes), 0.0, 0.0
	for _, b := range l.Buckets {
		n := float64(b.Pushes)
		if n > 0 && seen+n >= rank {
			if b.AtMost > 0 {
				low += (b.AtMost - low) * (rank - seen) / n
			}
			break
		}
		seen += n
		low = b.AtMost
	}
	return math.Round(low*10) / 10
}
