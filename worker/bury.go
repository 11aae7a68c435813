package worker

import (
	"cmp"
	"context"
	"errors"

	"propeller/queue"
	"propeller/worker/job"
)

// parent returns what a job made of this one has to remember.
func (t *task) parent() job.Parent {
	attempt, age, _ := t.history()
	o := job.Parent{Job: t.id, Seed: t.made(), Put: t.r.cfg.Wall().Add(-age), Attempt: attempt}
	if first := t.decoded.Parent; first != nil {
		o.Job, o.Put = first.Job, first.Put
	}
	return o
}

// bury buries the job with o in it. If the queue has no room for that, it shortens the
// reason, and then leaves the body as it is.
func (t *task) bury(o *job.Parent) (err error) {
	for _, limit := range [...]int{job.MaxReason, job.ShortReason} {
		body := job.BuriedBody(t.body, o, limit)
		if body == nil {
			break
		}
		if err = t.buryAs(body); !errors.Is(err, queue.ErrRejected) {
			return err
		}
	}
	return t.buryAs(nil)
}

// buryAs repeats the burial while the queue refuses it. Giving the job back instead would
// report its pushes again.
func (t *task) buryAs(body []byte) (err error) {
	stored := t.store(burials(), func(ctx context.Context) error {
		if err = t.job.Bury(ctx, body); errors.Is(err, queue.ErrUnavailable) {
			return err
		}
		return nil
	})
	return cmp.Or(stored, err)
}
