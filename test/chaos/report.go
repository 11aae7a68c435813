package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// print writes the account.
func (a *account) print(w io.Writer) {
	s := a.said
	row := func(n int, what string) { fmt.Fprintf(w, "%9d  %s\n", n, what) }
	row(a.put, fmt.Sprintf("put: pushes, in %d jobs", a.jobs))
	row(a.delivered, "delivered")
	row(a.refused, "refused with a record")
	row(a.buried, "buried with a reason")
	row(a.expired, "expired with a record")
	row(a.removed, "removed with a stream")
	row(a.waiting, "still in the queue")
	row(len(a.lost), "lost")
	row(a.twice, fmt.Sprintf("delivered more than once, %d of them for a killed daemon, %d because the queue's server stored a delayed job twice", a.excused, a.stored))
	row(len(a.uncounted), "delivered more than once and not counted")
	fmt.Fprintf(w, "besides: %d put without an answer from the queue, %d of them never stored; %d possible duplicates counted by the daemon; %d pushed to the wrong environment\n",
		a.unsure, a.never, s.doubts, a.misled)
	fmt.Fprintf(w, "requests at the APNs side: %d, %d of them for tokens long dead: %s\n", s.requests, s.graves, counts(s.answers))
	fmt.Fprintf(w, "feedback records: %s; %d given twice, %d received twice\n", counts(s.records), a.repeated, s.repeats)
	fmt.Fprintf(w, "buried jobs with their reasons: %d listed, %d others\n", a.listed, a.explained)
	for _, more := range []struct {
		what string
		of   map[string]int
	}{{"buried", s.reasons}, {"watchdog", s.watchdog}, {"error lines", s.errors}} {
		if len(more.of) > 0 {
			fmt.Fprintf(w, "%s: %s\n", more.what, counts(more.of))
		}
	}
}

// counts writes a map by falling numbers.
func counts(m map[string]int) string {
	keys := slices.SortedFunc(maps.Keys(m), func(x, y string) int {
		if m[x] != m[y] {
			return m[y] - m[x]
		}
		return strings.Compare(x, y)
	})
	var b strings.Builder
	for i, k := range keys {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", m[k], k)
	}
	return b.String()
}

// faults lists why the run has failed; none when it has not.
func (a *account) faults() []string {
	var out []string
	count := func(pushes []uint32, what string) {
		if n := len(pushes); n > 0 {
			out = append(out, fmt.Sprintf("%d pushes %s: %s", n, what, a.sorts(pushes)))
		}
	}
	count(a.lost, "lost")
	count(a.uncounted, "delivered more than once without being counted")
	count(a.unrecorded, "ended without their feedback record")
	out = append(out, a.wrong...)
	out = append(out, a.said.misled...)
	for _, b := range a.said.breaches {
		out = append(out, "HTTP/2: "+b)
	}
	for _, o := range a.said.odd {
		out = append(out, "no log line: "+o)
	}
	return out
}

// sorts says of what sorts pushes are.
func (a *account) sorts(pushes []uint32) string {
	l, sorts := a.said.ledger, make(map[string]int)
	for _, n := range pushes {
		j := l.jobOf(n)
		sort := fmt.Sprintf("of %s (%v, %v", appAt(j.app).topic, j.kind, l.pushes[n].fate)
		if j.many {
			sort += ", in a list"
		}
		sorts[sort+")"]++
	}
	return counts(sorts)
}
