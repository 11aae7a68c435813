package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"propeller/httpapi"
)

// Where the width is not known lines keep to that which every terminal has; one
// that is narrower than minWidth gets lines that are too long.
const (
	statusWidth = 80
	minWidth    = 60
)

// statusView shows apps: on a terminal in place, elsewhere one after the other.
type statusView struct {
	out    io.Writer
	json   bool
	colour bool
	screen bool                       // out is a terminal
	size   func() (rows, columns int) // of it; 0: not known

	before map[string]httpapi.App // at the last look, by topic; nil: there was none
	at     time.Time              // of it
	last   []string               // what was shown then
}

func newStatusView(out io.Writer, asJSON bool) *statusView {
	return &statusView{out: out, json: asJSON, colour: colourful(out), screen: terminal(out), size: func() (int, int) { return terminalSize(out) }}
}

// once shows apps a single time.
func (v *statusView) once(apps httpapi.Apps, now time.Time) error {
	if v.json {
		return printJSON(v.out, apps)
	}
	lines := v.table(apps.Apps, now, 0)
	if refused := v.refused(apps.RefusedReload, now); len(refused) > 0 {
		lines = append(append(lines, ""), refused...)
	}
	if tubes := v.unknownTubes(apps.UnknownTubes); len(tubes) > 0 {
		lines = append(append(lines, ""), tubes...)
	}
	return v.lines(lines)
}

// unknownTubes is a line for each tube that belongs to no app.
func (v *statusView) unknownTubes(tubes []httpapi.UnknownTube) (lines []string) {
	for _, t := range tubes {
		text := fmt.Sprintf("no app works on tube %s: %d ready, %d delayed, %d buried", cell(t.Tube), t.Ready+t.Reserved, t.Delayed, t.Buried)
		lines = append(lines, v.paint(yellow, cutText(text, v.width())))
	}
	return lines
}

// refused says that the last reload was refused, and why; nothing if it was not.
func (v *statusView) refused(r *httpapi.RefusedReload, now time.Time) (lines []string) {
	if r == nil {
		return nil
	}
	head := "the last reload, " + ago(now.Sub(r.At)) + " ago, was refused, and nothing is changed"
	if r.Fault != "" {
		head += ":"
	}
	for i, fault := range strings.Split(strings.TrimSpace(head+"\n"+r.Fault), "\n") {
		for _, line := range wrap(cell(fault), v.width()-2) {
			if i > 0 {
				line = "  " + line
			}
			lines = append(lines, v.paint(yellow, line))
		}
	}
	return lines
}

// summary counts apps.
func summary(apps []httpapi.App) string {
	noun := "apps"
	if len(apps) == 1 {
		noun = "app"
	}
	if n := notReady(apps); n > 0 {
		return fmt.Sprintf("%d %s, %d not ready", len(apps), noun, n)
	}
	return fmt.Sprintf("%d %s, all ready", len(apps), noun)
}

// width is how long lines may be.
func (v *statusView) width() int {
	if _, columns := v.size(); columns >= minWidth {
		return columns
	}
	return statusWidth
}

// table is the table of apps and what is to be said of them, in at most limit
// lines; 0 or less means any number. It remembers the apps, so that the next one
// shows what has changed since.
func (v *statusView) table(apps []httpapi.App, now time.Time, limit int) []string {
	if len(apps) == 0 {
		return []string{"no apps"}
	}
	rows := v.sorted(apps, now)
	pushes := "SENT"
	if v.before != nil {
		pushes = "PUSH/S"
	}
	v.remember(apps, now)
	more := 0
	if room := limit - 2; limit > 0 && len(rows) > room { // the head, and the line that says so
		room = max(room, 1)
		more, rows = len(rows)-room, rows[:room]
	}
	lines := statusTable(rows, pushes, v.width(), now, v.paint)
	if more > 0 {
		return append(lines, fmt.Sprintf("… and %d more: in a taller window, or one by --topic", more))
	}
	if notes := statusNotes(rows, v.width(), now, v.paint); len(notes) > 0 {
		lines = append(append(lines, ""), notes...)
	}
	for i := range rows { // of one app only: --topic
		if failures := statusFailures(rows[i].App, v.width(), now); failures != nil {
			lines = append(append(lines, ""), failures...)
		}
	}
	return lines
}

// sorted are the apps, those that are not ready in front.
func (v *statusView) sorted(apps []httpapi.App, now time.Time) []statusRow {
	rows := make([]statusRow, len(apps))
	for i := range apps {
		r := statusRow{App: &apps[i], latency: apps[i].Latency}
		r.pushes = short(float64(r.Pushes.Ended["delivered"]))
		if v.before != nil {
			r.pushes, r.latency = v.since(r.App, now)
		}
		rows[i] = r
	}
	slices.SortStableFunc(rows, func(a, b statusRow) int {
		switch {
		case a.Ready == b.Ready:
			return 0
		case b.Ready:
			return -1
		}
		return 1
	})
	return rows
}

// since is what has changed of an app since the last look: pushes a second, and
// the latency of those.
func (v *statusView) since(a *httpapi.App, now time.Time) (rate string, l *httpapi.Latency) {
	before, known := v.before[a.Topic]
	n := ended(a) - ended(&before)
	if !known || n < 0 || !now.After(v.at) { // another run of the daemon
		return "-", a.Latency
	}
	return short(float64(n) / now.Sub(v.at).Seconds()), a.Latency.Since(before.Latency)
}

func (v *statusView) remember(apps []httpapi.App, now time.Time) {
	v.before, v.at = make(map[string]httpapi.App, len(apps)), now
	for _, a := range apps {
		v.before[a.Topic] = a
	}
}

func (v *statusView) paint(code, text string) string {
	if !v.colour || code == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (v *statusView) lines(lines []string) error {
	return v.write(strings.Join(lines, "\n") + "\n")
}

func (v *statusView) write(text string) error {
	_, err := io.WriteString(v.out, text)
	return err
}
