package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// Retry bounds how a job is tried again.
type Retry struct {
	Min         time.Duration // pause after the first answer that APNs is unavailable
	Max         time.Duration // longest pause
	GiveUpAfter time.Duration // a job older than this is buried instead
}

// verdict is what happens to a push that has ended.
type verdict int

const (
	finished verdict = iota // nothing more
	dead                    // a record that the token must not be used again
	bury                    // its job is set aside with the reason, for a person
	again                   // back to the queue at once
	later                   // back to the queue, with a pause that grows with each try
)

// policy is the whole settle policy: what happens to a push that ended in each
// class. apnsconn classifies, this table decides.
//
// What Apple forbids to repeat (handling-notification-responses-from-apns:
// BadDeviceToken, DeviceTokenNotForTopic, Forbidden, ExpiredToken, Unregistered,
// PayloadTooLarge) is Token or Rejected. Exceptions, all in push.go: refusedAlone
// and Reconnect for shorter pauses, suspect and outdated for what may be no
// verdict on the token after all.
var policy = [...]struct {
	verdict   verdict
	first     time.Duration // later: the first pause, if Retry.Min is not shorter; 0 = Retry.Min
	duplicate bool          // the next try may reach a device that already has this push
}{
	apnsconn.Delivered:   {verdict: finished},
	apnsconn.Token:       {verdict: dead},
	apnsconn.Rejected:    {verdict: bury},
	apnsconn.Throttled:   {verdict: later, first: 5 * time.Second}, // one device's limit, not an outage
	apnsconn.Unavailable: {verdict: later},                         // Retry.Min is made for this
	apnsconn.Credential:  {verdict: again},                         // the breaker keeps the app's workers from taking it
	apnsconn.NotSent:     {verdict: again},                         // but see refusedAlone
	apnsconn.Unknown:     {verdict: later, first: time.Second, duplicate: true},
}

// refusedPause is the first pause of a push that was refused alone (a stream
// refused with REFUSED_STREAM) on a connection that goes on. At once it would
// only be refused again, at full speed, and before all other jobs of the tube.
const refusedPause = time.Second

// reconnectPause is the first pause after an answer that says that the
// connection was at fault, and not APNs (apnsconn.Outcome.Reconnect): a new
// connection is a second away.
const reconnectPause = time.Second

// Bounds of the pause of a push whose token the guard doubts. Within them it
// stays away for as long as the doubt has lasted, see Guard.doubtLasts: whoever
// mends the app's settings after a minute waits a minute or two, and none waits
// longer than the trouble was. Stale tokens that come back so leave probes to
// the jobs behind them: after an hour sixty have been tried, one a minute, and
// stay away for another.
const (
	// DoubtMin is the shortest. Even 20 % shorter it is longer than an answer is
	// held by the guard, so that the push of a list that was given back before
	// (doubtTime) finds its token dead or not.
	DoubtMin = 90 * time.Second
	// doubtMax is above what guardWindow/2+1 probes take, the tokens that stop an
	// app: those never keep a job behind them from its turn.
	doubtMax = 2 * time.Hour
)

// pause is how long a job that has been tried attempt times stays away:
// exponential with jitter from first to r.Max, and not less than APNs asked for.
func (r Retry) pause(attempt int, first, asked time.Duration) time.Duration {
	d := r.Min
	if first > 0 {
		d = min(d, first)
	}
	return min(max(jitter(doubled(d, r.Max, attempt)), asked), r.Max)
}

// doubled is d, doubled with each attempt after the first up to longest.
func doubled(d, longest time.Duration, attempt int) time.Duration {
	for range attempt - 1 {
		if d >= longest {
			break
		}
		d *= 2
	}
	return min(d, longest)
}

// nextPause is how long a push that is tried later stays away. One in doubt
// comes for the last time when it is to be given up, or so long before it
// expires that a paused app, which tries one job each ProbeEvery, can try it.
func (p *push) nextPause(attempt int, age time.Duration) time.Duration {
	cfg := &p.t.r.w.cfg
	switch {
	case p.pause > 0:
		return p.pause
	case p.doubted:
		pause := jitter(min(max(cfg.Guard.doubtLasts(time.Now()), DoubtMin), doubtMax))
		pause = min(pause, doubtMax, max(cfg.Retry.GiveUpAfter-age, time.Second))
		if left := p.t.lifeLeft(age); left > ProbeEvery {
			pause = min(pause, left-ProbeEvery)
		}
		return pause
	}
	return cfg.Retry.pause(attempt, p.first, p.outcome.RetryAfter)
}

// why is the reason a job is buried with, for the operator.
func why(o apnsconn.Outcome) string {
	reason := o.Reason
	switch {
	case reason == "" && o.Err != nil:
		reason = o.Err.Error()
	case reason == "":
		reason = "(no reason given)"
	case o.Err != nil:
		reason += ": " + o.Err.Error()
	}
	if o.Status != 0 {
		return fmt.Sprintf("%d %s", o.Status, reason)
	}
	return fmt.Sprintf("%s: %s", o.Class, reason)
}

// tally is how the pushes of one job have ended; those that are in no list were
// delivered.
type tally struct {
	tokens    int // of the job, or 1
	delivered int

	dead, bury, again, later []*push

	unsent []string // tokens whose pushes were never made: like again
	late   []string // those for which it is too late

	pause time.Duration // the longest of later
}

// back is how many tokens are to be pushed in a later try.
func (s *tally) back() int { return len(s.again) + len(s.later) + len(s.unsent) }

func (t *task) tally() *tally {
	if t.fan == nil {
		s := &tally{tokens: 1}
		s.add(&t.single)
		return s
	}
	f := t.fan
	s := &tally{
		tokens:    len(t.decoded.Tokens),
		delivered: f.next - len(f.failed),
	}
	if rest := t.decoded.Tokens[f.next:]; f.late {
		s.late = rest
	} else {
		s.unsent = rest
	}
	for _, p := range f.failed {
		s.add(p)
	}
	return s
}

func (s *tally) add(p *push) {
	switch p.verdict {
	case finished:
		s.delivered++
	case dead:
		s.dead = append(s.dead, p)
	case bury:
		s.bury = append(s.bury, p)
	case again:
		s.again = append(s.again, p)
	case later:
		s.later = append(s.later, p)
	}
}

// settlePushed settles a job whose pushes have ended.
func (t *task) settlePushed() {
	if t.fan == nil && t.single.verdict == finished {
		t.single.log(0)
		t.observe(Fate{Delivered: 1, Status: t.single.outcome.Status, APNsID: t.single.outcome.APNsID})
		t.remove(1)
		return
	}
	s := t.tally()
	t.postpone(s)
	for _, ended := range [...][]*push{s.dead, s.again, s.later} {
		for _, p := range ended {
			p.log(t.attempt(p))
		}
	}
	if !t.reportEnded(s) {
		t.backWhole(s.delivered, errUnreported)
		return
	}
	t.observePushed(s)
	if len(s.late) > 0 {
		t.r.w.cfg.Counters.Expired.Add(1)
		t.line(slog.LevelWarn, "expired before all of it was sent", "class", classExpired, "unsent", len(s.late), "tokens", s.tokens)
	}
	rests := t.rests(s)
	switch {
	case len(s.bury) == s.tokens:
		t.setAside(s.bury)
	case len(rests) == 0:
		t.remove(s.delivered)
	case len(rests) == 1 && s.back() == s.tokens && len(t.decoded.Malformed) == 0:
		t.giveBack(rests[0].after)
	default:
		t.split(s, rests)
	}
}

// attempt is which try of the push this was, if the queue has been asked.
func (t *task) attempt(p *push) int {
	if p.verdict != later {
		return 0
	}
	attempt, _, _ := t.history()
	return attempt
}

// history says which try of its tokens this is, 1 for the first, and how long
// ago they were put into the queue. It asks the queue once; the error is the
// queue's, and the numbers beside it are the least that they may be.
func (t *task) history() (attempt int, age time.Duration, err error) {
	if !t.asked {
		t.stat, t.statErr = t.job.Stat(t.r.settling)
		t.asked = true
	}
	attempt, age = max(1, t.stat.Attempt), t.stat.Age
	if o := t.decoded.origin; o != nil {
		if o.bury == "" { // else it was kicked, and begins anew
			attempt += o.attempt
		}
		age = max(age, time.Since(o.put))
	}
	return attempt, age, t.statErr
}

// postpone sets the pause of each push that is to be tried later. Those that
// have no later try are to be buried instead.
func (t *task) postpone(s *tally) {
	if len(s.later) == 0 {
		return
	}
	attempt, age, _ := t.history()
	tried := s.later
	s.later = nil
	for _, p := range tried {
		p.pause = p.nextPause(attempt, age)
		if p.err = t.noLater(p, attempt, age); p.err != nil {
			p.verdict = bury
			if p.doubted {
				p.outcome.Class = apnsconn.Rejected // a record of class token would call the token dead
				t.r.w.cfg.Counters.count(apnsconn.Rejected, p.outcome.Reason)
			}
			s.bury = append(s.bury, p)
			continue
		}
		s.later = append(s.later, p)
		s.pause = max(s.pause, p.pause)
		t.countDuplicate(p)
		if p.outcome.Class == apnsconn.Throttled && !p.remembered {
			t.r.w.cfg.Memory.Throttle(p.n.Topic, p.n.Token, time.Now().Add(p.pause))
		}
	}
}

// countDuplicate counts a push that may reach its device once more.
func (t *task) countDuplicate(p *push) {
	if policy[p.outcome.Class].duplicate {
		t.r.w.cfg.Counters.PossibleDuplicates.Add(1)
	}
}

// noLater says why the push is not tried again; nil if it is.
func (t *task) noLater(p *push, attempt int, age time.Duration) error {
	cfg := &t.r.w.cfg
	reason := why(p.outcome)
	if p.doubted {
		reason += ", and no answer showed that environment and topic are right"
	}
	switch {
	case age >= cfg.Retry.GiveUpAfter:
		return fmt.Errorf("gave up after %s and %d tries: %s", age.Round(time.Second), attempt, reason)
	case t.lifeLeft(age) <= p.pause:
		return fmt.Errorf("expires before it can be tried again, after %d tries: %s", attempt, reason)
	}
	return nil
}

// lifeLeft is how long a job of that age may still be tried, by its ttl, its
// expiration and the app's default; without them for ever.
func (t *task) lifeLeft(age time.Duration) time.Duration {
	left := time.Duration(math.MaxInt64)
	if ttl := t.decoded.TTL; ttl > 0 {
		left = ttl - age
	}
	if t.defaultExpiration { // the push's counts from each try; the job's life does not
		left = min(left, t.r.w.cfg.Expiration-age)
	}
	at := t.decoded.Notification.Expiration
	if at == nil || *at == 0 {
		return left
	}
	now := time.Now()
	if soon := now.Add(left).Unix(); *at > soon { // of a time that no Duration reaches
		return left
	}
	return min(left, time.Unix(*at, 0).Sub(now))
}

// checkAge asks the queue about a job that has a ttl, or whose pushes have failed
// before, and sends it unless it is too old, unfit or to be buried. It reports
// whether it is on its way; if not, the stage says what is to become of it.
func (t *task) checkAge() (goesOn bool) {
	defer func() {
		if v := recover(); v != nil {
			t.panicked(v)
			t.stage, goesOn = stageUnfit, false
		}
	}()
	_, age, err := t.history()
	ttl := t.decoded.TTL
	late := ttl > 0 && age >= ttl
	switch {
	case err != nil && (!late || t.refused()): // the reservation or the queue has gone: the job comes again
		t.stage = stageBack
		return false
	case t.refused() && !t.stat.Kicked:
		t.stage, t.err = stageRefused, nil
		return false
	case t.err != nil:
		t.stage = stageUnfit
		return false
	case late, t.decoded.Expired(time.Now()):
		t.stage = stageExpired
		return false
	}
	if end := time.Now().Add(ttl - age); t.fan != nil && ttl > 0 && (t.fan.until.IsZero() || end.Before(t.fan.until)) {
		t.fan.until = end
	}
	if t.refused() {
		t.observe(Fate{Tried: true})
	}
	t.stage = stagePushed
	t.handed.Store(false)
	t.asked = false // minutes may pass before its end
	if t.fan != nil {
		t.r.resume(t)
	} else {
		t.single.send(time.Now())
	}
	return true
}

// remove deletes the job, whose pushes to so many tokens were delivered. If that
// fails, those may get them once more.
func (t *task) remove(delivered int) {
	t.r.w.finished.Add(1)
	err := t.job.Done(t.r.settling)
	if err == nil {
		return
	}
	t.r.w.cfg.Counters.PossibleDuplicates.Add(int64(delivered))
	t.r.log.Warn("job finished but not deleted: it may be pushed again", "job", t.job.ID(), "err", err)
}

// expired drops a job that is too late, after a record of it for each token.
func (t *task) expired() {
	if !t.reportLate(t.addresses()) || !t.reportMalformed(true) {
		t.giveBack(0)
		return
	}
	t.r.w.cfg.Counters.Expired.Add(1)
	t.observe(Fate{Expired: t.addressed(), Reason: "expired before it was sent"})
	t.line(slog.LevelWarn, "expired, not sent", "class", classExpired)
	t.remove(0)
}

// classExpired is the class of a job that was never sent because it was too late.
const classExpired = "expired"

// setAside buries the job. pushes are those that ended so, and have been
// reported; none when nothing of it was sent.
func (t *task) setAside(pushes []*push) {
	if t.err != nil {
		pushes = nil
	}
	o := t.origin()
	switch {
	case len(pushes) > 0:
		why := buryReason(pushes)
		o.buryFor(why, pushes[0])
		t.linePush(pushes[0], slog.LevelWarn, "job buried", append(pushes[0].attrs(0), "why", why)...)
	case t.err == nil: // refused, and reported when it was
		o = *t.decoded.origin
		t.line(slog.LevelWarn, "job buried", "class", o.class.String(), "why", o.bury)
	case !t.reportUnfit():
		t.giveBack(0)
		return
	default:
		o.buryFor(t.err, nil)
		t.line(slog.LevelWarn, "job buried", "class", o.class.String(), "reason", t.err)
	}
	t.r.w.finished.Add(1)
	t.r.w.cfg.Counters.Buried.Add(1)
	t.observe(Fate{Buried: t.addressed(), Reason: o.bury, Status: o.status, APNsID: o.apnsID})
	switch err := t.bury(&o); {
	case err == nil && t.r.w.cfg.Buried != nil:
		t.r.w.cfg.Buried(t.job.ID(), o.burial(&t.decoded))
	case err != nil:
		t.r.log.Warn("job not buried: it will be tried again", "job", t.job.ID(), "err", err)
		for _, p := range pushes {
			t.countDuplicate(p)
		}
		if errors.Is(err, queue.ErrRejected) { // else it is not ours any more, or about to go back
			t.giveBack(t.r.w.cfg.Retry.Max)
		}
	}
}

// buryReason is the reason a job is buried with whose pushes ended so.
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
	return errors.New(why(p.outcome))
}

// errUnreported: the run ended, or the reservation, before all records were safe.
var errUnreported = errors.New("not all records could be put")

// backWhole gives back a job of whose tokens so many are done: those may get
// their push once more.
func (t *task) backWhole(done int, why error) {
	if done > 0 {
		t.r.w.cfg.Counters.PossibleDuplicates.Add(int64(done))
		t.r.log.Warn("what is left of a job could not be put into the queue: it is pushed again whole", "job", t.job.ID(), "err", why)
	}
	t.giveBack(0)
}

// giveBack returns the job to the queue. If that fails the queue takes it back
// by itself when the connection ends or the reservation runs out.
func (t *task) giveBack(after time.Duration) {
	if p := &t.single; p.outcome.Status != 0 && !p.remembered {
		t.r.w.finished.Add(1)
	}
	if err := t.job.Retry(t.r.settling, after); err != nil {
		t.r.log.Debug("job not released; the queue returns it later", "job", t.job.ID(), "err", err)
	}
}
