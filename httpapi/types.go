package httpapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"propeller/apnsconn"
	"propeller/internal/rawjson"
	"propeller/supervisor"
	"propeller/worker"
	"propeller/worker/buried"
	"propeller/worker/job"
)

// Apps is the answer of GET /v1/apps.
type Apps struct {
	Apps []App `json:"apps"`
	// RefusedReload is there while the last reload is one that was refused.
	RefusedReload *RefusedReload `json:"refused_reload,omitempty"`
	// UnknownTubes have jobs and belong to no app. Keys with topics do not see them.
	UnknownTubes []UnknownTube `json:"unknown_tubes,omitempty"`
}

// UnknownTube is a tube that has jobs and belongs to no app: a producer misspelled a
// topic, an app was removed, or another program uses the queue.
type UnknownTube struct {
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
	// Fault is a line for each fault. It may name any app: who has a key for some
	// only is not told.
	Fault string `json:"fault,omitempty"`
}

// App is an app at one moment. The numbers count since the process began.
type App struct {
	Topic string `json:"topic"`
	Tube  string `json:"tube"`

	State   supervisor.State `json:"state"`
	Ready   bool             `json:"ready"`            // whether GET /readyz/apps counts it as ready
	Reason  string           `json:"reason,omitempty"` // absent while running or idle
	Since   time.Time        `json:"since,omitzero"`
	Held    bool             `json:"held,omitempty"` // by an operator: it takes no jobs
	Workers []Worker         `json:"workers"`
	Pushes  Pushes           `json:"pushes"`
	Active  time.Time        `json:"active,omitzero"`   // when a push last ended; absent before the first
	Latency *Latency         `json:"latency,omitempty"` // absent before the first answer of APNs
	Queue   *Queue           `json:"queue,omitempty"`   // absent: not asked yet, or it does not answer
	// CredentialExpires is when the certificate does; absent without one.
	CredentialExpires time.Time `json:"credential_expires,omitzero"`
	// CredentialFault says why the credential that the configuration names cannot be used:
	// the app is broken, or goes on with the one it had. Absent if it can.
	CredentialFault string   `json:"credential_fault,omitempty"`
	Watchdog        Watchdog `json:"watchdog"`
	Webhook         *Webhook `json:"webhook,omitempty"`
	// Failures are the pushes that last went wrong, at most 50, latest first; of
	// GET /v1/apps/{topic} only.
	Failures []Failure `json:"failures,omitempty"`

	// Of an app's page only: how the last pushes ended, delivered ones too, and how many
	// were not delivered for each reason, the most frequent in front.
	Outcomes []Failure `json:"-"`
	Refusals []Refusal `json:"-"`
}

// Refusal counts pushes that were not delivered for one reason.
type Refusal struct {
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

// Failure is a push that was not delivered; the keys are those of the log.
type Failure struct {
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
	Connected bool   `json:"connected"` // to APNs
	Held      int    `json:"held"`      // jobs it works on
	InFlight  int    `json:"in_flight"` // pushes under way and jobs being settled
	Received  int64  `json:"received"`
	Finished  int64  `json:"finished"`
	Waiting   string `json:"waiting,omitempty"` // why it takes no jobs

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

// Watchdog counts what the watchdog has done about an app.
type Watchdog struct {
	Replaced  int64 `json:"replaced"`
	Restarted int64 `json:"restarted"`
	Stalled   int64 `json:"stalled"`
	// Last is the last step of each kind, by the names above; a kind without any
	// is absent.
	Last map[string]Step `json:"last,omitempty"`
}

// Step is one step of the watchdog.
type Step struct {
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

// BuriedList is the answer of GET /v1/apps/{topic}/buried.
type BuriedList struct {
	Jobs []BuriedJob `json:"jobs"` // those buried first in front
	More bool        `json:"more"` // the limit was reached, and there are others
	// Complete is false until all buried jobs have been read from the queue.
	Complete bool `json:"complete"`
	// Incomplete says why the rest is missing, such as a queue server that is away.
	Incomplete string `json:"incomplete,omitempty"`
}

// BuriedJob is a job that was set aside.
type BuriedJob struct {
	ID     string    `json:"id"`               // the one its producer got; the rests of one list share it
	Class  string    `json:"class,omitempty"`  // of the last outcome
	Status int       `json:"status,omitempty"` // APNs' HTTP status
	Reason string    `json:"reason"`
	Buried time.Time `json:"buried"`        // when it was buried, or put if the job does not say
	Age    int64     `json:"age,omitempty"` // seconds since it was put
	Token  string    `json:"token,omitempty"`
	Ref    string    `json:"ref,omitempty"`
	APNsID string    `json:"apns_id,omitempty"`
	// Unverified: the queue did not answer, so the job may be gone.
	Unverified bool `json:"unverified,omitempty"`

	// Body is the job as its producer put it, or its rest, with whole tokens; absent in a
	// list. A body that is not UTF-8 is in BodyBase64 instead.
	Body       string `json:"body,omitempty"`
	BodyBase64 []byte `json:"body_base64,omitempty"`
}

// Choice says which buried jobs are meant: exactly one of IDs, Reason and All
// is given.
type Choice struct {
	IDs    jobIDs `json:"ids,omitempty"`
	Reason string `json:"reason,omitempty"` // part of the reason or class
	All    bool   `json:"all,omitempty"`
	Limit  int    `json:"limit,omitempty"`  // at most so many, up to MaxJobs, which is the default
	Before int64  `json:"before,omitempty"` // only jobs buried before this second of Unix time

	group string // used by the page: only jobs whose reason belongs to this group
}

// jobIDs are ids of jobs. Of a list that is too long no more are kept than show that.
type jobIDs []string

// UnmarshalJSON reads a list of strings.
func (ids *jobIDs) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	err := rawjson.Elements(text, func(_ int, value []byte) error {
		var id string
		if len(*ids) > MaxJobs {
			return nil
		}
		if err := json.Unmarshal(value, &id); err != nil {
			return err
		}
		*ids = append(*ids, id)
		return nil
	})
	if errors.Is(err, rawjson.ErrKind) {
		return errors.New("ids: is not a list")
	}
	return err
}

// MaxJobs is the most buried jobs of one answer: with bodies of 64 KiB their
// list takes 64 MiB while it is made.
const MaxJobs = 1000

// Settled is the answer of kick and delete.
type Settled struct {
	Jobs       int      `json:"jobs"`          // kicked or deleted
	IDs        []string `json:"ids,omitempty"` // their ids
	More       bool     `json:"more"`          // the limit was reached, and there are others
	Incomplete string   `json:"incomplete,omitempty"`
}

var (
	errChoice = errors.New("give exactly one of ids, reason and all")
	errLimit  = fmt.Errorf("the limit, or the number of ids: must be 1 to %d", MaxJobs)
)

// filter checks the choice.
func (c Choice) filter() (buried.Filter, error) {
	given := 0
	for _, is := range []bool{len(c.IDs) > 0, c.Reason != "", c.All} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return buried.Filter{}, errChoice
	case c.Limit < 0 || c.Limit > MaxJobs || len(c.IDs) > MaxJobs:
		return buried.Filter{}, errLimit
	}
	f := buried.Filter{IDs: c.IDs, Reason: c.Reason, Limit: orMax(c.Limit), Before: unixTime(c.Before)}
	if c.group != "" {
		f.Only = func(e *buried.Entry) bool { return groupOf(e.Reason) == c.group }
	}
	return f, nil
}

// unixTime is a time given in Unix seconds, of which 0 means none.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// Selection says which buried jobs a list has. The zero value selects all, up to MaxJobs.
type Selection struct {
	Reason string // part of the reason or class
	Limit  int    // at most so many; 0 means MaxJobs
	Since  int64  // only jobs buried at this second of Unix time or later
}

func orMax(limit int) int {
	if limit == 0 {
		return MaxJobs
	}
	return limit
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

// KeepsCredential reports whether the app works with the credential it had, because the
// one that the configuration names now cannot be used.
func (a *App) KeepsCredential() bool { return a.CredentialFault != "" && len(a.Workers) > 0 }

func appOf(s *supervisor.AppStatus) App {
	a := App{
		Topic: s.Topic, Tube: s.Tube, State: s.Health.State, Ready: !s.Health.State.Trouble(), Held: s.Held.Held, Reason: s.Health.Reason, Since: s.Health.Since, Workers: []Worker{},
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
		a.Workers = append(a.Workers, Worker{w.Serving, w.Connected, w.Held, w.InFlight, w.Received, w.Finished, w.Waiting, w.Link})
	}
	if h := s.Webhook; h != nil {
		a.Webhook = &Webhook{Down: h.Down, Reason: h.Reason, Since: h.Since, Delivered: h.Counters.Delivered.Load(), Failed: h.Counters.Failed.Load()}
		if h.Stalled != nil {
			a.Webhook.Stalled = h.Stalled.Reason
		}
	}
	return a
}

// addPushes adds what is told of one app only: its last pushes, and why they failed.
func (a *App) addPushes(s *supervisor.AppStatus) {
	last, failures := s.Recent.Last()
	a.Outcomes, a.Failures = failuresOf(last), failuresOf(failures)
	a.Refusals = refusalsOf(s.Counters.Refusals())
}

func refusalsOf(counted map[worker.Refusal]int64) (out []Refusal) {
	for r, n := range counted {
		reason := r.Reason
		if status := apnsconn.ReasonStatus(reason); status != 0 {
			reason = fmt.Sprint(status, " ", reason) // as the log has it
		}
		out = append(out, Refusal{r.Class.String(), reason, n})
	}
	slices.SortFunc(out, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(b.Pushes, a.Pushes), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

func failuresOf(ended []worker.Event) (out []Failure) {
	for i := range ended {
		out = append(out, failureOf(&ended[i]))
	}
	return out
}

// failureOf describes the end of any push; a delivered one has no reason.
func failureOf(e *worker.Event) Failure {
	return Failure{e.At, e.Worker, e.Token, e.Class.String(), e.Status, e.Detail(), e.APNsID, e.Took.Milliseconds()}
}

func watchdogOf(s *supervisor.Steps) Watchdog {
	w := Watchdog{Replaced: s.Replaced.Load(), Restarted: s.Restarted.Load(), Stalled: s.Stalled.Load()}
	for name, c := range map[string]*supervisor.StepCount{"replaced": &s.Replaced, "restarted": &s.Restarted, "stalled": &s.Stalled} {
		if last := c.Last(); last != nil {
			if w.Last == nil {
				w.Last = make(map[string]Step)
			}
			w.Last[name] = Step{last.Reason, last.At}
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

func buriedOf(it *buried.Item) BuriedJob {
	j := BuriedJob{
		ID: it.Job, Class: it.Class, Status: it.Status, Reason: it.Reason, Buried: it.At, Age: int64(time.Since(it.Put) / time.Second),
		Token: it.Token, Ref: it.Ref, APNsID: it.APNsID, Unverified: it.Unverified,
	}
	if body := job.AsPut(it.Body); utf8.Valid(body) {
		j.Body = string(body)
	} else {
		j.BodyBase64 = body
	}
	return j
}
