package worker

import (
	"context"
	"fmt"
	"time"

	"propeller/apnsconn"
	"propeller/worker/feedback"
)

// record is a record of the job, without what only a push has.
func (t *task) record(class, reason string) feedback.Record {
	j := &t.decoded
	r := feedback.Record{
		Topic: t.r.cfg.Topic, Class: class, Reason: reason,
		Token: j.Notification.Token, ChannelID: j.Notification.ChannelID,
		Ref: j.Ref, Job: t.job.ID(), At: time.Now(),
	}
	if j.origin != nil {
		r.Job = j.origin.job
	}
	return r
}

// record is the record of a push that has ended for good.
func (p *push) record(reason string) feedback.Record {
	o := &p.outcome
	r := p.t.record(o.Class.String(), reason)
	r.Token, r.Status, r.APNsID = p.n.Token, o.Status, o.APNsID
	if !o.Since.IsZero() {
		r.Since = o.Since.Unix()
	}
	return r
}

// report puts a record where it is safe, however long that takes. It reports
// false if it never will be, see store.
func (t *task) report(rec feedback.Record) bool {
	put := t.r.cfg.Feedback
	return put == nil || t.store(records(), func(ctx context.Context) error { return put(ctx, rec) }) == nil
}

// reportEnded reports what of a job will not be tried again: dead tokens, those
// that are to be buried, those that were too late and malformed ones. It
// reports false if not all records are safe.
func (t *task) reportEnded(s *tally) bool {
	return inParallel(len(s.dead), func(i int) bool { return t.report(s.dead[i].record(s.dead[i].outcome.Reason)) }) &&
		t.reportBuried(s.bury) && t.reportLate(s.late) && t.reportMalformed(true)
}

// reportLate reports tokens that are not sent to because it is too late. One
// that APNs is known to have called dead is reported as that.
func (t *task) reportLate(tokens []string) bool {
	return inParallel(len(tokens), func(i int) bool {
		p := push{t: t, n: t.decoded.Notification}
		p.n.Token = tokens[i]
		if p.known(time.Now()) && p.verdict == dead {
			return t.report(p.record(p.outcome.Reason))
		}
		rec := t.record(classExpired, "expired before it was sent")
		rec.Token = tokens[i]
		return t.report(rec)
	})
}

// reportMalformed reports the tokens of a list that are none. tells says that
// nothing else will tell of them.
func (t *task) reportMalformed(tells bool) bool {
	bad := t.decoded.Malformed
	if more := t.decoded.MoreMalformed; more > 0 {
		bad = append(bad[:len(bad):len(bad)], BadToken{Err: &JobError{"tokens", fmt.Sprintf("%d more of them are malformed", more)}})
	}
	ok := inParallel(len(bad), func(i int) bool {
		rec := t.record(apnsconn.Rejected.String(), bad[i].Err.Error())
		rec.Token = bad[i].Text
		return t.report(rec)
	})
	if !ok || !tells {
		return ok
	}
	for _, b := range bad {
		e := t.neverSent(Deleted, 1, b.Err.Error())
		e.Token = short(b.Text)
		t.note(e)
	}
	return true
}

// addresses are the tokens of a job that is not sent, without the malformed ones
// of a list. A job that goes to a channel, or that cannot be read, has one that
// is empty.
func (t *task) addresses() []string {
	if len(t.decoded.Tokens) > 0 || len(t.decoded.Malformed) > 0 {
		return t.decoded.Tokens
	}
	return []string{t.decoded.Notification.Token}
}

// reportBuried reports pushes that end with the burial of a job.
func (t *task) reportBuried(pushes []*push) bool {
	return inParallel(len(pushes), func(i int) bool {
		p := pushes[i]
		reason := p.outcome.Reason
		if p.err != nil || reason == "" {
			reason = p.buryReason().Error()
		}
		return t.report(p.record(reason))
	})
}

// reportUnfit reports each token of a job that is buried unsent, with t.err.
func (t *task) reportUnfit() bool {
	tokens := t.addresses()
	return inParallel(len(tokens), func(i int) bool {
		rec := t.record(apnsconn.Rejected.String(), t.err.Error())
		rec.Token = tokens[i]
		return t.report(rec)
	}) && t.reportMalformed(false)
}
