package main

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// Bounds of what is printed of a failure; the files stay for the rest.
const (
	maxStories    = 4 // of each kind of fault
	maxStoryLines = 80
)

// stories prints all that is known of the pushes that went wrong.
func (a *account) stories(w io.Writer, at *site) {
	told := make(map[uint32]bool)
	for _, pushes := range [][]uint32{a.lost, a.uncounted, a.unrecorded, a.wrongPushes} {
		for _, n := range pushes[:min(len(pushes), maxStories)] {
			if !told[n] {
				told[n] = true
				a.story(w, at, n)
			}
		}
	}
}

// story prints the lines of all files on one push.
func (a *account) story(w io.Writer, at *site, n uint32) {
	l := a.said.ledger
	j, d := l.jobOf(n), &a.said.deeds[n]
	fmt.Fprintf(w, "\npush %d of a job of %d: %s, %s, %s, queue id %q, stored %v, put at %s, token %08x…\n",
		n, j.count, appAt(j.app).topic, j.kind, l.pushes[n].fate, j.id, j.stored, j.at.Format(time.RFC3339Nano), n)
	fmt.Fprintf(w, "  possible duplicates counted: %d\n", d.counted)
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
	token := fmt.Sprintf(`"token":"%08x`, n)
	ref := fmt.Sprintf(`"ref":%q`, reference(j.first))
	if l.pushes[n].fate == grave {
		if d.id != "" {
			grep(recordName, d.id)
		}
		grep(bookName, ref)
		grep(daemonLog, ref)
		return
	}
	grep(recordName, token)
	patterns := []string{token}
	if j.id != "" {
		for _, job := range []string{fmt.Sprintf(`"job":%q`, j.id), fmt.Sprintf(`-%s"`, j.id)} {
			if j.count > 1 { // only lines about all of them
				job += `,"err"`
			}
			patterns = append(patterns, job)
		}
	}
	grep(bookName, patterns...)
	grep(daemonLog, patterns...)
}
