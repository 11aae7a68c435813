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

// remainder is those tokens of a job that go on in another job.
type remainder struct {
	tokens []string
	after  time.Duration
	bury   []*push // pushes that failed for good: the remainder is buried unsent
}

// putRemainders settles a job whose tokens ended differently: the tokens still to do are put into
// the queue as jobs of their own, then the job is deleted. If the daemon dies in between,
// the whole job runs again.
//
// Tokens to be buried come back at once in a job of their own, because only a reserved job
// can be buried. They are not sent again, since Apple forbids to repeat what it has refused.
//
// It returns false if the whole job went back.
func (t *task) putRemainders(s *tally, parts []remainder) bool {
	done := t.delivered
	if err := t.checkReserved(); err != nil {
		t.releaseWhole(s, done, err)
		return false
	}
	for _, r := range parts {
		n, err := t.putRemainder(r)
		done += n
		if err != nil {
			t.releaseWhole(s, done, err)
			return false
		}
	}
	t.remove(done)
	return true
}

// remainders groups the remaining tokens into jobs, so that no token waits for another one that
// has to wait longer: 429 slows one token, and doubt only the doubted tokens. But while the
// app is guarded, all that remains of a job stays away together, so that other jobs are
// tried.
func (t *task) remainders(s *tally) []remainder {
	atOnce := remainder{tokens: append(tokensOf(s.again), s.unsent...)}
	var soon, later, throttled, doubted remainder
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
	all := []remainder{atOnce, soon, later, throttled, doubted, {tokens: tokensOf(s.bury), bury: s.bury}}
	return slices.DeleteFunc(all, func(r remainder) bool { return len(r.tokens) == 0 })
}

// checkReserved makes sure that the job is still reserved, because otherwise all of it runs
// elsewhere, and that its priority and age are known.
func (t *task) checkReserved() error {
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

// putRemainder puts a remainder, halved if it is too large for the queue: it has fewer tokens than the
// job but one key more. It returns how many tokens are stored.
func (t *task) putRemainder(r remainder) (put int, err error) {
	cfg := t.r.cfg
	body := job.RemainderBody(t.body, r.tokens, t.remainderParent(r))
	var refused error
	err = t.store(records(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, putTime)
		defer cancel()
		_, err := cfg.Queue.Put(ctx, cfg.Tube, body, queue.PutOptions{Delay: r.after, Priority: t.stat.Priority, Settling: true})
		switch {
		case errors.Is(err, queue.ErrRejected):
			refused = err
			return nil
		case errors.Is(err, queue.ErrUncertain): // each attempt may have been stored all the same
			t.r.app.Counters.PossibleDuplicates.Add(int64(len(r.tokens)))
			t.lastWord, t.lastErr = "remaining tokens of a job may be in the queue twice: they may be pushed twice", err
		}
		return err
	})
	half := len(r.tokens) / 2
	switch {
	case err != nil:
		return 0, err
	case refused == nil:
		return len(r.tokens), nil
	case half == 0:
		return 0, refused
	}
	for _, tokens := range [...][]string{r.tokens[:half], r.tokens[half:]} {
		n, err := t.putRemainder(r.of(tokens))
		if put += n; err != nil {
			return put, err
		}
	}
	return put, nil
}

// of returns the remainder with other tokens.
func (r remainder) of(tokens []string) remainder { return remainder{tokens, r.after, r.bury} }

// remainderParent returns what a remainder of this job has to remember.
func (t *task) remainderParent(r remainder) *job.Parent {
	o := t.parent()
	if len(r.bury) > 0 {
		o.Refuse(buryReason(r.bury), &r.bury[0].outcome)
	}
	return &o
}
