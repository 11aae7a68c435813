package worker_test

import (
	"bytes"
	"sync"
	"testing"
	"time"
)

// shortenRuns bounds the search for the shortest failing run.
const shortenRuns = 600

// shortener looks for the shortest run that fails in the same way.
type shortener struct {
	t        *testing.T
	property string
	need     int // how many runs of a plan must fail: two, unless the seed's own plan does not fail again
	runs     int
	best     plan
	failure  *failure
}

// shorten leaves out of p whatever it can while the same property fails.
func shorten(t *testing.T, p plan, f *failure) (plan, *failure) {
	s := &shortener{t: t, property: f.property, need: 1, best: p, failure: f}
	if first := s.fails(p); first && s.fails(p) {
		s.need = 2
	}
	for improved := true; improved && s.runs < shortenRuns; {
		improved = false
		for size := max(1, len(s.best.steps)/2); size > 0; size /= 2 {
			for at := 0; at+size <= len(s.best.steps); {
				if s.better(s.best.without(at, size)) {
					improved = true
				} else {
					at += size
				}
			}
		}
		for _, change := range s.best.smaller() {
			improved = s.better(change(s.best)) || improved
		}
	}
	return s.best, s.failure
}

// better makes a plan the best one if it is a new one and fails.
func (s *shortener) better(p plan) bool {
	if p.String() == s.best.String() {
		return false
	}
	for range s.need {
		if s.runs >= shortenRuns || !s.fails(p) {
			return false
		}
	}
	s.best = p
	return true
}

func (s *shortener) fails(p plan) bool {
	s.runs++
	f := watched(s.t, p)
	if f == nil || f.property != s.property {
		return false
	}
	s.failure = f
	return true
}

// without returns p without some of its steps.
func (p plan) without(at, n int) plan {
	p.steps = append(p.steps[:at:at], p.steps[at+n:]...)
	return p
}

// smaller returns ways to make p smaller without leaving out steps.
func (p plan) smaller() []func(plan) plan {
	ways := []func(plan) plan{
		func(p plan) plan { p.workers = 1; return p },
		func(p plan) plan { p.inFlight = max(1, p.inFlight/2); return p },
		func(p plan) plan { p.prefetch = false; return p },
		func(p plan) plan { p.lanes = 1; return p },
		func(p plan) plan { p.rate = 0; return p },
		func(p plan) plan { p.sleep = 0; return p },
		func(p plan) plan { p.ttl = 0; return p },
		func(p plan) plan { p.expiration = 0; return p },
		func(p plan) plan { p.forgetful = false; return p },
	}
	for i := range p.steps {
		if i > 0 {
			ways = append(ways, func(p plan) plan { return p.merged(i) })
		}
		ways = append(ways,
			p.change(i, func(s *step) { s.wait = 0 }),
			p.change(i, func(s *step) { s.wait /= 2 }),
			p.change(i, func(s *step) { s.n = max(s.n/2, min(s.n, 1)) }),
			p.change(i, func(s *step) { s.d = (s.d / 2).Round(time.Millisecond) }),
		)
	}
	return ways
}

// merged returns p without a step, adding that step's wait to the one before.
func (p plan) merged(i int) plan {
	if i >= len(p.steps) {
		return p
	}
	p = p.change(i-1, func(s *step) { s.wait += p.steps[i].wait })(p)
	return p.without(i, 1)
}

func (plan) change(i int, by func(*step)) func(plan) plan {
	return func(p plan) plan {
		if i < len(p.steps) {
			p.steps = append([]step(nil), p.steps...)
			by(&p.steps[i])
		}
		return p
	}
}

// diary is a log of what happened in a run.
type diary struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (d *diary) Write(line []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(line)
}

func (d *diary) String() string { return d.text.String() }
