package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"propeller/apnsconn"
	"propeller/worker"
)

// conn is a connection to the model's APNs. All of it is under model.mu.
type conn struct {
	m        *model
	app      *shared
	id       int
	onChange func()

	flights  map[*flight]struct{} // pushes under way
	narrow   bool                 // SETTINGS allow one stream until the first answer
	answered bool
	usable   bool
	bounces  time.Duration // if not 0: the next push ends the connection with a GOAWAY that covers nothing, then APNs is away this long
	bouncing bool
	ending   bool
	reason   error
	over     chan struct{}
	wg       sync.WaitGroup
}

// flight is a push under way.
type flight struct {
	push *push
	cut  chan answer // cap 1: how the push ends when its connection does
}

// answer is how a push ends.
type answer struct {
	apnsconn.Outcome
	after   time.Duration
	taken   bool // the device gets it
	natural bool // a healthy APNs answers like this
	ends    int  // 1 + how its connection ends; 0 if that goes on
}

var errModel = errors.New("model: network is unreachable")

func (m *model) dial(ctx context.Context, app *shared, onChange func()) (*conn, error) {
	m.count(rateDial)
	m.mu.Lock()
	m.dials++
	r := m.rand("dial", m.dials)
	kind := m.dialKind
	if time.Now().Before(m.awayUntil) {
		kind = dialFails
	}
	m.mu.Unlock()
	takes := time.Duration(1+r.IntN(100)) * time.Millisecond
	if kind == dialHangs {
		takes = 10 * time.Second
	}
	err := sleep(ctx, takes)
	m.mu.Lock()
	defer m.mu.Unlock()
	if kind != dialWell {
		m.fault()
	}
	switch {
	case err != nil:
		return nil, err
	case kind == dialCredential:
		return nil, fmt.Errorf("model: dial: %w", apnsconn.ErrCredential)
	case kind != dialWell:
		return nil, fmt.Errorf("model: dial: %w", errModel)
	}
	c := &conn{
		m: m, app: app, id: m.dials, onChange: onChange, flights: make(map[*flight]struct{}),
		narrow: r.IntN(2) == 0, usable: true, bounces: m.bounceNext, over: make(chan struct{}),
	}
	m.bounceNext = 0
	m.conns[c] = struct{}{}
	m.log("conn %d opened, narrow %v, bounces %v", c.id, c.narrow, c.bounces)
	return c, nil
}

func (c *conn) send(token string, payload []byte, done func(apnsconn.Outcome)) {
	m := c.m
	m.count(rateSend)
	broken, paused, since := c.app.stopped()
	m.mu.Lock()
	m.mayPush(c.app.standing, broken || paused, since)
	c.app.lane.meter(m)
	p := m.pushes[pushKey{refOf(payload), token}]
	if p == nil {
		m.fail("wrong", "a push that nobody asked for: token …%s, payload %s", tail(token), payload)
	}
	if err := c.refusal(); err != nil || p == nil {
		m.mu.Unlock()
		done(apnsconn.Outcome{Class: apnsconn.NotSent, Err: err})
		return
	}
	p.tries++
	f := &flight{push: p, cut: make(chan answer, 1)}
	c.flights[f] = struct{}{}
	a := m.answer(p)
	switch {
	case c.bounces > 0 && !c.bouncing:
		c.bouncing = true
		a = answer{after: time.Duration(1+m.rand("bounce", c.id).IntN(50)) * time.Millisecond, ends: 1 + connBounces}
		a.Class, a.Err = apnsconn.NotSent, goAway(0)
	case c.bouncing:
		a.after = time.Hour // the connection ends first
	}
	c.wg.Go(func() { c.fly(f, a, done) })
	m.mu.Unlock()
}

// brakeTime is how long pushes already under way may still begin after an app is held or
// stopped: the queue may be slow to answer about them.
const brakeTime = 10 * time.Second

// mayPush fails if a held app pushes, or a broken or guarded one more than once a minute.
// m.mu is held.
func (m *model) mayPush(app *standing, stopped bool, since time.Time) {
	if !m.held.IsZero() && time.Since(m.held) > brakeTime {
		m.fail("brake", "a push of an app that has been held for %v", time.Since(m.held))
	}
	if !stopped || time.Since(since) < brakeTime {
		return
	}
	if last := time.Since(app.probed); app.probed.After(since) && last < worker.ProbeEvery-brakeTime {
		m.fail("brake", "a push of a stopped app %v after the last one", last)
	}
	app.probed = time.Now()
}

// refusal says why a push is not accepted. m.mu is held.
func (c *conn) refusal() error {
	switch {
	case !c.usable:
		return apnsconn.ErrClosed
	case len(c.flights) >= c.m.plan.inFlight:
		return apnsconn.ErrFull
	}
	return nil
}

// fly plays one push, from its sending to its end.
func (c *conn) fly(f *flight, a answer, done func(apnsconn.Outcome)) {
	m := c.m
	timer := time.NewTimer(a.after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case a = <-f.cut:
	}
	broken, paused, _ := c.app.stopped()
	m.mu.Lock()
	delete(c.flights, f)
	p := f.push
	if a.Status != 0 {
		c.answered = true
	}
	if a.taken {
		p.taken++
	}
	m.right = m.right || a.Status == 200 || a.Status == 410
	switch {
	case a.Class == apnsconn.Delivered:
		p.delivered = true
	case a.Class == apnsconn.Token:
		m.calledBad[p.token] = true
		if a.Status == 400 {
			p.lastBad = time.Now()
		}
	}
	if !a.natural || paused && a.Status != 200 && a.Status != 410 || broken && a.Class == apnsconn.Credential {
		m.fault()
	}
	m.log("conn %d: ref %s token …%s: %v %d %s", c.id, p.ref, tail(p.token), a.Class, a.Status, a.Reason)
	if a.ends != 0 {
		c.end(a.ends - 1)
	}
	m.mu.Unlock()
	done(a.Outcome)
	c.onChange()
}

func goAway(last uint32) error {
	return &apnsconn.GoAwayError{LastStreamID: last, Reason: "model"}
}

// end makes the connection end in one of the ways. m.mu is held.
func (c *conn) end(how int) {
	m := c.m
	m.fault()
	if c.bouncing {
		how = connBounces
	}
	if how == connBounces {
		m.awayUntil = later(m.awayUntil, time.Now().Add(c.bounces))
	}
	for f := range c.flights {
		var a answer
		r := f.rand("end", c)
		a.Class, a.Err, a.taken = apnsconn.Unknown, errModel, r.IntN(2) == 0
		switch {
		case how == connBounces:
			a.Class, a.Err, a.taken = apnsconn.NotSent, goAway(0), false
		case how == connGoAway && r.IntN(2) == 0:
			continue // already answered
		case how == connGoAway:
			a.Class, a.Err, a.taken = apnsconn.NotSent, goAway(7), false
		}
		f.answer(a)
	}
	reason := errModel
	switch how {
	case connBounces:
		reason = goAway(0)
	case connGoAway:
		reason = goAway(7)
	}
	c.retire(reason)
}

// rand draws how a push ends when its connection does.
func (f *flight) rand(what string, c *conn) *rand.Rand {
	return c.m.rand(what+f.push.ref+f.push.token, f.push.tries)
}

func (f *flight) answer(a answer) {
	select {
	case f.cut <- a:
	default:
	}
}

// retire refuses new pushes, and ends the connection with the last push under way. m.mu is
// held.
func (c *conn) retire(reason error) {
	c.usable = false
	if c.ending {
		return
	}
	c.ending, c.reason = true, reason
	delete(c.m.conns, c)
	c.m.log("conn %d ends: %v", c.id, reason)
	go func() {
		c.wg.Wait()
		close(c.over)
		c.onChange()
	}()
}

func (c *conn) Free() int {
	c.m.look()
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	switch {
	case !c.usable:
		return 0
	case c.narrow && !c.answered:
		return max(0, 1-len(c.flights))
	}
	return max(0, c.m.plan.inFlight-len(c.flights))
}

func (c *conn) Streams() (open, limit int) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return len(c.flights), c.m.plan.inFlight
}

func (c *conn) Usable() bool {
	c.m.look()
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return c.usable
}

// Close ends the connection; the outcome of pushes under way is unknown.
func (c *conn) Close() error {
	c.m.mu.Lock()
	for f := range c.flights {
		r := f.rand("close", c)
		f.answer(answer{Outcome: apnsconn.Outcome{Class: apnsconn.Unknown, Err: apnsconn.ErrClosed}, taken: r.IntN(2) == 0, natural: true})
	}
	c.retire(apnsconn.ErrClosed)
	c.m.mu.Unlock()
	<-c.over
	return nil
}

// Drain ends the connection once the pushes under way have ended.
func (c *conn) Drain(context.Context) error {
	c.m.mu.Lock()
	c.retire(apnsconn.ErrClosed)
	c.m.mu.Unlock()
	<-c.over
	return nil
}

func (c *conn) Done() <-chan struct{} { return c.over }

func (c *conn) Err() error {
	select {
	case <-c.over:
		return c.reason
	default:
		return nil
	}
}

// disturb makes something happen to all connections. m.mu is held.
func (m *model) disturb(how int, d time.Duration) {
	m.fault()
	switch how {
	case connBounces:
		for c := range m.conns {
			c.bounces = d
		}
		if len(m.conns) == 0 {
			m.bounceNext = d
		}
		return
	case connAway:
		m.awayUntil = later(m.awayUntil, time.Now().Add(d))
	}
	for c := range m.conns {
		c.end(how)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// answer draws the answer to a push that is sent now. m.mu is held.
func (m *model) answer(p *push) answer {
	r := m.rand("push "+p.ref+tail(p.token), p.tries)
	a := answer{after: time.Duration(1+r.IntN(20)) * time.Millisecond}
	kind := m.apnsKind
	if kind == apnsMixture {
		kind = pick(r, apnsWell, apnsWell, apnsWell, apnsThrottled, apnsUnavailable, apnsRefusesAll, apnsUnknown)
	}
	switch kind {
	case apnsThrottled:
		a.Class, a.Status, a.Reason = apnsconn.Throttled, 429, "TooManyRequests"
		a.RetryAfter = pick(r, 0, 0, 30*time.Second)
	case apnsUnavailable:
		a.Class, a.Status, a.Reason = apnsconn.Unavailable, 503, "ServiceUnavailable"
	case apnsCredential:
		a.Class, a.Status, a.Reason = apnsconn.Credential, 403, "InvalidProviderToken"
	case apnsRefusesAll:
		a.refuse()
	case apnsRefusesSome:
		if r.IntN(3) == 0 {
			a.refuse()
			return a
		}
		a.natural = true
		a.byNature(p.nature, r)
	case apnsSlow:
		a.slow(p.nature, r)
	case apnsWrongEnvironment:
		a.byNature(badToken, r)
	case apnsShutdown:
		a.Class, a.Status, a.Reason, a.ends = apnsconn.Unavailable, 503, "Shutdown", 1+connGoAway
	case apnsUnknown:
		a.unknown(time.Duration(r.IntN(20000))*time.Millisecond, r)
	case apnsLosing:
		a.natural = true
		a.byNature(p.nature, r)
		if r.IntN(6) == 0 {
			a.ends = 1 + pick(r, connLost, connGoAway)
		}
	default:
		a.natural = true
		a.byNature(p.nature, r)
	}
	return a
}

func (a *answer) refuse() {
	a.Class, a.Err = apnsconn.NotSent, errors.New("model: stream refused")
}

func (a *answer) unknown(after time.Duration, r *rand.Rand) {
	a.Class, a.Err, a.taken, a.after = apnsconn.Unknown, apnsconn.ErrTimeout, r.IntN(2) == 0, after
}

// pushTimeout is when a connection gives up on a push.
const pushTimeout = 20 * time.Second

func (a *answer) slow(n nature, r *rand.Rand) {
	a.byNature(n, r)
	if a.after = time.Duration(r.IntN(30000)) * time.Millisecond; a.after < pushTimeout {
		return
	}
	*a = answer{}
	a.unknown(pushTimeout, r)
	if r.IntN(2) == 0 {
		a.ends = 1 + connLost
	}
}

func (a *answer) byNature(n nature, r *rand.Rand) {
	switch n {
	case good:
		a.Class, a.Status, a.taken = apnsconn.Delivered, 200, true
	case unregistered:
		a.Class, a.Status, a.Reason = apnsconn.Token, 410, "Unregistered"
		if r.IntN(2) == 0 {
			a.Since = time.Now().Add(-time.Hour)
		}
	case badToken:
		a.Class, a.Status, a.Reason = apnsconn.Token, 400, "BadDeviceToken"
	case unacceptable:
		a.Class, a.Status, a.Reason = apnsconn.Rejected, 400, "BadMessageId"
	}
}
