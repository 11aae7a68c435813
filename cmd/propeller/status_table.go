package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"propeller/httpapi"
)

// statusRow is what status shows of an app.
type statusRow struct {
	*httpapi.App
	state   string
	latency *httpapi.Latency // nil: no push was answered
	pushes  string           // a rate, or how many were delivered
}

// stateIdle is what status calls an app that runs without a connection, since
// there has been nothing to send.
const stateIdle = "idle"

// stateColours tell states apart at a glance; their names tell it without.
var stateColours = map[string]string{ // never written to
	httpapi.StateRunning: green, stateIdle: grey, httpapi.StatePaused: yellow,
	httpapi.StateBroken: red, httpapi.StateStalled: red, httpapi.StateNoQueue: red,
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
	queue := func(pick func(*httpapi.Queue) int) func(*statusRow, time.Time) string {
		return func(r *statusRow, _ time.Time) string {
			if r.Queue == nil {
				return "-"
			}
			return short(float64(pick(r.Queue)))
		}
	}
	return []statusColumn{
		{"STATE", func(r *statusRow, _ time.Time) string { return spaced(r.state) },
			func(r *statusRow, _ time.Time) string { return stateColours[r.state] }},
		{pushes, func(r *statusRow, _ time.Time) string { return r.pushes }, nil},
		{"P50", func(r *statusRow, _ time.Time) string { return quantile(r.latency, false) }, nil},
		{"P99", func(r *statusRow, _ time.Time) string { return quantile(r.latency, true) }, nil},
		{"FLIGHT", func(r *statusRow, _ time.Time) string { return short(float64(inFlight(r.App))) }, nil},
		{"CONN", func(r *statusRow, _ time.Time) string { return fmt.Sprintf("%d/%d", connected(r.App), len(r.Workers)) }, nil},
		{"READY", queue(func(q *httpapi.Queue) int { return q.Ready }), nil},
		{"DELAY", queue(func(q *httpapi.Queue) int { return q.Delayed }), nil},
		{"BURIED", queue(func(q *httpapi.Queue) int { return q.Buried }), func(r *statusRow, _ time.Time) string {
			if r.Queue != nil && r.Queue.Buried > 0 {
				return yellow
			}
			return ""
		}},
		{"CERT", func(r *statusRow, now time.Time) string { return expiry(r.CredentialExpires, now) }, func(r *statusRow, now time.Time) string {
			switch left := r.CredentialExpires.Sub(now); {
			case r.CredentialExpires.IsZero() || left > soon:
				return ""
			case left > 24*time.Hour:
				return yellow
			}
			return red
		}},
	}
}

// statusTable lays out the rows in lines of at most width characters, where
// their numbers leave room for that, with a painter for colours.
func statusTable(rows []statusRow, pushes string, width int, now time.Time, paint func(code, text string) string) []string {
	columns := statusColumns(pushes)
	cells := make([][]string, len(rows))
	left := width
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = len(c.head)
		for j := range rows {
			text := c.cell(&rows[j], now)
			cells[j] = append(cells[j], text)
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
		left -= widths[i] + 1
	}
	topics := len("APP")
	for i := range rows {
		topics = max(topics, utf8.RuneCountInString(cell(rows[i].Topic)))
	}
	topics = min(topics, max(left, minTopic))
	head := fmt.Sprintf("%-*s", topics, "APP")
	for i, c := range columns {
		head += " " + pad(c.head, widths[i], i > 0)
	}
	lines := []string{paint(grey, strings.TrimRight(head, " "))}
	for j := range rows {
		line := pad(cutFront(cell(rows[j].Topic), topics), topics, false)
		for i, c := range columns {
			text := pad(cells[j][i], widths[i], i > 0)
			if c.colour != nil {
				if code := c.colour(&rows[j], now); code != "" {
					text = paint(code, text)
				}
			}
			line += " " + text
		}
		lines = append(lines, line)
	}
	return lines
}

// statusNotes say why apps are not as they should be, wrapped to width.
func statusNotes(rows []statusRow, width int, now time.Time, paint func(code, text string) string) []string {
	var lines []string
	note := func(code, topic, text string, since time.Time) {
		if !since.IsZero() {
			text += fmt.Sprintf(" (for %s)", ago(now.Sub(since)))
		}
		for i, line := range wrap(cell(topic)+": "+text, width-2) {
			if i > 0 {
				line = "  " + line
			}
			lines = append(lines, paint(code, line))
		}
	}
	for i := range rows {
		r := &rows[i]
		switch {
		case r.Reason != "":
			note(stateColours[r.state], r.Topic, spaced(r.state)+": "+cell(r.Reason), r.Since)
		default:
			if w := slices.IndexFunc(r.Workers, func(w httpapi.Worker) bool { return w.Waiting != "" }); w >= 0 {
				note(yellow, r.Topic, fmt.Sprintf("worker %d waits: %s", w, cell(r.Workers[w].Waiting)), time.Time{})
			}
		}
		if h := r.Webhook; h != nil && h.Down {
			note(yellow, r.Topic, "webhook takes no records: "+cell(h.Reason), h.Since)
		} else if h != nil && h.Stalled != "" {
			note(yellow, r.Topic, "webhook stalls: "+cell(h.Stalled), time.Time{})
		}
		if n := r.Pushes.PossibleDuplicates; n > 0 {
			note(grey, r.Topic, fmt.Sprintf("%d possible duplicates since the daemon's start", n), time.Time{})
		}
	}
	return lines
}

// spaced is a state's name as it is shown.
func spaced(state string) string { return strings.ReplaceAll(state, "_", " ") }

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

// short is a number in at most 5 characters, up to a billion.
func short(n float64) string {
	switch {
	case n < 9.95 && n != float64(int64(n)):
		return fmt.Sprintf("%.1f", n)
	case n < 9999.5:
		return fmt.Sprintf("%.0f", n)
	case n < 999_500:
		return fmt.Sprintf("%.0fk", n/1000)
	case n < 9_950_000:
		return fmt.Sprintf("%.1fM", n/1e6)
	}
	return fmt.Sprintf("%.0fM", n/1e6)
}

// quantile is the median, or with high the 99th percentile.
func quantile(l *httpapi.Latency, high bool) string {
	if l == nil {
		return "-"
	}
	ms := l.P50
	if high {
		ms = l.P99
	}
	if ms >= 999.5 {
		return short(ms/1000) + "s"
	}
	return short(ms) + "ms"
}

// expiry is when a certificate ends; "-" without one.
func expiry(at, now time.Time) string {
	switch left := at.Sub(now); {
	case at.IsZero():
		return "-"
	case left <= 0:
		return "over"
	default:
		return ago(left)
	}
}

// pad fills text up to width, on its left side if right is set.
func pad(text string, width int, right bool) string {
	fill := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
	if right {
		return fill + text
	}
	return text + fill
}

// cutFront is the end of s in at most n characters: bundle ids begin alike.
func cutFront(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return "…" + string(r[len(r)-n+1:])
}

// wrap breaks text at blanks into lines of at most width characters; a longer
// word is broken, too.
func wrap(text string, width int) []string {
	width = max(width, 1)
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for utf8.RuneCountInString(word) > width {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:width])), string(r[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
