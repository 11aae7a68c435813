package worker_test

import (
	"fmt"
	"time"

	"propeller/worker"
)

// lane is one app of several with the same credential. It sleeps and wakes as the supervisor does
// it in the daemon: all its workers are stopped when it has had no work for a while and its tube is
// empty; once they have ended the queue watches its tube, and calls when that has a job.
type lane struct {
	tube   string
	totals *worker.Totals
	app    *shared // the one at work; changed under model.living and model.mu

	// Under model.living.
	slots  []*slot
	asleep bool
	slept  int // how often

	// Under model.mu.
	watched bool          // by the queue, which then calls once
	called  chan struct{} // cap 1
	excess  float64       // pushes beyond what max_rate has let pass since
	metered time.Time
	rate    int
}

// addLanes makes the lanes.
func (m *model) addLanes() {
	with := newStanding()
	for i := range max(1, m.plan.lanes) {
		l := &lane{tube: fmt.Sprint(modelTopic, ".", i), totals: new(worker.Totals), called: make(chan struct{}, 1)}
		l.app = m.newShared(l, with)
		m.lanes = append(m.lanes, l)
	}
	m.setRate(m.plan.rate)
}

func (m *model) laneOf(tube string) *lane {
	for _, l := range m.lanes {
		if l.tube == tube {
			return l
		}
	}
	panic("model: no lane has the tube " + tube)
}

// startLanes starts the workers of all lanes, and what makes those sleep and wake.
func (m *model) startLanes() {
	m.living.Lock()
	defer m.living.Unlock()
	for _, l := range m.lanes {
		m.start(l)
		if m.plan.sleep > 0 {
			m.wg.Go(func() { m.sleepAndWake(l) })
		}
	}
}

// slots returns the slots of all lanes that are awake.
func (m *model) slots() (all []*slot) {
	m.living.Lock()
	defer m.living.Unlock()
	for _, l := range m.lanes {
		all = append(all, l.slots...)
	}
	return all
}

// endSleep ends what makes lanes sleep and wake.
func (m *model) endSleep() {
	m.living.Lock()
	defer m.living.Unlock()
	close(m.over)
}

// sleepAndWake puts a lane to sleep when it has had no work, and wakes it when the queue calls.
func (m *model) sleepAndWake(l *lane) {
	tick := max(m.plan.sleep/4, 300*time.Millisecond)
	var quietSince time.Time
	var received int64
	for {
		timer := time.NewTimer(tick)
		if l.sleeps(m) {
			timer.Stop() // only a call wakes it
		}
		select {
		case <-m.over:
			timer.Stop()
			return
		case <-l.called:
			timer.Stop()
			m.wake(l)
			quietSince = time.Time{}
			continue
		case <-timer.C:
		}
		n, quiet := m.quietLane(l)
		switch {
		case !quiet || n != received:
			quietSince, received = time.Time{}, n
		case quietSince.IsZero():
			quietSince = time.Now()
		case time.Since(quietSince) >= m.plan.sleep && m.empty(l):
			m.putToSleep(l)
			quietSince = time.Time{}
		}
	}
}

func (l *lane) sleeps(m *model) bool {
	m.living.Lock()
	defer m.living.Unlock()
	return l.asleep
}

// quietLane reports whether a lane's workers have nothing at hand, and how many jobs they have received.
func (m *model) quietLane(l *lane) (received int64, quiet bool) {
	m.living.Lock()
	defer m.living.Unlock()
	quiet = true
	for _, s := range l.slots {
		w := s.at()
		if w == nil {
			return 0, false
		}
		st := w.Status()
		received += st.Received
		quiet = quiet && st.Serving && st.Reserved == 0 && st.QueueErr == nil
	}
	return received, quiet
}

// empty asks the queue whether a lane's tube has nothing for a consumer.
func (m *model) empty(l *lane) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away() {
		return false
	}
	for _, j := range m.jobs {
		if j.lane == l && (j.state == ready || j.state == reserved) {
			return false
		}
	}
	return true
}

// putToSleep stops a lane's workers. Jobs may be put at any moment while they end.
func (m *model) putToSleep(l *lane) {
	m.forgetProbes()
	m.living.Lock()
	select {
	case <-m.over:
		m.living.Unlock()
		return
	default:
	}
	m.log("%s falls asleep", l.tube)
	slots := l.slots
	l.slots, l.asleep = nil, true
	l.slept++
	slept := l.slept
	m.living.Unlock()
	for _, s := range slots {
		s.stop(0, true)
	}
	m.wg.Go(func() {
		for _, s := range slots {
			<-s.over
		}
		m.living.Lock()
		defer m.living.Unlock()
		if l.asleep && l.slept == slept {
			m.watch(l)
		}
	})
}

// watch makes the queue call for a lane when its tube has a job, or has one already. m.living is
// held.
func (m *model) watch(l *lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.watched = true
	m.callFor(l)
}

// callFor calls for a lane if it is watched and has a job. m.mu is held.
func (m *model) callFor(l *lane) {
	if !l.watched || m.away() {
		return
	}
	for _, j := range m.jobs {
		if j.lane == l && j.state == ready {
			l.watched = false
			ring(l.called)
			return
		}
	}
}

// wake starts the workers of a lane for which the queue has called.
func (m *model) wake(l *lane) {
	m.living.Lock()
	defer m.living.Unlock()
	select {
	case <-m.over:
		return
	default:
	}
	if l.asleep {
		m.log("%s wakes", l.tube)
		l.asleep = false
		m.start(l)
	}
}

// setRate sets max_rate of all lanes.
func (m *model) setRate(rate int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lanes {
		l.totals.SetMaxRate(rate)
		l.rate, l.excess = rate, 0
	}
}

// meter fails if a lane pushes faster than max_rate. m.mu is held.
func (l *lane) meter(m *model) {
	if l.rate == 0 {
		return
	}
	now, rate := time.Now(), float64(l.rate)
	l.excess = max(0, l.excess-now.Sub(l.metered).Seconds()*rate) + 1
	l.metered = now
	// A burst, and what workers take that wake late.
	burst := max(1, rate/10)
	if most := burst + float64(2*m.plan.workers)*max(1, rate*.005) + 1; l.excess > most {
		m.fail("rate", "%.0f pushes at once at a max_rate of %d", l.excess, l.rate)
	}
}

// paceTime is how long max_rate may delay a push. m.mu is held.
func (m *model) paceTime() time.Duration {
	rate := m.lanes[0].rate
	if rate == 0 {
		return 0
	}
	return time.Duration(3*len(m.pushes)/rate) * time.Second
}
