package worker

import (
	"context"
	"fmt"
	"time"

	"propeller/worker/feedback"
)

// recordOf is the record of an event of the job: what people are told of a push's
// end and what is reported of it are the same. token is the whole one.
func (t *task) recordOf(e *Event, token string) feedback.Record {
	return feedback.Record{
		Topic: t.r.cfg.Topic, Token: token, ChannelID: t.decoded.Notification.ChannelID,
		Class: e.Class.String(), Status: e.Status, Reason: e.Reason, APNsID: e.APNsID,
		Ref: t.decoded.Ref, Job: t.firstID(), At: time.Now(),
	}
}

// record is the record of a push that has ended for good.
func (p *push) record(a Action, reason string) feedback.Record {
	e := p.event(a)
	r := p.t.recordOf(&e, p.n.Token)
	r.Reason = reason
	if since := p.outcome.Since; !since.IsZero() {
		r.Since = since.Unix()
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
	return inParallel(len(s.dead), func(i int) bool { return t.report(s.dead[i].record(Deleted, s.dead[i].outcome.Reason)) }) &&
		t.reportBuried(s.bury) && t.reportLate(s.late) && t.reportMalformed(true)
}

// reportLate reports tokens that are not sent to because it is too late. One
// that APNs is known to have called dead is reported as that.
func (t *task) reportLate(tokens []string) bool {
	return inParallel(len(tokens), func(i int) bool {
		p := push{t: t, n: t.decoded.Notification}
		p.n.Token = tokens[i]
		if p.known(time.Now()) && p.verdict == dead {
			return t.report(p.record(Deleted, p.outcome.Reason))
		}
		e := t.neverSent(Expired, 1, expiredReason)
		rec := t.recordOf(&e, tokens[i])
		rec.Class = classExpired
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
		e := t.neverSent(Deleted, 1, bad[i].Err.Error())
		return t.report(t.recordOf(&e, bad[i].Text))
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
		return t.report(p.record(Buried, reason))
	})
}

// reportUnfit reports each token of a job that is buried unsent, with t.err.
func (t *task) reportUnfit() bool {
	tokens := t.addresses()
	return inParallel(len(tokens), func(i int) bool {
		e := t.neverSent(Buried, 1, t.err.Error())
		return t.report(t.recordOf(&e, tokens[i]))
	}) && t.reportMalformed(false)
}
