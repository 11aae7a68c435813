package worker

import (
	"math"
	"slices"
	"sync"
	"time"
)

// limiter holds the workers of one app to its max_rate. It is a bucket of permissions, one for
// each request to APNs, that fills at the rate. Unused ones add up to a burst.
//
// Workers that must wait stand in line. Each waits until the bucket has enough for those before it
// and for itself, and then takes its own; whoever takes goes to the end of the line. So each wakes
// once for what it takes, and gets its share. A worker that leaves the line, or that never comes
// back, holds nobody up: what it does not take stays in the bucket.
//
// look says what is permitted and changes nothing. take uses up permissions, when pushes are sent.
type limiter struct {
	rate  float64 // permissions a second
	burst float64

	mu    sync.Mutex
	have  float64   // permissions, at
	at    time.Time // the last change
	line  []*turn   // of the workers that wait; the first came first
	taken time.Time // when a permission was taken last, or the first worker began to wait
}

// turn is a worker's place in the line. It belongs to the limiter.
type turn struct {
	want    float64 // how many permissions it waits for
	waiting bool    // it is in the line
}

const (
	// burstTime is how long unused permissions add up.
	burstTime = time.Second / 10
	// turnTime is how long the permissions take at most that a worker waits for at a time. It is a
	// trade of wake-ups against evenness, and less than burstTime.
	turnTime = 5 * time.Millisecond
	// paceAhead is how far ahead of its permissions a worker reserves jobs.
	paceAhead = time.Second
)

// newLimiter returns a limiter that permits a whole burst now.
func newLimiter(rate int, now time.Time) *limiter {
	l := &limiter{rate: float64(rate), at: now, taken: now}
	l.burst = max(1, math.Floor(l.rate*burstTime.Seconds()))
	l.have = l.burst
	return l
}

// follow makes l go on from where the limiter with the rate before was.
func (l *limiter) follow(was *limiter, now time.Time) {
	was.mu.Lock()
	defer was.mu.Unlock()
	l.have = min(l.burst, max(0, was.holds(now)))
}

// holds is how many permissions the bucket has at now. While workers wait it takes more than a
// burst, so that those who wake late lose nothing. l.mu is held.
func (l *limiter) holds(now time.Time) float64 {
	return min(l.have+l.rate*max(0, now.Sub(l.at).Seconds()), l.burst+l.ahead(nil))
}

// ahead is how many permissions those before t in the line wait for. l.mu is held.
func (l *limiter) ahead(t *turn) (n float64) {
	for _, o := range l.line {
		if o == t {
			break
		}
		n += o.want
	}
	return n
}

// least is how many permissions a worker with so many pushes waits for.
func (l *limiter) least(pushes int) float64 {
	return max(1, min(float64(pushes), math.Floor(l.rate*turnTime.Seconds())))
}

// nearly makes up for sums of fractions that stay below a whole number.
const nearly = 1e-6

// look says how many of a worker's pushes may be sent now; if none may, when the next may.
func (l *limiter) look(t *turn, pushes int, now time.Time) (n int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have, ahead, least := l.holds(now), l.ahead(t), l.least(pushes)
	if have+nearly >= ahead+least {
		return l.share(t, pushes, have-ahead), time.Time{}
	}
	return 0, l.when(ahead+least-have, now)
}

// lookAhead says how many pushes a worker without any may reserve jobs for: what the rate permits
// it within paceAhead, if so many workers share it. If that is none, at says when it may.
func (l *limiter) lookAhead(workers int, now time.Time) (n int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	will := l.holds(now) - l.ahead(nil) + l.rate*paceAhead.Seconds()
	if will+nearly < 1 {
		return 0, l.when(1-will, now)
	}
	return max(1, int(will+nearly)/max(1, workers)), time.Time{}
}

// when is the time at which the bucket will have got n more.
func (l *limiter) when(n float64, now time.Time) time.Time {
	return now.Add(time.Duration(math.Ceil(n / l.rate * float64(time.Second))))
}

// take uses up permissions for pushes that are sent now, and ends the worker's turn. Another worker may
// have taken some since look: then it takes fewer.
func (l *limiter) take(t *turn, pushes int, now time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.holds(now)
	if n = l.share(t, pushes, have-l.ahead(t)); n <= 0 {
		return 0
	}
	l.quit(t)
	l.have, l.at, l.taken = max(0, have-float64(n)), now, now
	return n
}

// share is how many of the permissions left to it a worker takes: not those of the others in line.
// l.mu is held.
func (l *limiter) share(t *turn, pushes int, left float64) int {
	n := min(pushes, int(left+nearly))
	if len(l.line) > 1 || len(l.line) == 1 && !t.waiting {
		n = min(n, int(l.least(pushes)))
	}
	return n
}

// giveBack returns permissions that were taken just now and not used.
func (l *limiter) giveBack(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.have += float64(n)
}

// wait puts a worker with so many pushes into the line, unless it is there.
func (l *limiter) wait(t *turn, pushes int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.have, l.at = l.holds(now), now
	if t.waiting {
		return
	}
	if len(l.line) == 0 {
		l.taken = now
	}
	t.want, t.waiting = l.least(pushes), true
	l.line = append(l.line, t)
}

// leave takes a worker that sends nothing for now out of the line.
func (l *limiter) leave(t *turn, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.have, l.at = l.holds(now), now
	l.quit(t)
}

// quit takes a worker out of the line. l.mu is held.
func (l *limiter) quit(t *turn) {
	if t.waiting {
		t.waiting = false
		l.line = slices.DeleteFunc(l.line, func(o *turn) bool { return o == t })
	}
}

// moves reports whether workers that wait get permissions: if none was taken for long, the rate
// does not explain why they wait.
func (l *limiter) moves(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now.Sub(l.taken) < 10*time.Second
}

// SetMaxRate holds the app's workers together to so many requests to APNs a second, from now on; 0
// means that nothing does. It returns the rate before.
func (t *Totals) SetMaxRate(rate int) (before int) {
	was := t.limiter.Load()
	if was != nil {
		before = int(was.rate)
	}
	switch {
	case rate == before:
		return before
	case rate == 0:
		t.limiter.Store(nil)
	default:
		now := time.Now()
		l := newLimiter(rate, now)
		if was != nil {
			l.follow(was, now)
		}
		t.limiter.Store(l)
	}
	t.mailboxes.ring()
	return before
}

// pace holds back what max_rate does not permit yet. Like plan it has no side effects.
func (r *run) pace(p *plan, l *limiter, now time.Time) {
	switch {
	case p.send > 0:
		ahead := int(l.rate * paceAhead.Seconds())
		unsent := r.unsentUpTo(max(p.send, ahead+1))
		n, at := l.look(&r.turn, min(p.send, unsent), now)
		if n == 0 {
			p.paced, p.cause, p.until = min(p.send, unsent), MaxRateReached, sooner(p.until, at)
			p.pause = unsent > ahead // jobs that the consumer has reserved ahead go back
		}
		p.send = n
	case p.receive > 0:
		n, at := l.lookAhead(r.app.mailboxes.len(), now)
		if n == 0 {
			p.cause, p.until, p.pause = MaxRateReached, sooner(p.until, at), true
		}
		p.receive = min(p.receive, n)
	}
}

// unsentUpTo is how many tokens wait to be sent, up to most.
func (r *run) unsentUpTo(most int) (n int) {
	for _, t := range r.sendq {
		if n += len(t.unsent); n >= most {
			return most
		}
	}
	return n
}

// stand puts the run into the line of the limiter, or takes it out, as the plan says.
func (r *run) stand(l *limiter, p *plan, now time.Time) {
	if was := r.waitsIn; was != nil && (was != l || p.paced == 0 && p.send == 0) {
		was.leave(&r.turn, now)
		r.waitsIn = nil
	}
	if l != nil && p.paced > 0 {
		l.wait(&r.turn, p.paced, now)
		r.waitsIn = l
	}
}

// sendPaced sends up to n pushes, as far as the limiter permits. Those whose outcome is known
// already need no permission.
func (r *run) sendPaced(l *limiter, n int, now time.Time) {
	n = l.take(&r.turn, n, now)
	before := r.requests
	r.send(n, now)
	l.giveBack(n - (r.requests - before))
}
