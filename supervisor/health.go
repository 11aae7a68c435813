package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker"
)

// State is an app's state, in one word. Only judge decides it: the page, the API, the metrics,
// readiness, the service manager and the watchdog all use its result.
type State string

// The states of an app. The first one that applies counts.
const (
	Broken      State = "broken"      // its credential cannot be used, or APNs refuses it and one job a minute is tried
	Guarded     State = "guarded"     // APNs refuses its device tokens as those of another environment or topic; one job a minute is tried
	NoQueue     State = "no_queue"    // its queue cannot be reached, or does not accept records or jobs
	Stalled     State = "stalled"     // it has jobs but finishes none, and the watchdog could not help
	Unreachable State = "unreachable" // it has jobs but no working connection to APNs
	Failing     State = "failing"     // most of its pushes fail, dead and throttled tokens apart
	Paused      State = "paused"      // an operator has paused it
	TubePaused  State = "tube_paused" // its tube is paused in the queue
	Running     State = "running"     // it works
	Idle        State = "idle"        // it has had nothing to do for a minute
)

// states describes the states, in their order. It is never written to.
var states = [...]struct {
	state   State
	trouble bool
}{
	{Broken, true},
	{Guarded, true},
	{NoQueue, true},
	{Stalled, true},
	{Unreachable, true},
	{Failing, true},
	{Paused, false},
	{TubePaused, false},
	{Running, false},
	{Idle, false},
}

// States returns all states, in their order.
func States() []State {
	out := make([]State, len(states))
	for i := range states {
		out[i] = states[i].state
	}
	return out
}

// Trouble reports whether somebody should look at the app: then GET /readyz/apps fails.
func (s State) Trouble() bool {
	for i := range states {
		if states[i].state == s {
			return states[i].trouble
		}
	}
	return false
}

// Works reports whether nothing keeps the app from sending pushes.
func (s State) Works() bool { return s == Running || s == Idle }

// Word is the state for people.
func (s State) Word() string { return strings.ReplaceAll(string(s), "_", " ") }

// Health is an app's state and the reason for it.
type Health struct {
	State  State
	Reason string    // "" for Running and Idle
	Since  time.Time // zero for Running and Idle
	Until  time.Time // when the state ends by itself; zero if unknown
	// NoQueue says that the app cannot use its queue, in any state: a broken app may be without
	// its queue too.
	NoQueue bool
}

// String returns state and reason, for people.
func (h Health) String() string {
	switch word := h.State.Word(); {
	case h.Reason == "":
		return word
	case strings.HasPrefix(h.Reason, word+" "): // "paused by auth_token"
		return h.Reason
	}
	return h.State.Word() + ": " + h.Reason
}

const (
	// awayGrace is how long a queue may be down before the app is in NoQueue: longer than the
	// queue takes to restart, or a worker to connect for the first time.
	awayGrace = 5 * time.Second
	// downGrace is the same for APNs: longer than it takes to replace one lost connection.
	downGrace = 10 * time.Second
	// waitGrace is how long an app may wait for its turn to be awake.
	waitGrace = time.Minute
	// idleAfter is how long an app must have had nothing to do to be idle.
	idleAfter = time.Minute
	// fewEnded is how many pushes it takes at least to call an app failing.
	fewEnded = 20
)

// snapshot is what is known about an app at one moment.
type snapshot struct {
	now      time.Time
	bad      *badCredential // its credential cannot be used, and it has no previous one
	breaker  worker.BreakerState
	pause    worker.PauseState
	workers  []worker.Status
	stalled  *Stall
	puts     *failedPuts
	tube     *QueueStats
	outcomes tally
	active   time.Time // when a push ended last
	blind    error     // the app sleeps, and the queue cannot wake it; nil if it can
	waits    time.Time // since when it waits to be woken; zero: it does not
}

// past is what earlier sights recorded.
type past struct {
	health     Health
	away, down time.Time // since when the queue or APNs cannot be used; zero if it can
}

// after returns the past for the next snapshot.
func (p past) after(s *snapshot) past {
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

// judge decides the app's state.
func judge(s *snapshot, p past) (h Health) {
	h.State = Running
	old := func(since time.Time, grace time.Duration) bool { return !since.IsZero() && s.now.Sub(since) >= grace }
	noQueue, noAPNs := s.noQueue(), s.noAPNs()
	puts := s.noPuts()
	defer func() { h.NoQueue = noQueue != "" && old(p.away, awayGrace) || puts != nil }()
	switch {
	case s.bad != nil:
		h = Health{State: Broken, Reason: s.bad.reason, Since: s.bad.since}
	case s.breaker.Broken:
		h = Health{State: Broken, Reason: s.breaker.Reason, Since: s.breaker.Since}
	case s.breaker.Guarded:
		h = Health{State: Guarded, Reason: s.breaker.Reason, Since: s.breaker.Since}
	case noQueue != "" && old(p.away, awayGrace):
		h = Health{State: NoQueue, Reason: noQueue, Since: p.away}
	case puts != nil:
		h = Health{State: NoQueue, Reason: "the queue takes no jobs: " + puts.err.Error(), Since: puts.since}
	case s.stalled != nil:
		h = Health{State: Stalled, Reason: s.stalled.Reason, Since: s.stalled.Since}
	case noAPNs != nil && old(p.down, downGrace):
		h = Health{State: Unreachable, Reason: noAPNs.Error(), Since: p.down}
	case old(s.waits, waitGrace):
		h = Health{State: Unreachable, Reason: "it waits for open files, of which other apps have as many as may be open: allow more, or run several daemons", Since: s.waits}
	case s.outcomes.ended >= fewEnded && 2*s.outcomes.bad > s.outcomes.ended:
		h = Health{State: Failing, Reason: s.outcomes.String()}
	case s.pause.Paused:
		h = Health{State: Paused, Reason: s.pause.Reason, Since: s.pause.Since}
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

// explanation says why the app cannot make progress now, even if it is too early for the state to
// show it; "" if unknown.
func (s *snapshot) explanation() string {
	noAPNs := s.noAPNs()
	switch {
	case s.bad != nil:
		return Health{State: Broken, Reason: s.bad.reason}.String()
	case s.breaker.Broken:
		return Health{State: Broken, Reason: s.breaker.Reason}.String()
	case s.breaker.Guarded:
		return Health{State: Guarded, Reason: s.breaker.Reason}.String()
	case noAPNs != nil:
		return "apns: " + noAPNs.Error()
	}
	return s.queueGone() // a put that fails explains one worker only
}

// noQueue says why no worker can receive jobs, or why a worker cannot put records or remaining
// tokens; "" if neither applies.
func (s *snapshot) noQueue() string {
	for i := range s.workers {
		if err := s.workers[i].Unstored; err != nil {
			return err.Error()
		}
	}
	return s.queueGone()
}

// queueGone says why no worker can receive jobs; "" if one can.
func (s *snapshot) queueGone() string {
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
	if away == nil {
		away = s.blind
	}
	if away == nil || served {
		return ""
	}
	return "queue unavailable: " + away.Error()
}

// noAPNs says why workers with jobs cannot reach APNs, or why their connection accepts no pushes;
// nil if another worker is connected, or nothing was tried lately.
func (s *snapshot) noAPNs() (why error) {
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

// noPuts returns the failed puts if all puts have failed for a while, else nil.
func (s *snapshot) noPuts() *failedPuts {
	if f := s.puts; f != nil && f.last.Sub(f.since) >= awayGrace && s.now.Sub(f.last) <= putsForget {
		return f
	}
	return nil
}

func (s *snapshot) tubePaused() bool { return s.tube != nil && s.tube.PausedUntil.After(s.now) }

// idle reports whether no push has ended lately and no worker has a job.
func (s *snapshot) idle() bool {
	for i := range s.workers {
		if s.workers[i].Reserved > 0 {
			return false
		}
	}
	waits := s.tube != nil && s.tube.Ready > s.tube.Paused
	return !waits && s.now.Sub(s.active) >= idleAfter
}

// String says how many pushes failed.
func (t tally) String() string {
	text := fmt.Sprintf("%d of %d pushes within %s were not delivered", t.bad, t.ended, t.within)
	if t.last != "" {
		text += "; the last: " + t.last
	}
	return text
}

// stateWatcher is a service that notes when apps' states change, for example since when an app has
// been without its queue or APNs. It asks the workers, not the queue, so a look costs
// microseconds.
type stateWatcher struct {
	log    *slog.Logger
	awake  func() ([]watched, queue.Admin)
	asleep func() []watched
	blind  func() error // why the queue cannot wake those; nil if it can
	looks  int          // so far
	wasErr bool         // blind had an error at the last look
}

const (
	lookEvery = time.Second
	// sleepersEvery is at how many looks apps that sleep are looked at: of their state, only
	// that their failures are forgotten changes by itself.
	sleepersEvery = 10
)

// String names the state watcher in suture's events.
func (*stateWatcher) String() string { return "state watcher" }

// Serve looks at the apps once a second.
func (l *stateWatcher) Serve(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			l.lookAtAll(time.Now())
		}
	}
}

func (l *stateWatcher) lookAtAll(now time.Time) {
	awake, _ := l.awake()
	for _, a := range awake {
		l.look(a, now, nil)
	}
	blind := l.blind()
	if l.wasErr || blind != nil || l.looks%sleepersEvery == 0 {
		for _, a := range l.asleep() {
			l.look(a, now, blind)
		}
	}
	l.wasErr = blind != nil
	l.looks++
}

// look looks at one app.
func (l *stateWatcher) look(a watched, now time.Time, blind error) {
	seen, was := a.look(now, blind), a.before()
	is := was.after(&seen)
	if is == was {
		return
	}
	a.past.Store(&is)
	// All other changes of state are logged where they are noticed.
	switch {
	case is.health.State == Failing && was.health.State != Failing:
		l.log.Warn("app fails: most of its pushes are not delivered", "app", a.cfg.Name, "topic", a.cfg.Topic, "reason", is.health.Reason)
	case was.health.State == Failing && is.health.State != Failing:
		l.log.Info("app recovered: most of its pushes are delivered again", "app", a.cfg.Name, "topic", a.cfg.Topic, "state", is.health.State)
	}
}

// recentOutcomes is a worker.Sink that counts how the pushes of the last five minutes ended. Many
// goroutines report to it, so it has no lock: when a bucket is reused, a few pushes may be
// missed. The zero value is ready for use.
type recentOutcomes struct {
	buckets [30]outcomesBucket
	last    atomic.Pointer[string] // why the last push failed, to about a second
	lastAt  atomic.Int64           // when it failed, in Unix seconds
}

// outcomesBucket counts the pushes of one bucketTime.
type outcomesBucket struct {
	turn       atomic.Int64 // Unix time / bucketTime
	ended, bad atomic.Int32
}

const bucketTime = 10 // seconds

// tally is how many pushes ended lately, and how many of them failed.
type tally struct {
	ended, bad int
	within     time.Duration // when they ended; at most five minutes ago
	last       string        // why the last bad one failed
}

// Pushed counts a push that was answered or timed out. A push that a connection returned unsent
// has not ended.
func (e *recentOutcomes) Pushed(ev *worker.Event) {
	if !ev.Sent || ev.Action == worker.Tried || ev.Class == apnsconn.NotSent {
		return
	}
	now := ev.At.Unix()
	b := e.bucket(now / bucketTime)
	if b == nil {
		return
	}
	b.ended.Add(int32(ev.N))
	switch ev.Class {
	case apnsconn.Delivered, apnsconn.Token, apnsconn.Throttled:
		return
	}
	b.bad.Add(int32(ev.N))
	if at := e.lastAt.Load(); now > at && e.lastAt.CompareAndSwap(at, now) {
		why := ev.Detail()
		e.last.Store(&why)
	}
}

// bucket returns the bucket of a turn; nil if that turn has passed.
func (e *recentOutcomes) bucket(turn int64) *outcomesBucket {
	b := &e.buckets[turn%int64(len(e.buckets))]
	if was := b.turn.Load(); was != turn {
		if was > turn {
			return nil
		}
		if b.turn.CompareAndSwap(was, turn) {
			b.ended.Store(0)
			b.bad.Store(0)
		}
	}
	return b
}

// tally adds up the latest buckets: at least two, and as many as it takes for fewEnded pushes, up
// to all five minutes. So an app that sends much enters and leaves Failing within half a minute.
func (e *recentOutcomes) tally(now time.Time) (t tally) {
	turn := now.Unix() / bucketTime
	for i := range int64(len(e.buckets)) {
		if b := &e.buckets[(turn-i)%int64(len(e.buckets))]; b.turn.Load() == turn-i {
			t.ended += int(b.ended.Load())
			t.bad += int(b.bad.Load())
		}
		t.within = time.Duration(i+1) * bucketTime * time.Second
		if i > 0 && t.ended >= fewEnded {
			break
		}
	}
	if last := e.last.Load(); last != nil && t.bad > 0 {
		t.last = *last
	}
	return t
}

// forget resets e for an app that has changed.
func (e *recentOutcomes) forget() {
	for i := range e.buckets {
		e.buckets[i].turn.Store(0)
	}
}
