package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"propeller/worker"
)

// slot runs one worker of one app, as suture does in the daemon.
type slot struct {
	m     *model
	app   *shared
	index int

	mu        sync.Mutex
	w         *worker.Worker // nil while none serves
	cancel    context.CancelFunc
	cancelRun context.CancelCauseFunc // of the Serve under way, for a restart
	stopped   time.Time               // when cancel was called
	down      time.Duration           // how long it then stays down
	closed    bool                    // it is not started again
	up        chan struct{}           // closed to start it at once
	over      chan struct{}           // closed when it has ended for good
}

// start starts the workers of a lane. m.living is held.
func (m *model) start(l *lane) {
	for i := range m.plan.workers {
		s := &slot{m: m, app: l.app, index: i, up: make(chan struct{}), over: make(chan struct{})}
		l.slots = append(l.slots, s)
		m.wg.Go(s.run)
	}
}

func (s *slot) run() {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			close(s.over)
			return
		}
		w := s.m.newWorker(s.app, s.index)
		ctx, cancel := context.WithCancel(context.Background())
		s.w, s.cancel, s.stopped = w, cancel, time.Time{}
		s.mu.Unlock()
		for again := true; again; {
			again = s.serve(ctx, w)
		}
		cancel()
		s.mu.Lock()
		s.w = nil
		down, up := s.down, s.up
		s.mu.Unlock()
		timer := time.NewTimer(down)
		select {
		case <-timer.C:
		case <-up:
		}
		timer.Stop()
	}
}

// stopBound is how long a stop may take: the drain, the rests of lists, closing the consumer,
// and as much again.
const stopBound = 2 * (drainTime + 3*time.Second)

// serve does one Serve, and reports whether to serve again.
func (s *slot) serve(ctx context.Context, w *worker.Worker) (again bool) {
	m := s.m
	run, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	s.cancelRun = cancel
	s.mu.Unlock()
	err := w.Serve(run)
	restarted := errors.Is(context.Cause(run), errRestarted)
	cancel(nil)
	s.mu.Lock()
	stopped := s.stopped
	s.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log("worker %d: Serve returned %v", s.index, err)
	switch {
	case ctx.Err() != nil && !stopped.IsZero() && time.Since(stopped) > stopBound:
		m.fail("stop", "Serve took %v to return", time.Since(stopped))
	case ctx.Err() == nil && restarted && err == nil:
		return true
	case ctx.Err() == nil:
		m.fail("stop", "Serve returned without an order: %v", err)
	case err != nil:
		m.fail("stop", "Serve returned an error: %v", err)
	}
	return false
}

// at returns the worker that serves; nil if none does.
func (s *slot) at() *worker.Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w
}

// restart restarts the worker, if it serves.
func (s *slot) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil && s.cancelRun != nil {
		s.cancelRun(errRestarted)
	}
}

// stop stops the worker, which is started again after down, or never.
func (s *slot) stop(down time.Duration, forGood bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	if forGood && !s.closed {
		s.closed = true
		s.wakeUp()
	}
	if s.w != nil && s.stopped.IsZero() {
		s.stopped = time.Now()
		s.cancel()
	}
}

// wakeUp ends a pause of s. s.mu is held.
func (s *slot) wakeUp() {
	select {
	case <-s.up:
	default:
		close(s.up)
	}
}

// startAll starts all workers that are down.
func (m *model) startAll() {
	for _, s := range m.slots() {
		s.mu.Lock()
		s.down = 0
		s.wakeUp()
		s.mu.Unlock()
	}
}

// stopAll stops all workers: they must end, and leave nothing reserved.
func (m *model) stopAll() {
	m.endSleep()
	for _, s := range m.slots() {
		s.stop(0, true)
	}
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.consumers {
		if !c.closed {
			m.fail("stop", "a consumer is not closed")
		}
	}
	for _, j := range m.jobs {
		if j.state == reserved && !j.lease.settled {
			m.fail("stop", "job %d is still reserved", j.id)
		}
	}
}

// reload replaces the workers of all lanes. Unless the credential stays, nothing is known of the
// new one.
func (m *model) reload(sameCredential bool) {
	m.living.Lock()
	defer m.living.Unlock()
	fresh := newStanding()
	for _, l := range m.lanes {
		with := fresh
		if sameCredential && !m.plan.forgetful {
			with = l.app.standing
		}
		app := m.newShared(l, with)
		m.mu.Lock()
		l.app = app
		m.mu.Unlock()
		if l.asleep {
			m.watch(l)
			continue
		}
		old := l.slots
		l.slots = nil
		for _, s := range old {
			s.stop(0, true)
		}
		m.start(l)
	}
}

// setHold holds the app, or ends the hold.
func (m *model) setHold(on bool) {
	m.mu.Lock()
	switch {
	case !on:
		m.held = time.Time{}
	case m.held.IsZero():
		m.held = time.Now()
	}
	m.mu.Unlock()
	for _, l := range m.lanes {
		if on {
			l.totals.Pause("model")
		} else {
			l.totals.Unpause()
		}
	}
}

// forgetProbes permits another probe: a worker that is stopped leaves its probe to the next.
func (m *model) forgetProbes() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lanes {
		l.app.standing.probed = time.Time{}
	}
}

// do does one step.
func (m *model) do(s step) {
	at := func() *slot {
		m.forgetProbes()
		if slots := m.slots(); len(slots) > 0 {
			return slots[s.n%len(slots)]
		}
		return &slot{} // all sleep
	}
	switch s.op {
	case opReplace:
		if w := at().at(); w != nil {
			w.Replace("model")
		}
		return
	case opRestart:
		at().restart()
		return
	case opStop:
		at().stop(s.d, false)
		return
	case opRate:
		m.setRate(s.n)
		return
	case opReload:
		m.reload(s.kind == 1)
		return
	case opHold:
		m.setHold(true)
		return
	case opUnhold:
		m.setHold(false)
		return
	case opResume:
		m.setHold(false)
		for _, l := range m.lanes {
			l.app.app.Resume()
		}
		return
	case opClock:
		if m.setClock != nil {
			m.setClock(s.d)
		}
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch s.op {
	case opPut:
		m.putJob(s)
	case opAPNs:
		m.apnsKind = s.kind
	case opDial:
		m.dialKind = s.kind
	case opConn:
		m.disturb(s.kind, s.d)
	case opQueue:
		m.setQueue(s.kind)
	case opSession:
		m.loseSessions()
	case opKick:
		m.kick()
	}
}

// staleTokens are the tokens that several jobs share.
const staleTokens = 8

func tokenName(n int) string { return fmt.Sprintf("%064x", n) }

// putJob puts a producer's job. m.mu is held.
func (m *model) putJob(s step) {
	r := m.rand("job", s.id)
	ref := fmt.Sprint("j", s.id)
	var tokens []string
	for i := range s.n {
		n := 1000*s.id + i
		token := tokenName(n)
		m.natures[token] = m.drawNature(s.kind, n)
		if s.kind != jobBad && s.kind != jobSingle && r.IntN(10) == 0 && i < staleTokens {
			token = tokenName(i)
		}
		tokens = append(tokens, token)
	}
	if s.kind == jobStale && s.n > 2 && r.IntN(3) == 0 {
		tokens[1] = "no token"
	}
	more, delay := "", time.Duration(0)
	if s.kind == jobStale && r.IntN(4) == 0 {
		more = fmt.Sprintf(`,"token_since":%d`, time.Now().Add(-time.Minute).Unix())
	}
	switch s.kind {
	case jobDelayed:
		delay = s.d
	case jobTTL:
		more += fmt.Sprintf(`,"ttl":%d`, 1+s.d/time.Second)
	case jobExpiration:
		more = fmt.Sprintf(`,"expiration":%d`, time.Now().Add(s.d).Unix())
	case jobGarbage:
		more = `,"title":`
	case jobUnknownKey:
		more = `,"colour":"red"`
	}
	m.expires[ref] = s.kind == jobTTL || s.kind == jobExpiration
	m.unsound[ref] = s.kind == jobGarbage || s.kind == jobUnknownKey
	to := fmt.Sprintf(`"tokens":["%s"]`, strings.Join(tokens, `","`))
	if s.n == 1 {
		to = fmt.Sprintf(`"token":"%s"`, tokens[0])
	}
	body := fmt.Sprintf(`{%s,"title":"%s","ref":"%s"%s}`, to, ref, ref, more)
	if s.kind == jobLarge {
		m.limits[ref] = max(1000, len(body)/3)
	}
	m.add(m.lanes[s.lane%len(m.lanes)], []byte(body), delay)
}

// drawNature draws how APNs sees a token of a job of that kind.
func (m *model) drawNature(kind, n int) nature {
	x := m.rand("nature", n).IntN(20)
	switch {
	case kind == jobBad:
		return badToken
	case kind == jobStale && x < 4, x == 0:
		return unregistered
	case kind == jobStale && x < 6:
		return badToken
	case kind == jobStale && x < 8:
		return unacceptable
	}
	return good
}
