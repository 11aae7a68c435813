package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// rest is tokens of a job that go on as a job of their own.
type rest struct {
	tokens []string
	after  time.Duration
	bury   []*push // theirs, which have failed for good: it is to be buried unsent
}

// split settles a job whose tokens ended differently: what is still to do is put
// into the queue as jobs of its own, then the job is deleted. If the daemon dies
// in between, the job is run again whole.
//
// Tokens that are to be buried come back alone and at once, to be buried
// together: only a job that is held can be. They are not sent to again, since
// Apple forbids to repeat what it has refused.
//
// It reports false if the job has gone back whole.
func (t *task) split(s *tally, rests []rest) bool {
	done := t.delivered
	if err := t.prepareSplit(); err != nil {
		t.backWhole(s, done, err)
		return false
	}
	for _, rest := range rests {
		n, err := t.putRest(rest)
		done += n
		if err != nil {
			t.backWhole(s, done, err)
			return false
		}
	}
	t.remove(done)
	return true
}

// rests are the tokens that are not done, as the jobs in which they go on. None
// waits for another that has to wait longer: an answer of 429 slows one token,
// and doubt only those that are in doubt. But while the app is paused all that
// is left of a job stays away together, so that other jobs are tried.
func (t *task) rests(s *tally) []rest {
	atOnce := rest{tokens: append(tokensOf(s.again), s.unsent...)}
	var soon, later, throttled, doubted rest
	for _, p := range s.later {
		r := &later
		switch {
		case p.doubted:
			r = &doubted
		case p.outcome.Class == apnsconn.Throttled:
			r = &throttled
		case p.first > 0:
			r = &soon
		}
		r.tokens, r.after = append(r.tokens, p.n.Token), max(r.after, p.pause)
	}
	if len(doubted.tokens) > 0 && t.r.cfg.Breaker.State().Paused {
		doubted.tokens = append(doubted.tokens, atOnce.tokens...)
		atOnce.tokens = nil
	}
	all := []rest{atOnce, soon, later, throttled, doubted, {tokens: tokensOf(s.bury), bury: s.bury}}
	return slices.DeleteFunc(all, func(r rest) bool { return len(r.tokens) == 0 })
}

// prepareSplit makes sure that the job is still reserved, since else it runs
// whole elsewhere, and that its priority and age are known.
func (t *task) prepareSplit() error {
	if !t.reserved() {
		return queue.ErrLost
	}
	return t.store(records(), func(context.Context) error {
		t.asked = t.asked && t.statErr == nil
		_, _, err := t.history()
		return err
	})
}

func tokensOf(pushes []*push) []string {
	tokens := make([]string, len(pushes))
	for i, p := range pushes {
		tokens[i] = p.n.Token
	}
	return tokens
}

// putTime bounds a put. It is longer than the queue's own limits, and the job
// stays reserved meanwhile.
const putTime = 15 * time.Second

// putRest puts a rest job, or two when one would be larger than the queue takes:
// beside fewer tokens it has a key more. It returns how many tokens are safe.
func (t *task) putRest(rest rest) (put int, err error) {
	cfg := t.r.cfg
	body := restBody(t.body, rest.tokens, t.restOrigin(rest))
	var refused error
	err = t.store(records(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, putTime)
		defer cancel()
		_, err := cfg.Queue.Put(ctx, cfg.Tube, body, queue.PutOptions{Delay: rest.after, Priority: t.stat.Priority, Settling: true})
		switch {
		case errors.Is(err, queue.ErrRejected):
			refused = err
			return nil
		case errors.Is(err, queue.ErrUncertain): // it may be stored all the same, each time
			cfg.Counters.PossibleDuplicates.Add(int64(len(rest.tokens)))
		}
		return err
	})
	half := len(rest.tokens) / 2
	switch {
	case err != nil:
		return 0, err
	case refused == nil:
		return len(rest.tokens), nil
	case half == 0:
		return 0, refused
	}
	for _, tokens := range [...][]string{rest.tokens[:half], rest.tokens[half:]} {
		n, err := t.putRest(rest.of(tokens))
		if put += n; err != nil {
			return put, err
		}
	}
	return put, nil
}

// of is other tokens with the same fate.
func (r rest) of(tokens []string) rest { return rest{tokens, r.after, r.bury} }

// restOrigin is what a rest of this job has to remember.
func (t *task) restOrigin(r rest) *origin {
	o := t.origin()
	if len(r.bury) > 0 {
		o.buryFor(buryReason(r.bury), r.bury[0])
	}
	return &o
}
