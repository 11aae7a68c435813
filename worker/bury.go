package worker

import (
	"cmp"
	"context"
	"errors"

	"propeller/queue"
)

// origin returns what a job made of this one has to remember.
func (t *task) origin() origin {
	attempt, age, _ := t.history()
	o := origin{job: t.id, seed: t.made(), put: t.r.cfg.Wall().Add(-age), attempt: attempt}
	if first := t.decoded.origin; first != nil {
		o.job, o.put = first.job, first.put
	}
	return o
}

// bury buries the job with o in it. If the queue has no room for that, it shortens the
// reason, and then leaves the body as it is.
func (t *task) bury(o *origin) (err error) {
	for _, limit := range [...]int{maxBury, shortBury} {
		body := buriedBody(t.body, o, limit)
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
