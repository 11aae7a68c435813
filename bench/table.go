package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// grid is a table as text; the first row is the head, and all columns but the
// first are numbers.
type grid [][]string

// table has one row for each cell of the plan.
func (r *report) table() grid {
	g := grid{{
		"sender", "streams", "pushes/s", "±", "CPU µs/push", "nghttpd µs/push",
		"allocs/push", "bytes/push", "bytes/push in flight", "p50 µs", "p99 µs",
	}}
	for _, c := range plan(r.options.streams) {
		show := func(f func(turn) float64, decimals int, applies bool) string {
			if !applies {
				return "–"
			}
			return number(r.median(c, f), decimals)
		}
		goes, lone := c.sender != keyH2load, c.streams == 1
		g = append(g, []string{
			c.label(),
			itoa(c.streams),
			show(rate, 0, true),
			number(100*r.spread(c, rate), 0) + " %",
			show(cpu, 2, true),
			show(serverCPU, 2, r.median(c, serverCPU) > 0),
			show(allocs, 2, goes),
			show(bytesOf, 0, goes),
			show(heldOf, 0, c.holdsInFlight()),
			show(p50, 1, lone),
			show(p99, 1, lone),
		})
	}
	return g
}

// verdicts are the goals as a table.
func (r *report) verdicts() grid {
	g := grid{{"apnsconn", "measured", "wanted", "verdict"}}
	for _, goal := range r.goals() {
		verdict := "missed"
		switch {
		case goal.wanted == "":
			verdict = "–"
		case goal.met:
			verdict = "met"
		}
		g = append(g, []string{goal.what, goal.value, goal.wanted, verdict})
	}
	return g
}

// notes say where, with what and how it was measured.
func (r *report) notes() []string {
	m, o := r.machine, r.options
	notes := []string{
		fmt.Sprintf("%s, %d cores; %s; %s; %s; load average before the run %s.", m.cpu, m.cores, m.kernel, m.goVer, m.nghttp2, m.load),
		fmt.Sprintf("Medians of %d rounds of %v each after %v of warm-up; in a round the senders take turns. ± is half of the range of the rate. The whole took %.0f s.", o.rounds, o.duration, o.warm, r.took.Seconds()),
		fmt.Sprintf("One connection over TLS to nghttpd %s on the loopback interface, which answers 200 with an empty body.", strings.Join(nghttpdArgs[:], " ")),
		fmt.Sprintf("Payloads of %d bytes; %d different tokens of 64 hex digits and ids in turn; topic, push type, id, priority and expiration in the headers. h2load always sends the same id, some 27 bytes less per push; so does the row \"one id\", whose requests are the same.", payloadSize, shotCount),
		"Each sender is a process of its own. CPU is its user and system time: Go senders while they are measured, h2load from start to end. nghttpd's is reported in steps of 10 ms.",
		"Bytes in flight: live heap and stacks with all pushes sent and none answered (apnstest), less the same before, divided by their number; goroutines that wait for an answer count.",
		"With 1 stream, pushes go one after the other and p50 and p99 are the time of one; h2load reports whole microseconds.",
	}
	if load, err := strconv.ParseFloat(m.load, 64); err == nil && load > busy {
		notes = append(notes, "Others were at work on this machine before the run, and perhaps during it: rates, latencies and the verdicts on them are to be taken with care. Allocations, bytes and, less so, CPU do not suffer.")
	}
	return notes
}

// busy is the load average above which a machine is not quiet enough: half a
// core, of the two that one sender and nghttpd need.
const busy = 0.5

func (r *report) writeText(out io.Writer) error {
	w := bufio.NewWriter(out)
	for _, note := range r.notes() {
		fmt.Fprintln(w, note)
	}
	fmt.Fprintln(w)
	r.table().writeText(w)
	fmt.Fprintln(w)
	r.verdicts().writeText(w)
	return w.Flush()
}

func (r *report) writeMarkdown(out io.Writer) error {
	w := bufio.NewWriter(out)
	r.table().writeMarkdown(w)
	fmt.Fprintln(w)
	r.verdicts().writeMarkdown(w)
	fmt.Fprintln(w)
	for _, note := range r.notes() {
		fmt.Fprintln(w, "-", note)
	}
	return w.Flush()
}

func (g grid) writeText(w io.Writer) {
	widths := make([]int, len(g[0]))
	for _, row := range g {
		for i, text := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for _, row := range g {
		var line strings.Builder
		for i, text := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if i == 0 {
				line.WriteString(text + pad)
			} else {
				line.WriteString("  " + pad + text)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func (g grid) writeMarkdown(w io.Writer) {
	for i, row := range g {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|---%s|\n", strings.Repeat("|---:", len(row)-1))
		}
	}
}

// number writes v with its thousands apart.
func number(v float64, decimals int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	whole, rest, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return whole
}

// trimmed writes v as short as it can be.
func trimmed(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func itoa(n int) string { return strconv.Itoa(n) }
