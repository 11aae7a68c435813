package supervisor

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"propeller/worker"
)

// State is how an app is, in one word. It is judged here and nowhere else: page,
// API, metrics, readiness, the service manager and the watchdog tell what judge
// says.
type State string

// The states of an app. Of those that apply it is in the first.
const (
	Broken      State = "broken"
	Guarded     State = "guarded"
	NoQueue     State = "no_queue"
	Stalled     State = "stalled"
	Unreachable State = "unreachable"
	Failing     State = "failing"
	Paused      State = "paused"
	TubePaused  State = "tube_paused"
	Running     State = "running"
	Idle        State = "idle"
)

// states is what is to be known of each, in their order. It is never written to.
var states = [...]struct {
	state   State
	meaning string
	trouble bool
}{
	{Broken, "APNs refuses its credential; one job a minute is tried", true},
	{Guarded, "APNs refuses its device tokens as those of another environment or topic; one job a minute is tried", true},
	{NoQueue, "its queue cannot be reached, or takes no records or jobs", true},
	{Stalled, "it has jobs and finishes none, and nothing has helped", true},
	{Unreachable, "it has jobs, and no connection to APNs can be made that takes pushes", true},
	{Failing, "most of its pushes are not delivered, and not for their device tokens", true},
	{Paused, "an operator has paused it", false},
	{TubePaused, "its tube is paused in the queue", false},
	{Running, "it works", false},
	{Idle, "it has had nothing to do for a minute", false},
}

// States are all states, in their order.
func States() []State {
	out := make([]State, len(states))
	for i := range states {
		out[i] = states[i].state
	}
	return out
}

// Trouble says that somebody should look: GET /readyz/apps fails for it.
func (s State) Trouble() bool {
	for i := range states {
		if states[i].state == s {
			return states[i].trouble
		}
	}
	return false
}

// Works says that nothing keeps the app from sending pushes.
func (s State) Works() bool { return s == Running || s == Idle }

// Meaning says in words what the state is.
func (s State) Meaning() string {
	for i := range states {
		if states[i].state == s {
			return states[i].meaning
		}
	}
	return ""
}

// Word is the state as people read it.
func (s State) Word() string { return strings.ReplaceAll(string(s), "_", " ") }

// Health is how an app is, and why.
type Health struct {
	State  State
	Reason string    // "" of one that runs, or is idle
	Since  time.Time // zero of one that runs, or is idle
	Until  time.Time // when the state ends by itself; zero: not known
	// NoQueue says that the queue is of no use to the app, whatever its state: a
	// broken app may have none either.
	NoQueue bool
}

// String is state and reason, for people.
func (h Health) String() string {
	if h.Reason == "" {
		return h.State.Word()
	}
	return h.State.Word() + ": " + h.Reason
}

const (
	// awayGrace is how long a queue may be away before the app has none: above
	// what a restart of the queue takes, and a worker's first connection.
	awayGrace = 5 * time.Second
	// downGrace is the same for APNs: above what one connection that is lost takes.
	downGrace = 10 * time.Second
	// idleAfter is for how long an app that is idle has had nothing to do.
	idleAfter = time.Minute
	// fewEnded pushes say nothing about those to come.
	fewEnded = 20
)

// sight is what can be seen of an app at one moment.
type sight struct {
	now     time.Time
	breaker worker.BreakerState
	hold    worker.HoldState
	workers []worker.Status
	stalled *Stall
	puts    *failedPuts
	tube    *QueueStats
	ends    tally
	active  time.Time // when a push ended last
}

// past is what earlier sights have left behind.
type past struct {
	health     Health
	away, down time.Time // since when there is no use of the queue, and of APNs; zero: there is
}

// after is the past of the next sight.
func (p past) after(s *sight) past {
	p.away = since(s.noQueue() != "", p.away, s.now)
	p.down = since(s.noAPNs() != nil, p.down, s.now)
	p.health = judge(s, p)
	return p
}

func since(is bool, was, now time.Time) time.Time {
	switch {
	case !is:
		return time.Time{}
	case was.IsZero():
		return now
	}
	return was
}

// judge says how an app is.
func judge(s *sight, p past) (h Health) {
	h.State = Running
	old := func(since time.Time, grace time.Duration) bool { return !since.IsZero() && s.now.Sub(since) >= grace }
	noQueue, noAPNs := s.noQueue(), s.noAPNs()
	puts := s.noPuts()
	defer func() { h.NoQueue = noQueue != "" && old(p.away, awayGrace) || puts != nil }()
	switch {
	case s.breaker.Broken:
		h = Health{State: Broken, Reason: s.breaker.Reason, Since: s.breaker.Since}
	case s.breaker.Paused:
		h = Health{State: Guarded, Reason: s.breaker.Reason, Since: s.breaker.Since}
	case noQueue != "" && old(p.away, awayGrace):
		h = Health{State: NoQueue, Reason: noQueue, Since: p.away}
	case puts != nil:
		h = Health{State: NoQueue, Reason: "the queue takes no jobs: " + puts.err.Error(), Since: puts.since}
	case s.stalled != nil:
		h = Health{State: Stalled, Reason: s.stalled.Reason, Since: s.stalled.Since}
	case noAPNs != nil && old(p.down, downGrace):
		h = Health{State: Unreachable, Reason: noAPNs.Error(), Since: p.down}
	case s.ends.ended >= fewEnded && 2*s.ends.bad > s.ends.ended:
		h = Health{State: Failing, Reason: s.ends.String()}
	case s.hold.Held:
		h = Health{State: Paused, Reason: s.hold.Reason, Since: s.hold.Since}
	case s.tubePaused():
		h = Health{State: TubePaused, Until: s.tube.PausedUntil}
		h.Reason = "in the queue until " + h.Until.UTC().Format("2006-01-02 15:04:05 UTC")
	case s.idle():
		h.State = Idle
	}
	if h.Since.IsZero() && h.Reason != "" {
		h.Since = s.now
		if p.health.State == h.State {
			h.Since = p.health.Since
		}
	}
	return h
}

// explanation is why the app can make no progress at present, as far as that is
// known, though it may be too early to call it the app's state; "" if nothing is.
func (s *sight) explanation() string {
	noAPNs := s.noAPNs()
	switch {
	case s.breaker.Broken:
		return Health{State: Broken, Reason: s.breaker.Reason}.String()
	case s.breaker.Paused:
		return Health{State: Guarded, Reason: s.breaker.Reason}.String()
	case noAPNs != nil:
		return "apns: " + noAPNs.Error()
	}
	return s.queueGone() // what one worker cannot put explains that one only
}

// noQueue is why none of the workers can receive jobs, or one cannot put what has
// to be put before its jobs are settled; "" if there is no such reason.
func (s *sight) noQueue() string {
	for i := range s.workers {
		if err := s.workers[i].Unstored; err != nil {
			return err.Error()
		}
	}
	return s.queueGone()
}

// queueGone is why none of the workers can receive jobs; "" if one can.
func (s *sight) queueGone() string {
	var away error
	served := false
	for i := range s.workers {
		switch w := &s.workers[i]; {
		case !w.Serving:
		case w.QueueErr == nil:
			served = true
		case away == nil:
			away = w.QueueErr
		}
	}
	if away == nil || served {
		return ""
	}
	return "queue unavailable: " + away.Error()
}

// noAPNs is why workers that have jobs reach no APNs, or one that takes nothing;
// nil if another worker does reach it, or nothing has been tried lately.
func (s *sight) noAPNs() (why error) {
	for i := range s.workers {
		switch w := &s.workers[i]; {
		case !w.Serving:
		case w.Unreachable != nil:
			why = cmp.Or(why, w.Unreachable)
		case w.Connected:
			return nil
		}
	}
	return why
}

// noPuts are the puts that have failed, if all have for a while.
func (s *sight) noPuts() *failedPuts {
	if f := s.puts; f != nil && f.last.Sub(f.since) >= awayGrace && s.now.Sub(f.last) <= putsForget {
		return f
	}
	return nil
}

func (s *sight) tubePaused() bool { return s.tube != nil && s.tube.PausedUntil.After(s.now) }

// idle says that no push has ended lately, and no job is at hand.
func (s *sight) idle() bool {
	for i := range s.workers {
		if s.workers[i].Held > 0 {
			return false
		}
	}
	return s.now.Sub(s.active) >= idleAfter
}

// String says how many pushes failed.
func (t tally) String() string {
	text := fmt.Sprintf("%d of %d pushes within 5 minutes were not delivered", t.bad, t.ended)
	if t.last != "" {
		text += "; the last: " + t.last
	}
	return text
}
