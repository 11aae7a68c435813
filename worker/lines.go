package worker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

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
