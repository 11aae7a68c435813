package worker

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"propeller/apnsconn"
	"propeller/worker/job"
)

// pushLevel is the level of the line that each class gets. What is not
// finished and needs nobody's attention is for debugging only: a lost
// connection would otherwise log a line for each push it carried.
var pushLevel = [...]slog.Level{
	apnsconn.Delivered:   slog.LevelInfo,
	apnsconn.Token:       slog.LevelWarn,
	apnsconn.Rejected:    slog.LevelWarn,
	apnsconn.Throttled:   slog.LevelWarn,
	apnsconn.Unavailable: slog.LevelWarn,
	apnsconn.Credential:  slog.LevelDebug,
	apnsconn.NotSent:     slog.LevelDebug,
	apnsconn.Unknown:     slog.LevelWarn,
}

// logSink logs the ends of pushes.
type logSink struct{ w *Worker }

// Pushed implements Sink.
func (l logSink) Pushed(e *Event) {
	switch {
	case e.Action == Tried, e.N == 0:
	case e.t != nil:
		if l.writes(apnsconn.Delivered) {
			l.each(e)
		}
	case e.BuryReason != "":
		l.write(e, slog.LevelWarn, "job buried", outcomeAttrs(e))
		l.ended(e)
	case (e.p != nil || e.Action == Deleted) && l.writes(e.Class):
		if level := l.level(e); l.w.log.Enabled(context.Background(), level) {
			l.write(e, level, "push", outcomeAttrs(e))
		}
		l.ended(e)
	}
}

// ended notes that a push has no more events.
func (l logSink) ended(e *Event) {
	if e.p != nil && e.Action != Retried && e.Action != Resent {
		l.w.app.cfg.Live.failing.end(e)
	}
}

// level is that of an event's line. Where log.pushes does not ask for every one, those of
// a push that has failed before, and will be tried again, and those of a list that has had
// its lines are for debugging only.
func (l logSink) level(e *Event) slog.Level {
	level := pushLevel[e.Class]
	switch {
	case level <= slog.LevelDebug, l.w.app.cfg.Live.LogDelivered.Load():
		return level
	case e.p != nil && e.Action == Retried && !l.w.app.cfg.Live.failing.first(e),
		e.lines != nil && e.lines.full(e):
		return slog.LevelDebug
	}
	return level
}

// writes reports whether pushes of a class are logged.
func (l logSink) writes(c apnsconn.Class) bool {
	live := l.w.app.cfg.Live
	wanted := live.LogFailures.Load()
	if c == apnsconn.Delivered {
		wanted = live.LogDelivered.Load()
	}
	return wanted && l.w.log.Enabled(context.Background(), pushLevel[c])
}

// each logs the delivered pushes of a list.
func (l logSink) each(e *Event) {
	one := *e
	for d := range e.Each() {
		one.Token, one.APNsID, one.Took = job.Short(d.Token), d.APNsID, d.Took
		l.write(&one, pushLevel[e.Class], "push", outcomeAttrs(&one))
	}
}

func (l logSink) write(e *Event, level slog.Level, msg string, attrs []any) {
	l.w.log.Log(context.Background(), level, msg, append(jobAttrs(e.ID, e.Token, e.Job, e.Ref), attrs...)...)
}

// outcomeAttrs are the fields of a push that has ended.
func outcomeAttrs(e *Event) []any {
	attrs := []any{"class", e.Class.String(), "status", e.Status, "reason", cmp.Or(e.BuryReason, e.Reason), "apns_id", e.APNsID, "ms", e.Took.Milliseconds()}
	if e.Attempt > 0 {
		attrs = append(attrs, "attempt", e.Attempt)
	}
	if e.Err != nil {
		attrs = append(attrs, "err", e.Err)
	}
	switch {
	case e.p != nil && e.p.remembered:
		attrs = append(attrs, "remembered", true)
	case e.Class == apnsconn.Token && e.p != nil && e.p.action != dead:
		attrs = append(attrs, "believed", false)
	}
	return attrs
}

// jobAttrs are the fields of every line about a job. token is the first 8 characters of the
// token, or of the channel's id.
func jobAttrs(id, token, first, ref string) []any {
	attrs := []any{"job", id, "token", token}
	if first != id {
		attrs = append(attrs, "first_job", shortJob(first))
	}
	if ref != "" {
		attrs = append(attrs, "ref", ref)
	}
	return attrs
}

// line logs what became of a job. Unless log.pushes asks for every one, a queue that
// serves it again and again does not fill the log.
func (t *task) line(level slog.Level, msg string, attrs ...any) {
	n := &t.decoded.Notification
	attrs = append(jobAttrs(t.id, shortToken(n), t.firstID(), t.decoded.Ref), attrs...)
	if t.r.cfg.Live.LogDelivered.Load() {
		t.r.log.Log(context.Background(), level, msg, attrs...)
		return
	}
	t.r.w.limitedLog.Log(level, msg, attrs...)
}

// shortJob is the end of a job's id, with its number. Ids of remainders come with
// the job, and are what somebody wrote there; a device token has 64 characters.
func shortJob(id string) string {
	const most = 60
	if len(id) <= most {
		return id
	}
	return "…" + strings.ToValidUTF8(id[len(id)-most:], "")
}

func shortToken(n *apnsconn.Notification) string { return job.Short(cmp.Or(n.Token, n.ChannelID)) }

// A list may have 100,000 tokens, each of which APNs may refuse, at each try. Its first
// failures get a line each, and all others one line together.
const (
	listLines = 20
	listKinds = 10 // told apart in that line
)

// lines are those that the log has of one list's failures at one settling.
type lines struct {
	written int
	more    int            // failures without a line of their own
	kinds   map[string]int // how many of those, by class and what APNs said
}

// full counts a failure, and reports whether it gets no line of its own.
func (l *lines) full(e *Event) bool {
	if l.written < listLines {
		l.written++
		return false
	}
	if l.kinds == nil {
		l.kinds = make(map[string]int)
	}
	kind := e.Class.String() + ": " + e.Detail()
	if _, known := l.kinds[kind]; !known && len(l.kinds) >= listKinds {
		kind = "others"
	}
	l.more++
	l.kinds[kind]++
	return true
}

// lineMore logs what got no lines of its own.
func (t *task) lineMore(l *lines) {
	if l.more == 0 {
		return
	}
	kinds := make([]string, 0, len(l.kinds))
	for kind := range l.kinds {
		kinds = append(kinds, kind)
	}
	slices.SortFunc(kinds, func(a, b string) int { return cmp.Or(l.kinds[b]-l.kinds[a], strings.Compare(a, b)) })
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%d %s", l.kinds[kind], kind)
	}
	t.r.log.Warn("more pushes of the list failed", "job", t.id, "first_job", shortJob(t.firstID()), "pushes", l.more, "of", strings.Join(kinds, "; "))
}

// note is an end that is reported once the task is settled: that of a push, whose event is
// made then, since a list may have very many; or an event.
type note struct {
	p      *push
	action Action
	event  *Event
}

// note keeps an event until the task is settled.
func (t *task) note(e Event) { t.notes = append(t.notes, note{event: &e}) }

// notePush keeps the end of a push.
func (t *task) notePush(p *push, a Action) { t.notes = append(t.notes, note{p: p, action: a}) }

// eventOf is what is reported.
func (t *task) eventOf(o note) Event {
	if o.event != nil {
		return *o.event
	}
	e := o.p.event(o.action)
	if o.p.action == later && o.action == Retried {
		e.Attempt, e.Put = t.attempt, t.put
	}
	return e
}

// maxFailing bounds the pushes that a failing set knows at least; it may know twice as
// many.
const maxFailing = 10_000

// failing are the pushes whose failure the log has, so that each next failure of the same
// push is for debugging only. Those that failed longest ago are forgotten first, and then
// have another line. The zero value is ready.
type failing struct {
	mu        sync.Mutex
	seed      maphash.Seed // made with new
	new, last map[uint64]bool
}

// first says that a push fails for the first time, as far as is known.
func (f *failing) first(e *Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.new == nil:
		f.seed, f.new = maphash.MakeSeed(), make(map[uint64]bool)
	case len(f.new) >= maxFailing:
		f.new, f.last = make(map[uint64]bool), f.new
	}
	key := f.key(e)
	known := f.new[key] || f.last[key]
	f.new[key] = true
	return !known
}

// end forgets a push that has ended: kicked, it begins again.
func (f *failing) end(e *Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.new)+len(f.last) > 0 {
		key := f.key(e)
		delete(f.new, key)
		delete(f.last, key)
	}
}

// key is the push's: that of its job and its device token or channel.
func (f *failing) key(e *Event) uint64 {
	n := &e.p.n
	return maphash.Comparable(f.seed, [4]string{e.App, e.Job, n.Token, n.ChannelID})
}
