package worker_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// failure says which property a run violated, and how.
type failure struct{ property, text string }

// model is one run: a queue, an APNs, the workers between them, and the ledger.
type model struct {
	plan   plan
	lanes  []*lane
	living sync.Mutex     // guards which workers there are: see lane
	wg     sync.WaitGroup // of the slots, and of what makes lanes sleep and wake
	over   chan struct{}  // closed at the end

	// setClock sets the wall clock forth or back, if a worker's Config has a hook for it. If
	// it is nil, no such step is drawn.
	setClock func(by time.Duration)
	wallBy   atomic.Int64 // the offset of the wall clock, a time.Duration

	mu     sync.Mutex
	began  time.Time
	failed *failure
	held   time.Time // since when an operator holds the app; zero if it is not held
	quiet  time.Time // the last moment with a fault
	rates  rates

	jobs         map[int]*job
	lastID, turn int
	consumers    []*consumer
	queueKind    int
	queueChanged chan struct{}
	limits       map[string]int // how many tokens a rest of a job may have, by ref
	puts         map[string]int // puts that may have failed, by ref; of records, by ref and token

	apnsKind, dialKind int
	awayUntil          time.Time
	bounceNext         time.Duration
	conns              map[*conn]struct{}
	dials              int

	pushes     map[pushKey]*push
	natures    map[string]nature // of tokens
	calledBad  map[string]bool   // tokens
	right      bool              // an answer showed that the environment is right
	expires    map[string]bool   // refs of jobs with a ttl or an expiration
	unsound    map[string]bool   // refs of jobs that can never work
	duplicates int
}

func newModel(p plan) *model {
	m := &model{
		plan: p, over: make(chan struct{}), began: time.Now(), quiet: time.Now(),
		jobs: make(map[int]*job), puts: make(map[string]int), queueChanged: make(chan struct{}), limits: make(map[string]int),
		conns: make(map[*conn]struct{}), pushes: make(map[pushKey]*push), natures: make(map[string]nature),
		calledBad: make(map[string]bool), expires: make(map[string]bool), unsound: make(map[string]bool),
	}
	m.setClock = m.portClock()
	m.addLanes()
	for n := range staleTokens {
		m.natures[tokenName(n)] = pick(m.rand("stale", n), good, unregistered, unregistered)
	}
	return m
}

// rand returns an actor's random source: it draws the same whatever the others do.
func (m *model) rand(actor string, n int) *rand.Rand {
	h := uint64(14695981039346656037)
	for i := range len(actor) {
		h = (h ^ uint64(actor[i])) * 1099511628211
	}
	return rand.New(rand.NewPCG(m.plan.seed^h, uint64(n)))
}

// chance is true once in n.
func (m *model) chance(actor string, n, in int) bool { return m.rand(actor, n).IntN(in) == 0 }

// fault notes that there is a fault at this moment. m.mu is held.
func (m *model) fault() { m.quiet = time.Now() }

// fail notes the first failure. m.mu is held.
func (m *model) fail(property, format string, args ...any) {
	if m.failed == nil {
		m.failed = &failure{property, fmt.Sprintf("after %v: ", time.Since(m.began).Round(time.Millisecond)) + fmt.Sprintf(format, args...)}
		m.log("FAILED %s: %s", property, m.failed.text)
	}
}

func (m *model) hasFailed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed != nil
}

func (m *model) log(format string, args ...any) {
	if m.plan.log != nil {
		fmt.Fprintf(m.plan.log, "%12v model: %s\n", time.Since(m.began).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}

// runModel does one run; nil means that all properties hold.
func runModel(t *testing.T, p plan) (f *failure) {
	synctest.Test(t, func(*testing.T) {
		m := newModel(p)
		m.startLanes()
		for _, s := range p.steps {
			if m.hasFailed() {
				break
			}
			m.log("step: %s", s)
			m.do(s)
			time.Sleep(s.wait)
			m.askStatus()
		}
		m.heal()
		m.awaitEnds()
		m.stopAll()
		synctest.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		if n := m.uncounted(); n > 0 {
			m.fail("duplicate", "APNs has taken %d pushes more than once that nobody has counted", n)
		}
		f = m.failed
	})
	return f
}

// askStatus asks the workers for their status, as the page and the metrics do at any time.
func (m *model) askStatus() {
	for _, s := range m.slots() {
		if w := s.at(); w != nil {
			w.Status()
		}
	}
}

// bound is how long a job may take once all faults are over: a probe of a broken or guarded
// app may be 60 s away, and the dial after it 72 s.
const bound = 150 * time.Second

// heal ends all faults, and puts jobs that show it.
func (m *model) heal() {
	m.setHold(false)
	m.mu.Lock()
	m.apnsKind, m.dialKind, m.awayUntil, m.bounceNext = apnsWell, dialWell, time.Time{}, 0
	for c := range m.conns {
		c.bounces = 0
	}
	m.setQueue(queueWell)
	m.fault()
	m.mu.Unlock()
	m.log("all is well")
	m.startAll()
	m.do(step{op: opPut, kind: jobSingle, n: 1, id: 9001})
	m.do(step{op: opPut, kind: jobList, n: 3, id: 9002, lane: 1})
}

// awaitEnds waits until every job has ended, and fails if one takes too long.
func (m *model) awaitEnds() {
	end := time.Now().Add(m.plan.giveUp + 12*time.Hour)
	for !m.hasFailed() {
		next, left := m.overdue()
		if left == 0 {
			return
		}
		time.Sleep(next)
		if time.Now().After(end) {
			m.mu.Lock()
			m.fail("stall", "%d jobs never end: %s", left, m.waiting())
			m.mu.Unlock()
		}
	}
}

// overdue fails if a job is late. It returns when to look again, and how many jobs are left.
func (m *model) overdue() (next time.Duration, left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next = time.Minute
	for _, j := range m.jobs {
		if j.state == buried {
			continue
		}
		left++
		if j.state == delayed {
			continue
		}
		next = time.Second
		// A push whose token was called wrong waits for the guard's ruling.
		since := later(m.quiet, j.due)
		for _, p := range j.held {
			since = later(since, p.lastBad.Add(time.Minute))
		}
		if time.Since(since) > bound+m.paceTime() {
			m.fail("stall", "job %d (ref %s, %d tokens) has not ended %v after it was due and all was well: %s", j.id, j.ref, len(j.held), time.Since(since), m.waiting())
		}
	}
	return next, left
}

// waiting returns the workers' own statuses. m.mu is held.
func (m *model) waiting() string {
	states := map[jobState]int{}
	for _, j := range m.jobs {
		states[j.state]++
	}
	text := fmt.Sprintf("%d ready, %d reserved, %d delayed, %d buried", states[ready], states[reserved], states[delayed], states[buried])
	for _, l := range m.lanes {
		broken, paused, _ := l.app.stopped()
		text += fmt.Sprintf("; %s: broken %v, paused %v, watched %v", l.tube, broken, paused, l.watched)
	}
	m.mu.Unlock()
	slots := m.slots()
	defer m.mu.Lock()
	for _, s := range slots {
		if w := s.at(); w != nil {
			st := w.Status()
			text += fmt.Sprintf("; worker %d: held %d, in flight %d, lingering %d, guarded %d, connected %v, waiting %q, limited %q", s.index, st.Reserved, st.InFlight, st.Lingering, st.PendingAnswers, st.Connected, st.Waiting, st.Cause)
		}
	}
	return text
}
