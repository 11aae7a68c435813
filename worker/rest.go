package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker/job"
)

// rest is those tokens of a job that go on in another job.
type rest struct {
	tokens []string
	after  time.Duration
	bury   []*push // pushes that failed for good: the rest is buried unsent
}

// split settles a job whose tokens ended differently: the tokens still to do are put into
// the queue as jobs of their own, then the job is deleted. If the daemon dies in between,
// the whole job runs again.
//
// Tokens to be buried come back at once in a job of their own, because only a held job can
// be buried. They are not sent again, since Apple forbids to repeat what it has refused.
//
// It returns false if the whole job went back.
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

// rests groups the remaining tokens into jobs, so that no token waits for another one that
// has to wait longer: 429 slows one token, and doubt only the doubted tokens. But while the
// app is guarded, all that remains of a job stays away together, so that other jobs are
// tried.
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
		r.tokens, r.after = append(r.tokens, p.n.Token), max(r.after, p.delay)
	}
	if len(doubted.tokens) > 0 && t.r.app.breaker.State().Guarded {
		doubted.tokens = append(doubted.tokens, atOnce.tokens...)
		atOnce.tokens = nil
	}
	all := []rest{atOnce, soon, later, throttled, doubted, {tokens: tokensOf(s.bury), bury: s.bury}}
	return slices.DeleteFunc(all, func(r rest) bool { return len(r.tokens) == 0 })
}

// prepareSplit makes sure that the job is still reserved, because otherwise all of it runs
// elsewhere, and that its priority and age are known.
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

// putTime bounds a put. It is longer than the queue's own timeouts, and the job stays
// reserved meanwhile.
const putTime = 15 * time.Second

// putRest puts a rest, halved if it is too large for the queue: it has fewer tokens than the
// job but one key more. It returns how many tokens are stored.
func (t *task) putRest(rest rest) (put int, err error) {
	cfg := t.r.cfg
	body := job.RemainderBody(t.body, rest.tokens, t.restOrigin(rest))
	var refused error
	err = t.store(records(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, putTime)
		defer cancel()
		_, err := cfg.Queue.Put(ctx, cfg.Tube, body, queue.PutOptions{Delay: rest.after, Priority: t.stat.Priority, Settling: true})
		switch {
		case errors.Is(err, queue.ErrRejected):
			refused = err
			return nil
		case errors.Is(err, queue.ErrUncertain): // each attempt may have been stored all the same
			t.r.app.Counters.PossibleDuplicates.Add(int64(len(rest.tokens)))
			t.lastWord, t.lastErr = "what is left of a job may be in the queue twice: it may be pushed twice", err
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

// of returns the rest with other tokens.
func (r rest) of(tokens []string) rest { return rest{tokens, r.after, r.bury} }

// restOrigin returns what a rest of this job has to remember.
func (t *task) restOrigin(r rest) *job.Parent {
	o := t.origin()
	if len(r.bury) > 0 {
		o.Refuse(buryReason(r.bury), &r.bury[0].outcome)
	}
	return &o
}
