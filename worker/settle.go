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
	cfg := p.t.r.cfg
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

// tally is how the pushes of one job have ended that were not delivered.
type tally struct {
	dead, bury, again, later []*push

	unsent []string // tokens whose pushes were never made: like again
	late   []string // those for which it is too late
}

// back is how many tokens are to be pushed in a later try.
func (s *tally) back() int { return len(s.again) + len(s.later) + len(s.unsent) }

func (t *task) tally() *tally {
	s := new(tally)
	if t.late {
		s.late = t.unsent
	} else {
		s.unsent = t.unsent
	}
	for _, p := range t.failed {
		switch p.verdict {
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
	return s
}

// note keeps an event to be told once the task is settled.
func (t *task) note(e Event) { t.told = append(t.told, e) }

// work is a settler's work on a task. A panic there buries its job.
func (t *task) work() {
	defer func() {
		if v := recover(); v != nil {
			t.panicked(v)
			t.told = nil
			if t.stage == stageAge {
				return // goOn sees to it
			}
			t.setAsideAtLast()
		}
	}()
	switch t.stage {
	case stageAge:
		t.next = t.checkAge()
	case stagePushed:
		t.settlePushed()
	case stageUnfit, stageRefused:
		t.setAside(nil)
	case stageExpired:
		t.expired()
	case stageBack:
		pause := time.Duration(0)
		if t.statErr != nil {
			pause = storeMin // not again at full speed, while the queue does not answer
		}
		t.note(t.goesBack(t.addressed()))
		t.giveBack(pause)
	}
}

// setAsideAtLast is setAside after a panic. One that panics, too, leaves the job
// reserved: the queue takes it back when the consumer ends.
func (t *task) setAsideAtLast() {
	defer func() {
		if v := recover(); v != nil {
			t.panicked(v)
		}
	}()
	t.setAside(nil)
}

// settlePushed settles a job whose pushes have ended.
func (t *task) settlePushed() {
	if len(t.failed) == 0 && len(t.unsent) == 0 && len(t.decoded.Malformed) == 0 {
		t.remove(t.delivered)
		return
	}
	s := t.tally()
	t.postpone(s)
	if !t.reportEnded(s) {
		s.again = append(append(s.again, s.dead...), s.bury...)
		t.told = nil
		t.tellBack(s)
		t.backWhole(s, t.delivered, errUnreported)
		return
	}
	for _, p := range s.dead {
		t.note(p.event(Deleted))
	}
	if len(s.late) > 0 {
		t.r.cfg.Counters.Expired.Add(1)
		t.line(slog.LevelWarn, "expired before all of it was sent", "class", classExpired, "unsent", len(s.late), "tokens", t.addressed())
		t.note(t.neverSent(Expired, len(s.late), expiredReason))
	}
	rests := t.rests(s)
	switch {
	case len(s.bury) == t.addressed():
		t.setAside(s.bury)
	case len(rests) == 0:
		t.remove(t.delivered)
	case len(rests) == 1 && s.back() == t.addressed() && len(t.decoded.Malformed) == 0:
		t.tellBack(s)
		t.giveBack(rests[0].after)
	default:
		a := Retried
		if t.split(s, rests) {
			a = Buried // with the rest that was put for that
		}
		t.tellBack(s)
		for _, p := range s.bury {
			t.note(p.event(a))
		}
	}
}

// tellBack notes the pushes that come again.
func (t *task) tellBack(s *tally) {
	if len(s.unsent) > 0 {
		t.note(t.goesBack(len(s.unsent)))
	}
	for _, ended := range [...][]*push{s.again, s.later} {
		for _, p := range ended {
			e := p.event(Retried)
			if p.verdict == later {
				e.Attempt, _, _ = t.history()
				e.Put = time.Now().Add(-t.age())
			}
			t.note(e)
		}
	}
}

// neverSent is the event of tokens that had no push.
func (t *task) neverSent(a Action, n int, reason string) Event {
	return Event{
		At: time.Now(), Token: shortToken(&t.decoded.Notification), Action: a,
		Class: apnsconn.Rejected, Reason: reason, N: n,
	}
}

// goesBack is the event of tokens that go back to the queue as they came.
func (t *task) goesBack(n int) Event {
	e := t.neverSent(Retried, n, "")
	e.Class = apnsconn.NotSent
	return e
}

// history says which try of its tokens this is, 1 for the first, and how long
// ago they were put into the queue. It asks the queue once; the error is the
// queue's, and the numbers beside it are the least that they may be.
func (t *task) history() (attempt int, age time.Duration, err error) {
	if !t.asked {
		t.stat, t.statErr = t.job.Stat(t.r.settlers.ctx)
		t.asked = true
	}
	attempt, age = max(1, t.stat.Attempt), t.stat.Age
	if o := t.decoded.origin; o != nil {
		if o.bury == "" { // else it was kicked, and begins anew
			attempt += o.attempt
		}
		age = max(age, t.r.cfg.Wall().Sub(o.put))
	}
	return attempt, age, t.statErr
}

func (t *task) age() time.Duration {
	_, age, _ := t.history()
	return age
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
			if p.doubted { // a record of class token would call the token dead
				p.outcome.Class, p.doubted = apnsconn.Rejected, false
				t.r.cfg.Counters.count(apnsconn.Rejected, p.outcome.Reason)
			}
			s.bury = append(s.bury, p)
			continue
		}
		s.later = append(s.later, p)
		t.countDuplicate(p)
		if p.outcome.Class == apnsconn.Throttled && !p.remembered {
			t.r.cfg.Memory.Throttle(p.n.Topic, p.n.Token, time.Now().Add(p.pause))
		}
	}
}

// countDuplicate counts a push that may reach its device once more.
func (t *task) countDuplicate(p *push) {
	if policy[p.outcome.Class].duplicate {
		t.r.cfg.Counters.PossibleDuplicates.Add(1)
	}
}

// noLater says why the push is not tried again; nil if it is.
func (t *task) noLater(p *push, attempt int, age time.Duration) error {
	cfg := t.r.cfg
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
		left = min(left, t.r.cfg.Expiration-age)
	}
	at := t.decoded.Notification.Expiration
	if at == nil || *at == 0 {
		return left
	}
	now := t.r.cfg.Wall()
	if soon := now.Add(left).Unix(); *at > soon { // of a time that no Duration reaches
		return left
	}
	return min(left, time.Unix(*at, 0).Sub(now))
}

// checkAge asks the queue about a job that has a ttl, or whose pushes have failed
// before, and says what is next: stagePushed to send it, unless it is too old,
// unfit or to be buried.
func (t *task) checkAge() stage {
	_, age, err := t.history()
	ttl := t.decoded.TTL
	late := ttl > 0 && age >= ttl
	switch {
	case err != nil && (!late || t.refused()): // the reservation or the queue has gone: the job comes again
		return stageBack
	case t.refused() && !t.stat.Kicked:
		t.err = nil
		return stageRefused
	case t.err != nil:
		return stageUnfit
	case late, t.decoded.Expired(t.r.cfg.Wall()):
		return stageExpired
	}
	if end := time.Now().Add(ttl - age); ttl > 0 && (t.until.IsZero() || end.Before(t.until)) {
		t.until = end
	}
	return stagePushed
}

// remove deletes the job, whose pushes to so many tokens were delivered. If that
// fails, those may get them once more.
func (t *task) remove(delivered int) {
	t.r.w.finished.Add(1)
	err := t.job.Done(t.r.settlers.ctx)
	if err == nil {
		return
	}
	t.r.cfg.Counters.PossibleDuplicates.Add(int64(delivered))
	t.r.log.Warn("job finished but not deleted: it may be pushed again", "job", t.job.ID(), "err", err)
}

// expired drops a job that is too late, after a record of it for each token.
func (t *task) expired() {
	if !t.reportLate(t.addresses()) || !t.reportMalformed(true) {
		t.giveBack(0)
		return
	}
	t.r.cfg.Counters.Expired.Add(1)
	t.note(t.neverSent(Expired, t.addressed(), expiredReason))
	t.line(slog.LevelWarn, "expired, not sent", "class", classExpired)
	t.remove(0)
}

// classExpired is the class of a job that was never sent because it was too late.
const classExpired = "expired"

const expiredReason = "expired before it was sent"

// setAside buries the job. pushes are those that ended so, and have been
// reported; none when nothing of it was sent. What is said and counted of it is
// once the queue has answered.
func (t *task) setAside(pushes []*push) {
	if t.err != nil {
		pushes = nil
	}
	o := t.origin()
	switch {
	case len(pushes) > 0:
		o.buryFor(buryReason(pushes), pushes[0])
	case t.err == nil: // refused, and reported when it was
		o = *t.decoded.origin
	case !t.reportUnfit():
		t.giveBack(0)
		return
	default:
		o.buryFor(t.err, nil)
	}
	if err := t.bury(&o); err != nil {
		t.notBuried(pushes, err)
		return
	}
	t.r.w.finished.Add(1)
	t.r.cfg.Counters.Buried.Add(1)
	if t.r.cfg.Buried != nil {
		t.r.cfg.Buried(t.job.ID(), o.burial(&t.decoded))
	}
	for i, p := range pushes {
		e := p.event(Buried)
		if i == 0 {
			e.Why = o.bury
		}
		t.note(e)
	}
	switch {
	case len(pushes) > 0:
	case t.err == nil:
		t.line(slog.LevelWarn, "job buried", "class", o.class.String(), "why", o.bury)
	default:
		t.line(slog.LevelWarn, "job buried", "class", o.class.String(), "reason", o.bury)
		t.note(t.neverSent(Buried, max(1, t.addressed()-t.delivered), o.bury))
	}
}

// notBuried sees to a job that the queue has not set aside.
func (t *task) notBuried(pushes []*push, err error) {
	t.r.log.Warn("job not buried: it will be tried again", "job", t.job.ID(), "err", err)
	for _, p := range pushes {
		t.countDuplicate(p)
		t.note(p.event(Retried))
	}
	if errors.Is(err, queue.ErrRejected) { // else it is not ours any more, or about to go back
		t.giveBack(t.r.cfg.Retry.Max)
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
// their push once more, and so may those that were to be buried.
func (t *task) backWhole(s *tally, done int, why error) {
	for _, p := range s.bury {
		t.countDuplicate(p)
	}
	if done > 0 {
		t.r.cfg.Counters.PossibleDuplicates.Add(int64(done))
		t.r.log.Warn("what is left of a job could not be put into the queue: it is pushed again whole", "job", t.job.ID(), "err", why)
	}
	t.giveBack(0)
}

// giveBack returns the job to the queue. If that fails the queue takes it back
// by itself when the connection ends or the reservation runs out.
func (t *task) giveBack(after time.Duration) {
	if !t.list() && len(t.failed) > 0 && t.failed[0].outcome.Status != 0 && !t.failed[0].remembered {
		t.r.w.finished.Add(1)
	}
	if err := t.job.Retry(t.r.settlers.ctx, after); err != nil {
		t.r.log.Debug("job not released; the queue returns it later", "job", t.job.ID(), "err", err)
	}
}
