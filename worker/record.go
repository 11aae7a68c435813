package worker

import (
	"context"
	"fmt"
	"time"

	"propeller/internal/parallel"
	"propeller/worker/feedback"
	"propeller/worker/job"
)

// recordOf turns an event of the job into a record, so that logs and records agree. token
// is the whole token.
func (t *task) recordOf(e *Event, token string) feedback.Record {
	return feedback.Record{
		App: t.r.cfg.App, Topic: t.r.cfg.Topic, Token: token, ChannelID: t.decoded.Notification.ChannelID,
		Class: e.Class.String(), Status: e.Status, Reason: e.Reason, APNsID: e.APNsID,
		Ref: t.decoded.Ref, Job: t.firstID(), At: time.Now(),
	}
}

// record returns the record of a push that has ended for good.
func (p *push) record(a Action, reason string) feedback.Record {
	e := p.event(a)
	r := p.t.recordOf(&e, p.n.Token)
	r.Reason = reason
	if since := p.outcome.Since; !since.IsZero() {
		r.Since = since.Unix()
	}
	return r
}

// report stores a record, however long that takes. It returns false if that never succeeds,
// see store.
func (t *task) report(rec feedback.Record) bool {
	put := t.r.cfg.Feedback
	return put == nil || t.store(records(), func(ctx context.Context) error { return put(ctx, rec) }) == nil
}

// reportEnded reports all tokens that are not tried again: dead ones, those to be buried,
// expired ones and malformed ones. It returns false if not all records are stored.
func (t *task) reportEnded(s *tally) bool {
	return inParallel(len(s.dead), func(i int) bool { return t.report(s.dead[i].record(Deleted, s.dead[i].outcome.Reason)) }) &&
		t.reportBuried(s.bury) && t.reportLate(s.late) && t.reportMalformed(true)
}

// reportLate reports tokens that expired unsent. If APNs is known to have called a token
// dead, that is reported instead.
func (t *task) reportLate(tokens []string) bool {
	if len(tokens) == 0 {
		return true
	}
	reason := t.whyExpired()
	return inParallel(len(tokens), func(i int) bool {
		p := push{t: t, n: t.decoded.Notification}
		p.n.Token = tokens[i]
		if p.known(time.Now()) && p.action == dead {
			return t.report(p.record(Deleted, p.outcome.Reason))
		}
		e := t.neverSent(Expired, 1, reason)
		rec := t.recordOf(&e, tokens[i])
		rec.Class = classExpired
		return t.report(rec)
	})
}

// reportMalformed reports the malformed tokens of a list. tells: no other event reports
// them.
func (t *task) reportMalformed(tells bool) bool {
	bad := t.decoded.Malformed
	if more := t.decoded.MoreMalformed; more > 0 {
		bad = append(bad[:len(bad):len(bad)], job.BadToken{Err: &job.Error{Key: "tokens", Why: fmt.Sprintf("%d more of them are malformed", more)}})
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
		e.Token = job.Short(b.Text)
		t.note(e)
	}
	return true
}

// addresses returns the tokens of a job that is not sent, without a list's malformed ones. A
// job for a channel, and one that cannot be read, has one empty token.
func (t *task) addresses() []string {
	if len(t.decoded.Tokens) > 0 || len(t.decoded.Malformed) > 0 {
		return t.decoded.Tokens
	}
	return []string{t.decoded.Notification.Token}
}

// reportBuried reports pushes whose job is buried.
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

// reportUnfit reports each token of a job that is buried unsent because of t.err.
func (t *task) reportUnfit() bool {
	tokens := t.addresses()
	return inParallel(len(tokens), func(i int) bool {
		e := t.neverSent(Buried, 1, t.err.Error())
		return t.report(t.recordOf(&e, tokens[i]))
	}) && t.reportMalformed(false)
}

// recordsAtOnce is how many records of one job are put at the same time. A queue connection
// carries several puts, so this takes an eighth of the time.
const recordsAtOnce = 8

// inParallel calls f for 0…n-1: first for 0 alone, so that only one call waits while the
// queue takes nothing, then several at a time. It stops early when f returns false, and
// reports whether f never did.
func inParallel(n int, f func(i int) bool) bool {
	return n == 0 || f(0) && parallel.Do(recordsAtOnce, n-1, func(i int) bool { return f(i + 1) })
}
