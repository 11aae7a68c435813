package supervisor

import (
	"strings"
	"testing"
	"time"
)

// moment is what the watchdog sees in a test, and what it is to do.
type moment struct {
	view
	want step
	say  string // part of the reason
}

func ready(n int) view                  { return view{known: true, ready: n} }
func holding(n int) view                { return view{known: true, reserved: n, received: int64(n)} }
func (v view) but(f func(v *view)) view { f(&v); return v }

// repeat is n looks at the same that lead to nothing, and then one at it that
// leads to want.
func repeat(n int, v view, want step, say string) []moment {
	out := make([]moment, n+1)
	for i := range out {
		out[i] = moment{view: v}
	}
	out[n].want, out[n].say = want, say
	return out
}

func join(parts ...[]moment) (all []moment) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Looks are a quarter of a period apart: four make a period, after the first,
// which only shows that there is work.
func TestProgress(t *testing.T) {
	t.Parallel()
	unreachable := ready(3).but(func(v *view) { v.cause = "apns not reachable: refused" })
	gone := view{cause: "queue unavailable: refused", waits: true}
	explained := holding(7).but(func(v *view) { v.explained = true })
	blind := view{}
	idle := ready(0)
	finished := func(n int64, v view) view { v.finished = n; return v }
	received := func(n int64, v view) view { v.received = n; return v }
	stuck := join(
		repeat(4, holding(7), replace, "has reserved 7 jobs and finished none for 1m0s"),
		repeat(3, holding(7), restart, "for 2m0s"),
		repeat(3, holding(7), stall, "for 3m0s"))
	tests := []struct {
		name  string
		looks []moment
	}{
		{"nothing to do", repeat(400, idle, stay, "")},
		{"work is done", func() (all []moment) {
			for i := range 400 {
				all = append(all, moment{view: finished(int64(i), holding(7))})
			}
			return all
		}()},
		{"jobs held and none finished", stuck},
		{"finishing one ends it", join(stuck, repeat(0, finished(1, holding(7)), recovered, "finished jobs again"), repeat(3, finished(1, holding(7)), replace, ""))},
		{"before it has stalled nothing is said", join(stuck[:5], repeat(3, finished(1, holding(7)), stay, ""))},
		{"stalled jobs taken by others", join(repeat(11, ready(5), stay, "")[:4], // less than a step
			repeat(0, idle, stay, ""), repeat(3, ready(5), stay, ""))},
		{"a stalled app whose jobs have gone", join(stuck, // they are its own: it waits whether they come back
			repeat(10, received(7, idle), stay, ""), repeat(0, received(7, idle), recovered, "no job waits"))},
		{"restarted again and again", join(stuck,
			repeat(27, holding(7), restart, ""), repeat(39, holding(7), restart, ""), repeat(39, holding(7), restart, ""))},
		{"receives nothing of what is ready", join(
			repeat(4, ready(5), restart, "has received none of 5 ready jobs for 1m0s"),
			repeat(3, ready(5), restart, ""),
			repeat(3, ready(5), stall, "has received none"))},
		{"receives and finishes nothing", func() (all []moment) {
			for i := range 12 {
				all = append(all, moment{view: received(int64(i), ready(5))})
			}
			all[4].want, all[8].want = replace, restart
			all[8].say = "has finished none of its jobs for 2m0s, with 5 ready"
			return all
		}()},
		{"jobs that come and go round", func() (all []moment) {
			// Three looks at them, one while they are back in the queue with a
			// pause: two quarters of time with work in four.
			for i := range 8 {
				h := received(int64(7*(i+1)), holding(7))
				all = append(all, moment{view: h}, moment{view: h}, moment{view: h}, moment{view: received(int64(7*(i+1)), idle)})
			}
			all[6].want, all[14].want, all[22].want = replace, restart, stall
			return all
		}()},
		{"a known cause is not treated, and stalls", join(
			repeat(12, unreachable, stall, "apns not reachable: refused"), repeat(100, unreachable, stay, ""))},
		{"what a known cause leaves behind is treated", join(
			repeat(12, unreachable, stall, ""), repeat(3, ready(3), restart, ""))},
		{"what the app's state explains is no stall", join(
			repeat(100, explained, stay, ""), stuck[1:])}, // it starts again when that is over
		{"the queue is gone", repeat(12, gone, stall, "queue unavailable")},
		{"numbers are not to be had", join(stuck[:4], repeat(100, blind, stay, ""))},
		{"numbers are not to be had of what is held", repeat(4, holding(7).but(func(v *view) { v.known = false }), replace, "")},
		{"counters begin anew", join(
			repeat(3, finished(100, holding(7)), stay, ""), repeat(0, finished(0, holding(7)), replace, ""))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := progress{period: time.Minute}
			now := time.Unix(1e9, 0)
			for i, m := range test.looks {
				got, why := p.look(now, m.view)
				if got != m.want || !strings.Contains(why, m.say) {
					t.Fatalf("look %d: step %d, %q; want %d, %q", i, got, why, m.want, m.say)
				}
				now = now.Add(15 * time.Second)
			}
		})
	}
}

// An hour between two looks is that of a process or machine that stood still.
func TestProgressAfterStandstill(t *testing.T) {
	t.Parallel()
	p := progress{period: time.Minute}
	now := time.Unix(1e9, 0)
	for range 2 {
		if got, _ := p.look(now, holding(1)); got != stay {
			t.Errorf("step %d", got)
		}
		now = now.Add(time.Hour)
	}
}
