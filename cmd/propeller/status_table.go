package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"propeller/apnsconn"
	"propeller/httpapi"
	"propeller/supervisor"
)

// statusRow is what status shows of an app.
type statusRow struct {
	*httpapi.App
	latency *httpapi.Latency // nil: no push was answered
	pushes  string           // a rate, or how many were delivered
}

// stateColour tells states apart at a glance; their names tell it without.
func stateColour(s supervisor.State) string {
	switch {
	case s.Trouble():
		return red
	case s == supervisor.Running:
		return green
	case s.Works():
		return grey
	}
	return yellow
}

// Bounds of the table.
const (
	minTopic = 12 // characters of a topic that are shown however wide the numbers are
	soon     = 30 * 24 * time.Hour
)

// statusColumn is a column of the table beside the topics.
type statusColumn struct {
	head   string
	cell   func(r *statusRow, now time.Time) string
	colour func(r *statusRow, now time.Time) string // SGR code, "" none; nil: none
}

// statusColumns are the table's. pushes is the head of the one that counts them.
func statusColumns(pushes string) []statusColumn {
	return []statusColumn{
		{"STATE", (*statusRow).stateCell, (*statusRow).stateColour},
		{pushes, func(r *statusRow, _ time.Time) string { return r.pushes }, nil},
		{"P50", func(r *statusRow, _ time.Time) string { return quantile(r.latency, false) }, nil},
		{"P99", func(r *statusRow, _ time.Time) string { return quantile(r.latency, true) }, nil},
		{"FLIGHT", func(r *statusRow, _ time.Time) string { return short(float64(inFlight(r.App))) }, nil},
		{"CONN", func(r *statusRow, _ time.Time) string { return fmt.Sprintf("%d/%d", connected(r.App), len(r.Workers)) }, nil},
		{"READY", queueCell((*httpapi.App).Waiting), nil},
		{"DELAY", queueCell(func(a *httpapi.App) int { return a.Queue.Delayed }), nil},
		{"BURIED", queueCell(func(a *httpapi.App) int { return a.Queue.Buried }), (*statusRow).buriedColour},
		{"CERT", func(r *statusRow, now time.Time) string { return expiry(r.CredentialExpires, now) }, (*statusRow).expiryColour},
	}
}

func (r *statusRow) stateCell(time.Time) string   { return r.State.Word() }
func (r *statusRow) stateColour(time.Time) string { return stateColour(r.State) }

func queueCell(pick func(*httpapi.App) int) func(*statusRow, time.Time) string {
	return func(r *statusRow, _ time.Time) string {
		if r.Queue == nil {
			return "-"
		}
		return short(float64(pick(r.App)))
	}
}

func (r *statusRow) buriedColour(time.Time) string {
	if r.Queue != nil && r.Queue.Buried > 0 {
		return yellow
	}
	return ""
}

func (r *statusRow) expiryColour(now time.Time) string {
	switch left := r.CredentialExpires.Sub(now); {
	case r.CredentialExpires.IsZero() || left > soon:
		return ""
	case left > 24*time.Hour:
		return yellow
	}
	return red
}

// painter gives text a colour by its SGR code, or none.
type painter func(code, text string) string

// statusTable lays out the rows in lines of at most width characters, where
// their numbers leave room for that.
func statusTable(rows []statusRow, pushes string, width int, now time.Time, paint painter) []string {
	columns := statusColumns(pushes)
	cells, widths := statusCells(rows, columns, now)
	left, topics := width, len("APP")
	for _, w := range widths {
		left -= w + 1
	}
	for i := range rows {
		topics = max(topics, utf8.RuneCountInString(cell(rows[i].Topic)))
	}
	topics = min(topics, max(left, minTopic))

	head := pad("APP", topics, false)
	for i, c := range columns {
		head += " " + pad(c.head, widths[i], i > 0)
	}
	lines := []string{paint(grey, head)}
	for j := range rows {
		line := pad(cutFront(cell(rows[j].Topic), topics), topics, false)
		for i, c := range columns {
			text := pad(cells[j][i], widths[i], i > 0)
			if c.colour != nil {
				text = paint(c.colour(&rows[j], now), text)
			}
			line += " " + text
		}
		lines = append(lines, line)
	}
	return lines
}

// statusCells are the texts of the table, by row, and how wide its columns are.
func statusCells(rows []statusRow, columns []statusColumn, now time.Time) (cells [][]string, widths []int) {
	cells, widths = make([][]string, len(rows)), make([]int, len(columns))
	for i, c := range columns {
		widths[i] = len(c.head)
		for j := range rows {
			text := c.cell(&rows[j], now)
			cells[j] = append(cells[j], text)
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	return cells, widths
}

// statusNotes say why apps are not as they should be, wrapped to width.
func statusNotes(rows []statusRow, width int, now time.Time, paint painter) []string {
	var lines []string
	for i := range rows {
		for _, n := range rows[i].notes(now) {
			for j, line := range wrap(cell(rows[i].Topic)+": "+cell(n.text), width-2) {
				if j > 0 {
					line = "  " + line
				}
				lines = append(lines, paint(n.colour, line))
			}
		}
	}
	return lines
}

// statusNote is something to be said of an app.
type statusNote struct{ colour, text string }

func (r *statusRow) notes(now time.Time) (all []statusNote) {
	since := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return fmt.Sprintf(" (for %s)", ago(now.Sub(t)))
	}
	waits := slices.IndexFunc(r.Workers, func(w httpapi.Worker) bool { return w.Waiting != "" })
	switch {
	case r.Reason != "":
		all = append(all, statusNote{stateColour(r.State), supervisor.Health{State: r.State, Reason: r.Reason}.String() + since(r.Since)})
		if help := apnsconn.Explain(r.Reason); help != "" {
			all = append(all, statusNote{grey, help})
		}
	case waits >= 0:
		all = append(all, statusNote{yellow, fmt.Sprintf("worker %d waits: %s", waits, r.Workers[waits].Waiting)})
	}
	if r.KeepsCredential() {
		all = append(all, statusNote{yellow, "its new credential cannot be used, so it keeps the one it has: " + r.CredentialFault})
	}
	if q := r.Queue; q != nil && q.Incomplete != "" {
		all = append(all, statusNote{yellow, "the queue's numbers are incomplete: " + q.Incomplete})
	}
	switch h := r.Webhook; {
	case h == nil:
	case h.Down:
		all = append(all, statusNote{yellow, "webhook takes no records: " + h.Reason + since(h.Since)})
	case h.Stalled != "":
		all = append(all, statusNote{yellow, "webhook stalls: " + h.Stalled})
	}
	if n := r.Pushes.PossibleDuplicates; n > 0 {
		all = append(all, statusNote{grey, fmt.Sprintf("%d possible duplicates since the daemon's start", n)})
	}
	return all
}

// maxFailures is how many failures of an app are shown: what fits beside the
// rest in a small window.
const maxFailures = 10

// statusFailures are the pushes of an app that last went wrong, a line each.
func statusFailures(a *httpapi.App, width int, now time.Time) []string {
	if len(a.Failures) == 0 {
		return nil
	}
	lines := []string{"the last failures:"}
	for _, f := range a.Failures[:min(len(a.Failures), maxFailures)] {
		why := strings.TrimPrefix(f.Reason, f.Class+": ")
		lines = append(lines, cutText(fmt.Sprintf("%4s ago  %-11s %s  token %s", ago(now.Sub(f.At)), f.Class, cell(why), cell(f.Token)), width))
	}
	return lines
}

func inFlight(a *httpapi.App) (n int) {
	for _, w := range a.Workers {
		n += w.InFlight
	}
	return n
}

func connected(a *httpapi.App) (n int) {
	for _, w := range a.Workers {
		if w.Connected {
			n++
		}
	}
	return n
}

// ended is how many pushes have ended, in whichever way.
func ended(a *httpapi.App) (n int64) {
	for _, c := range a.Pushes.Ended {
		n += c
	}
	return n
}
