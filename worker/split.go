package worker

import (
	"context"
	"errors"
	"time"

	"propeller/queue"
)

// rest is tokens of a job that go on as a job of their own.
type rest struct {
	tokens []string
	after  time.Duration
}

// split settles a job whose tokens ended differently: what is still to do is put
// into the queue as jobs of its own, then the job is deleted. If the daemon dies
// in between, the job is run again whole.
//
// Tokens that are to be buried come back alone and at once, to be refused
// together: only a job that is held can be buried.
func (t *task) split(s *tally) {
	t.history() // before the job goes
	rests := [...]rest{
		{append(tokensOf(s.again), s.unsent...), 0},
		{append(tokensOf(s.later), s.unreported...), s.pause},
		{tokensOf(s.bury), 0},
	}
	for _, p := range s.bury {
		p.log(0)
		t.countDuplicate(p)
	}
	done := s.delivered
	for _, rest := range rests {
		n, err := t.putRest(rest)
		done += n
		if err != nil {
			t.r.w.cfg.Counters.PossibleDuplicates.Add(int64(done))
			t.r.log.Warn("what is left of a job could not be put into the queue: it is pushed again whole", "job", t.job.ID(), "err", err)
			t.giveBack(max(s.pause, recordPause))
			return
		}
	}
	t.remove(done)
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
	if len(rest.tokens) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(t.r.settling, putTime)
	defer cancel()
	cfg := &t.r.w.cfg
	_, err = cfg.Queue.Put(ctx, cfg.Tube, restBody(t.body, rest.tokens, t.restOrigin()), queue.PutOptions{Delay: rest.after, Priority: t.stat.Priority})
	if err == nil {
		return len(rest.tokens), nil
	}
	half := len(rest.tokens) / 2
	if half == 0 || !errors.Is(err, queue.ErrRejected) {
		return 0, err
	}
	for _, tokens := range [...][]string{rest.tokens[:half], rest.tokens[half:]} {
		n, err := t.putRest(rest.of(tokens))
		if put += n; err != nil {
			return put, err
		}
	}
	return put, nil
}

// of is other tokens after the same pause.
func (r rest) of(tokens []string) rest { return rest{tokens, r.after} }

// restOrigin is what the rest of this job has to remember.
func (t *task) restOrigin() *origin {
	attempt, age, _ := t.history()
	o := origin{job: t.job.ID(), seed: t.decoded.seed, put: time.Now().Add(-age), attempt: min(attempt, maxAttempt)}
	if first := t.decoded.origin; first != nil {
		o.job, o.put = first.job, first.put
	}
	return &o
}
