package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"propeller/httpapi"
)

// sleepers puts jobs to a few of the apps that mostly sleep at a time, and moves on: in the
// meantime those go to sleep. Some of its jobs come due, and some buried ones are kicked,
// in tubes of apps that sleep.
type sleepers struct {
	producer
	at    *site
	order []int        // the apps, in the order in which they get jobs
	turns atomic.Int64 // how many have had their turn, if they have had several, as often
	early int          // jobs that come due in an app that sleeps

	dice   *rand.Rand // of kick, which runs beside the rest
	kicked int        // times that buried jobs were
}

const (
	// awake is how many apps get jobs at a time, awakeFor how long, at most and on average 2/3
	// of it. 300 apps take about 75 s: when an app's turn comes again it sleeps, has just gone to
	// sleep after its minute without work, or is about to.
	awake    = 8
	awakeFor = 3 * time.Second
	// Of 1000 jobs so many are delayed ones for an app that sleeps.
	foresight = 50
	// kickEvery is the mean pause between two kicks.
	kickEvery = 3 * time.Second
	// kickTime bounds one.
	kickTime = 10 * time.Second
)

// buries says whether jobs of an app may be buried. Of the sleepers only some have such jobs,
// so that the audit need not ask each app for them, which takes long.
func buries(app int) bool { return app < len(apps()) || app%10 == 0 }

func newSleepers(r *run) *sleepers {
	s := &sleepers{
		producer: producer{engine: r.engine, rng: newRNG(r.o.seed, 40), ledger: r.ledger, every: 2 * time.Second / time.Duration(r.o.rate)},
		at:       r.at, dice: newRNG(r.o.seed, 41),
	}
	for _, i := range s.rng.Perm(r.o.apps - len(apps())) {
		s.order = append(s.order, i+len(apps()))
	}
	return s
}

// run puts jobs until ctx ends.
func (s *sleepers) run(ctx context.Context) {
	defer s.drop()
	for ctx.Err() == nil {
		few := s.few()
		until := time.Now().Add(awakeFor/3 + time.Duration(s.rng.Int64N(int64(awakeFor*2/3))))
		for ctx.Err() == nil && time.Now().Before(until) {
			s.app, s.delay = few[s.rng.IntN(len(few))], 0
			ahead := s.rng.IntN(1000) < foresight
			if ahead {
				s.app, s.delay = s.coming(), 20
				s.early++
			}
			if !s.putOne(ctx, ahead) {
				return
			}
			sleep(ctx, time.Duration(s.rng.Int64N(int64(2*s.every))))
		}
	}
}

// few returns the next apps to get jobs.
func (s *sleepers) few() []int {
	var few []int
	for range min(awake, len(s.order)) {
		few = append(few, s.order[s.turns.Load()%int64(len(s.order))])
		s.turns.Add(1)
	}
	return few
}

// coming returns an app whose turn is far off.
func (s *sleepers) coming() int {
	n := len(s.order)
	return s.order[(int(s.turns.Load())+n/4+s.rng.IntN(n/2+1))%n]
}

// past returns an app whose turn was some time ago, and that may have buried jobs.
func (s *sleepers) past() (app int, ok bool) {
	n, to := len(s.order), int(s.turns.Load())-2*awake
	from := max(0, to-n/2)
	for range 100 {
		if to <= from {
			return 0, false
		}
		if app = s.order[(from+s.dice.IntN(to-from))%n]; buries(app) {
			return app, true
		}
	}
	return 0, false
}

// putOne puts a job. It reports false when no more can be put.
func (s *sleepers) putOne(ctx context.Context, later bool) bool {
	if s.conn == nil && !s.dial(ctx) {
		return true
	}
	k, many, fates := s.shape()
	switch {
	case later:
		k = delayed
	case buries(s.app) && s.rng.IntN(4) == 0:
		k, many, fates = pick(s.rng, misspelt, malformed, oversize), false, []fate{good}
	case !buries(s.app) && !k.sound():
		k = plain
	}
	for i, f := range fates {
		if !s.suits(f, many) {
			fates[i] = good
		}
	}
	return s.put(k, many, fates)
}

// suits says whether an app that mostly sleeps may have such a token. It has few pushes: a
// wrong token may look as if its environment were wrong.
func (s *sleepers) suits(f fate, many bool) bool {
	switch f {
	case alien, grave, deformed:
		return false
	case bad:
		return buries(s.app) && !many
	}
	return true
}

// kick kicks buried jobs of apps that sleep, until ctx ends.
func (s *sleepers) kick(ctx context.Context) {
	for {
		sleep(ctx, time.Duration(s.dice.Int64N(int64(2*kickEvery))))
		if ctx.Err() != nil {
			return
		}
		if app, ok := s.past(); ok {
			s.kickOne(ctx, appAt(app))
		}
	}
}

// kickOne kicks all buried jobs of an app, by the daemon's hand or behind its back.
func (s *sleepers) kickOne(ctx context.Context, a app) {
	s.at.kicks.Lock()
	defer s.at.kicks.Unlock()
	ctx, cancel := context.WithTimeout(ctx, kickTime)
	defer cancel()
	kick, how := s.kickByDaemon, "daemon"
	if s.dice.IntN(2) == 0 && !strings.HasPrefix(s.at.queueURL, "embedded:") {
		kick, how = s.kickInQueue, "queue"
	}
	some, err := kick(ctx, a) // it fails when the daemon or the queue is away
	if some {
		s.kicked++
	}
	s.at.note("kick of %s in the %s: %v %v", a.topic, how, some, err)
}

func (s *sleepers) kickByDaemon(ctx context.Context, a app) (some bool, err error) {
	c, err := httpapi.Dial(ctx, s.at.path(stateDir), a.topic)
	if err != nil {
		return false, err
	}
	defer c.Close()
	done, err := c.Kick(ctx, httpapi.Choice{All: true})
	return done.Jobs > 0, err
}

// kickInQueue never asks the daemon, because it names the queue.
func (s *sleepers) kickInQueue(ctx context.Context, a app) (some bool, err error) {
	cmd := exec.CommandContext(ctx, s.at.propeller, "jobs", "kick", "--all", "--topic", a.topic, "--queue", s.at.queueURL, "-c", s.at.path(configName))
	cmd.SysProcAttr = dieWithParent()
	said, err := cmd.CombinedOutput()
	if err != nil {
		return false, fmt.Errorf("%w: %.200s", err, bytes.TrimSpace(said))
	}
	return !bytes.HasPrefix(said, []byte("0 ")), nil
}

// String says what it did.
func (s *sleepers) String() string {
	turns, n := s.turns.Load(), int64(len(s.order))
	return fmt.Sprintf("sleepers: %d of %d apps had jobs, %d of them more than once; %d jobs came due while theirs slept, %d times buried jobs were kicked",
		min(turns, n), n, max(0, min(turns-n, n)), s.early, s.kicked)
}

// leaveAlone makes the daemon's hand rest now and then for longer than it takes an app to go
// to sleep, in a run that is long enough.
func (h *hand) leaveAlone(run time.Duration) {
	const least, most = 65 * time.Second, 90 * time.Second
	if run < 3*least {
		return
	}
	h.acts = append(h.acts, act{name: "propeller left alone", weight: 12, do: func(_, faults context.Context) error {
		sleep(faults, least+h.upTo(most-least))
		return nil
	}})
}
