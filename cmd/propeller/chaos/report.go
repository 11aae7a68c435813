package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// print writes the account.
func (a *account) print(w io.Writer) {
	row := func(n int, what string) { fmt.Fprintf(w, "%9d  %s\n", n, what) }
	row(a.put, "put")
	row(a.unsure, fmt.Sprintf("put without an answer from the queue, %d of them never stored", a.never))
	row(a.delivered, "delivered")
	row(a.refused, "refused with a record")
	row(a.buried, "buried with a reason")
	row(a.expired, "expired with a record")
	row(len(a.lost), "lost")
	row(a.twice, fmt.Sprintf("delivered more than once, %d of them for a killed daemon", a.excused))
	row(a.doubts, "possible duplicates counted by the daemon")
	row(len(a.uncounted), "delivered more than once and not counted")
	row(a.requests, "requests at the APNs side: "+counts(a.answers))
	if len(a.reasons) > 0 {
		fmt.Fprintf(w, "buried: %s\n", counts(a.reasons))
	}
	if len(a.errors) > 0 {
		fmt.Fprintf(w, "error lines: %s\n", counts(a.errors))
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
	if n := len(a.lost); n > 0 {
		out = append(out, fmt.Sprintf("%d jobs lost", n))
	}
	if n := len(a.uncounted); n > 0 {
		out = append(out, fmt.Sprintf("%d jobs delivered more than once without being counted", n))
	}
	out = append(out, a.wrong...)
	out = append(out, a.misled...)
	for _, b := range a.breaches {
		out = append(out, "HTTP/2: "+b)
	}
	for _, o := range a.odd {
		out = append(out, "no log line: "+o)
	}
	return out
}

// Bounds of what is printed of a failure; the files stay for the rest.
const (
	maxStories    = 10
	maxStoryLines = 80
)

// stories prints all that is known of the jobs that went wrong.
func (a *account) stories(w io.Writer, at *site) {
	told := make(map[uint32]bool)
	for _, j := range slices.Concat(a.lost, a.uncounted, a.wrongJobs) {
		if len(told) == maxStories {
			fmt.Fprintln(w, "… and others")
			return
		}
		if !told[j.n] {
			told[j.n] = true
			story(w, at, j, a.deeds[j.n])
		}
	}
}

// story prints the lines of all files on one job, in the order of their times.
func story(w io.Writer, at *site, j job, d *deeds) {
	fmt.Fprintf(w, "\njob %d: %s, %s, queue id %d, stored %v, put at %s, token %08x…\n",
		j.n, apps()[j.app].topic, j.kind, j.id, j.stored, j.at.Format(time.RFC3339Nano), j.n)
	if d != nil {
		fmt.Fprintf(w, "  possible duplicates counted: %d\n", d.counted)
	}
	printed := 0
	grep := func(name string, patterns ...string) {
		err := eachLine(at.path(name), func(n int, line []byte) {
			for _, p := range patterns {
				if bytes.Contains(line, []byte(p)) && printed < maxStoryLines {
					printed++
					fmt.Fprintf(w, "  %s:%d: %s\n", name, n, line)
					return
				}
			}
		})
		if err != nil {
			fmt.Fprintf(w, "  %v\n", err)
		}
	}
	grep("apns.record", fmt.Sprintf(`"token":"%08x`, j.n))
	patterns := []string{fmt.Sprintf(`"token":"%08x"`, j.n)}
	if j.id != 0 {
		patterns = append(patterns, fmt.Sprintf(`"job":"%d"`, j.id))
	}
	grep(daemonLog, patterns...)
}
