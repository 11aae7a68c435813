package worker

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"time"

	"propeller/apnsconn"
	"propeller/queue/journal"
	"propeller/worker/feedback"
)

// recordPause is how long a job stays away of which the queue would not take a
// record or a rest: it hardly takes anything else at that moment.
const recordPause = 10 * time.Second

// record is a record of the job, without what only a push has.
func (t *task) record(class, reason string) feedback.Record {
	j := &t.decoded
	r := feedback.Record{
		Topic: t.r.w.cfg.Topic, Class: class, Reason: reason,
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

// report puts a record where it is safe, and says whether it is.
func (t *task) report(rec feedback.Record) bool {
	r := t.r
	put := r.w.cfg.Feedback
	if put == nil {
		return true
	}
	err := put(r.settling, rec)
	switch {
	case err == nil:
		if r.silent.CompareAndSwap(true, false) {
			r.log.Info("records of pushes that failed are taken again")
		}
	case r.settling.Err() != nil: // the worker stops
	case r.silent.CompareAndSwap(false, true):
		r.log.Warn("records of pushes that failed cannot be put; their jobs come again until they can", "err", err)
	}
	return err == nil
}

// reportGone reports what of a job will not be tried again while the rest of it
// may be: dead tokens and malformed ones. After the first record that cannot be
// put, the others wait for another try.
func (t *task) reportGone(s *tally) {
	for i, p := range s.dead {
		if !t.report(p.record(p.outcome.Reason)) {
			s.unreported = tokensOf(s.dead[i:])
			s.pause = max(s.pause, recordPause)
			return
		}
	}
	for _, bad := range t.reportMalformed(true) {
		s.unreported = append(s.unreported, bad.Text)
		s.pause = max(s.pause, recordPause)
	}
}

// reportMalformed reports the tokens of a list that are none, and returns those
// from the first on whose record cannot be put. lines says that nothing else in
// the log will tell of them.
func (t *task) reportMalformed(lines bool) (left []BadToken) {
	all := t.decoded.Malformed
	for i, bad := range all {
		rec := t.record(apnsconn.Rejected.String(), bad.Err.Error())
		rec.Token = bad.Text
		if !t.report(rec) {
			return all[i:]
		}
		if lines && Pushes(t.r.w.cfg.Live.Pushes.Load()) != LogNone {
			t.write(&apnsconn.Notification{Token: bad.Text}, slog.LevelWarn, "push", "class", rec.Class, "reason", rec.Reason)
		}
	}
	if more := t.decoded.MoreMalformed; more > 0 {
		rec := t.record(apnsconn.Rejected.String(), fmt.Sprintf("job: tokens: %d more of them are malformed", more))
		rec.Token = ""
		if !t.report(rec) {
			return all[len(all)-1:]
		}
	}
	return nil
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

// reportBuried reports a job that is about to be buried: each of its pushes, or,
// if there are none, each of its tokens with t.err. It says whether all records
// are safe.
func (t *task) reportBuried(pushes []*push) bool {
	for _, p := range pushes {
		reason := p.outcome.Reason
		if p.err != nil || reason == "" {
			reason = p.buryReason().Error()
		}
		if !t.report(p.record(reason)) {
			return false
		}
	}
	if len(pushes) > 0 {
		return true
	}
	for _, token := range t.addresses() {
		rec := t.record(apnsconn.Rejected.String(), t.err.Error())
		rec.Token = token
		if !t.report(rec) {
			return false
		}
	}
	return len(t.reportMalformed(false)) == 0
}

// enter tells the journal of a job that is about to be buried for the reason err.
func (t *task) enter(pushes []*push, err error) {
	cfg := &t.r.w.cfg
	if cfg.Journal == nil {
		return
	}
	e := journal.Entry{
		ID: t.job.ID(), Topic: cfg.Topic, Tube: cfg.Tube, Class: apnsconn.Rejected.String(), Reason: err.Error(),
		Token: shortToken(&t.decoded.Notification), Ref: t.decoded.Ref, At: time.Now(),
	}
	if len(pushes) > 0 {
		p := pushes[0]
		o := &p.outcome
		e.Class, e.Status, e.APNsID, e.Token = o.Class.String(), o.Status, o.APNsID, shortToken(&p.n)
	}
	sum := sha256.Sum256(t.body)
	copy(e.Sum[:], sum[:])
	cfg.Journal.Buried(e)
}
