package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

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

// setAside buries the job. pushes are those that ended so and have been reported; none if
// nothing was sent. Counters, log and events follow once the queue has confirmed the burial.
func (t *task) setAside(pushes []*push) {
	if t.err != nil {
		pushes = nil
	}
	o := t.parent()
	switch {
	case len(pushes) > 0:
		o.Refuse(buryReason(pushes), &pushes[0].outcome)
	case t.err == nil: // refused and reported in an earlier job
		o = *t.decoded.Parent
	case !t.reportUnfit():
		t.release(0)
		return
	default:
		o.Refuse(t.err, nil)
	}
	if err := t.bury(&o); err != nil {
		t.notBuried(pushes, err)
		return
	}
	t.r.w.finished.Add(1)
	t.r.app.Counters.Buried.Add(1)
	t.r.cfg.Buried(t.job.ID(), o.Burial(&t.decoded))
	for i, p := range pushes {
		if i > 0 {
			t.notePush(p, Buried)
			continue
		}
		e := p.event(Buried)
		e.BuryReason = o.Reason
		t.note(e)
	}
	switch {
	case len(pushes) > 0:
	case t.err == nil:
		t.line(slog.LevelWarn, "job buried", "class", o.Class.String(), "reason", o.Reason)
	default:
		t.line(slog.LevelWarn, "job buried", "class", o.Class.String(), "reason", o.Reason)
		t.note(t.neverSent(Buried, max(1, t.addressed()-t.delivered), o.Reason))
	}
}

// notBuried handles a job that the queue did not bury.
func (t *task) notBuried(pushes []*push, err error) {
	what := "job not buried: it will be tried again"
	if errors.Is(err, queue.ErrLost) { // after the copy was stored, perhaps
		what = "job lost while it was buried: it will be tried again, and may be buried as well"
	}
	t.r.w.limitedLog.Log(slog.LevelWarn, what, "job", t.id, "err", err)
	for _, p := range pushes {
		t.countDuplicate(p)
		t.notePush(p, Retried)
	}
	if errors.Is(err, queue.ErrRejected) { // else it is no longer ours, or about to go back
		t.release(t.r.cfg.Retry.Max)
	}
}

// buryReason returns the reason with which the job of these pushes is buried.
func buryReason(pushes []*push) error {
	err := pushes[0].buryReason()
	if len(pushes) > 1 {
		return fmt.Errorf("%w (and %d more of its tokens likewise)", err, len(pushes)-1)
	}
	return err
}

func (p *push) buryReason() error {
	if p.err != nil {
		return p.err
	}
	return errors.New(outcomeText(p.outcome))
}
