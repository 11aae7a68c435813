package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"propeller/queue"
)

// The model's queue: a tube for each lane, in the order of its jobs' ids, consumers that may
// reserve ahead, and reservations that can be lost. All of it is under model.mu.

type jobState int

const (
	delayed jobState = iota
	ready
	reserved
	buried
	gone
)

// job is a job in the queue.
type job struct {
	id       int
	lane     *lane
	body     []byte
	ref      string
	held     []*push // its pushes; none if it cannot be read
	sound    bool    // it can be read
	state    jobState
	put, due time.Time // due: when it became ready, not counting releases without a pause
	attempts int
	kicked   bool
	lease    *lease // while it is reserved
}

func (j *job) name() string { return fmt.Sprint("q/", j.id) }

// consumer is the consumer of one worker.
type consumer struct {
	m      *model
	lane   *lane
	want   int      // jobs that it may reserve
	kept   []*lease // reserved and not yet received
	bell   chan struct{}
	busy   int // settle calls under way
	leases map[*lease]struct{}
	closed bool
}

// lease is one reservation.
type lease struct {
	c       *consumer
	job     *job
	settled bool
	lost    bool
}

// ttr is when a job comes again whose settling the queue refused.
const ttr = 30 * time.Second

// add stores a job. m.mu is held.
func (m *model) add(l *lane, body []byte, delay time.Duration) *job {
	m.lastID++
	j := &job{id: m.lastID, lane: l, body: body, put: time.Now()}
	m.jobs[j.id] = j
	m.open(j)
	m.giveBack(j, delay)
	m.log("job %d put: ref %s, %d tokens, delay %v", j.id, j.ref, len(j.held), delay)
	return j
}

// giveBack makes a job ready, after a pause. m.mu is held.
func (m *model) giveBack(j *job, after time.Duration) {
	j.lease = nil
	if after <= 0 {
		if j.due.IsZero() {
			j.due = time.Now()
		}
		j.state = ready
		m.serve()
		m.callFor(j.lane)
		return
	}
	j.state = delayed
	time.AfterFunc(after, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if j.state == delayed {
			j.due = time.Time{}
			m.giveBack(j, 0)
		}
	})
}

// serve hands ready jobs to consumers that want some. m.mu is held.
func (m *model) serve() {
	if m.away() {
		return
	}
	all := m.in(ready)
	for _, l := range m.lanes {
		m.serveLane(l, all)
	}
}

func (m *model) serveLane(l *lane, jobs []*job) {
	jobs = slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return j.lane != l })
	for len(jobs) > 0 {
		served := false
		for range m.consumers {
			m.turn = (m.turn + 1) % len(m.consumers)
			c := m.consumers[m.turn]
			if len(jobs) > 0 && c.lane == l && c.want > 0 && !c.closed {
				c.reserve(jobs[0])
				jobs, served = jobs[1:], true
			}
		}
		if !served {
			return
		}
	}
}

// in returns the jobs in a state, in their order. m.mu is held.
func (m *model) in(s jobState) []*job {
	var jobs []*job
	for _, j := range m.jobs {
		if j.state == s {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(a, b *job) int { return a.id - b.id })
	return jobs
}

// reserve keeps a job for the next Receive. m.mu is held.
func (c *consumer) reserve(j *job) {
	j.state, j.lease = reserved, &lease{c: c, job: j}
	j.attempts++
	c.want--
	c.kept = append(c.kept, j.lease)
	c.leases[j.lease] = struct{}{}
	ring(c.bell)
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// lose ends a reservation: its job is ready again. m.mu is held.
func (l *lease) lose() {
	if l.lost || l.job.lease != l {
		return
	}
	l.lost = true
	delete(l.c.leases, l)
	l.c.m.giveBack(l.job, 0)
}

func (m *model) consume(l *lane) *consumer {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &consumer{m: m, lane: l, bell: make(chan struct{}, 1), leases: make(map[*lease]struct{})}
	m.consumers = append(m.consumers, c)
	return c
}

func (c *consumer) receive(ctx context.Context, n int) ([]*lease, error) {
	m := c.m
	m.count(rateReceive)
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		if c.closed {
			return nil, errors.New("model: the consumer is closed")
		}
		if err := ctx.Err(); err != nil && m.queueKind != queueDeaf {
			return nil, err
		}
		c.want = max(0, n-len(c.kept))
		m.serve()
		if len(c.kept) > 0 {
			out := slices.Clone(c.kept[:min(n, len(c.kept))])
			c.kept = c.kept[len(out):]
			if !m.plan.prefetch {
				c.want = 0
			}
			return out, nil
		}
		m.mu.Unlock()
		c.await(ctx)
		m.mu.Lock()
		if !m.plan.prefetch {
			c.want = 0
		}
	}
}

// await waits for a job or the end of ctx; a deaf queue ignores ctx.
func (c *consumer) await(ctx context.Context) {
	c.m.mu.Lock()
	over, changed := ctx.Done(), c.m.queueChanged
	if c.m.queueKind == queueDeaf {
		over = nil
	}
	c.m.mu.Unlock()
	select {
	case <-over:
	case <-changed:
	case <-c.bell:
	}
}

func (c *consumer) pause() {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.stopReserving()
}

func (c *consumer) stopReserving() {
	c.want = 0
	kept := c.kept
	c.kept = nil
	for _, l := range kept {
		l.lose()
	}
}

func (c *consumer) err() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.away() {
		return fmt.Errorf("model: %w", queue.ErrUnavailable)
	}
	return nil
}

func (c *consumer) close(ctx context.Context) error {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	c.closed = true
	ring(c.bell)
	c.stopReserving()
	for c.busy > 0 && ctx.Err() == nil {
		m.mu.Unlock()
		_ = sleep(ctx, 10*time.Millisecond)
		m.mu.Lock()
	}
	for _, l := range c.held() {
		l.lose()
	}
	m.consumers = slices.DeleteFunc(m.consumers, func(other *consumer) bool { return other == c })
	return ctx.Err()
}

// loseSessions makes all reserved jobs ready again. m.mu is held.
func (m *model) loseSessions() {
	m.fault()
	var lost []*lease
	for _, c := range m.consumers {
		c.kept = nil
		lost = append(lost, c.held()...)
	}
	for _, l := range lost {
		l.lose()
	}
}

// held returns the consumer's reservations, in the order of the jobs. m.mu is held.
func (c *consumer) held() []*lease {
	return slices.SortedFunc(maps.Keys(c.leases), func(a, b *lease) int { return a.job.id - b.job.id })
}

// away reports whether nobody can reach the queue. m.mu is held.
func (m *model) away() bool { return m.queueKind == queueAway || m.queueKind == queueAwayAndLost }

// setQueue changes how the queue answers. m.mu is held.
func (m *model) setQueue(kind int) {
	m.queueKind = kind
	if kind == queueAwayAndLost {
		m.loseSessions()
	}
	close(m.queueChanged)
	m.queueChanged = make(chan struct{})
	m.serve()
	for _, l := range m.lanes {
		m.callFor(l)
	}
}

// reach waits until the queue can be reached; m.mu is not held.
func (m *model) reach(ctx context.Context) error {
	for {
		m.mu.Lock()
		away, changed := m.away(), m.queueChanged
		m.mu.Unlock()
		if !away {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// putRest is a put by a worker.
func (m *model) putRest(ctx context.Context, l *lane, body []byte, delay time.Duration) (string, error) {
	m.count(ratePut)
	if err := m.takeTime(ctx); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ref, _, err := readBody(body)
	switch {
	case err != nil:
		m.fail("wrong", "a rest of a job cannot be read: %s", body)
		return "", queue.ErrRejected
	case m.away(), m.queueKind == queueRefusesPuts:
		m.fault()
		return "", fmt.Errorf("model: put: %w", queue.ErrUnavailable)
	case m.limits[ref] > 0 && len(body) > m.limits[ref]:
		return "", fmt.Errorf("model: put: %w", queue.ErrRejected)
	case m.queueKind == queueUncertainPuts:
		m.fault()
		m.puts[ref]++
		if m.chance("put "+ref, m.puts[ref], 3) {
			m.add(l, body, delay)
		}
		return "", fmt.Errorf("model: put: %w: %w", queue.ErrUnavailable, queue.ErrUncertain)
	}
	return m.add(l, body, delay).name(), nil
}

type stat struct {
	attempt  int
	age      time.Duration
	kicked   bool
	priority uint32
}

func (l *lease) stat(ctx context.Context) (stat, error) {
	m := l.c.m
	m.count(rateAsk)
	m.mu.Lock()
	kind := m.queueKind
	m.mu.Unlock()
	takes := time.Millisecond
	if kind == queueSlowStat {
		takes = 5 * time.Second
	}
	err := sleep(ctx, takes)
	m.mu.Lock()
	defer m.mu.Unlock()
	if kind == queueSlowStat || kind == queueFailsStat {
		m.fault()
	}
	switch {
	case err != nil:
		return stat{}, err
	case m.away(), kind == queueFailsStat:
		return stat{}, fmt.Errorf("model: stat: %w", queue.ErrUnavailable)
	case l.lost:
		return stat{}, fmt.Errorf("model: stat: %w", queue.ErrLost)
	}
	return stat{attempt: l.job.attempts, age: time.Since(l.job.put), kicked: l.job.kicked}, nil
}

func (l *lease) touch(ctx context.Context) error {
	m := l.c.m
	m.count(rateAsk)
	if err := sleep(ctx, time.Millisecond); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.away():
		return fmt.Errorf("model: touch: %w", queue.ErrUnavailable)
	case l.lost:
		return fmt.Errorf("model: touch: %w", queue.ErrLost)
	}
	return nil
}

// kick kicks all buried jobs. m.mu is held.
func (m *model) kick() {
	for _, j := range m.in(buried) {
		j.kicked = true
		m.reopen(j)
		j.due = time.Time{}
		m.giveBack(j, 0)
	}
}

// takeTime is how long a put takes. m.mu is not held.
func (m *model) takeTime(ctx context.Context) error {
	m.mu.Lock()
	takes := time.Millisecond
	if m.queueKind == queueSlowSettles {
		m.fault()
		takes = 3 * time.Second
	}
	m.mu.Unlock()
	return sleep(ctx, takes)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
