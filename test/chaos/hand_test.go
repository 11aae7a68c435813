package main

import (
	"context"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

// When the faults are over, one more act that may be the last is done, and nothing after it.
func TestTheLastAct(t *testing.T) {
	t.Parallel()
	var done []string
	do := func(name string) func(context.Context, context.Context) error {
		return func(_, faults context.Context) error {
			done = append(done, name)
			if faults.Err() != nil {
				t.Errorf("%s has no time", name)
			}
			return nil
		}
	}
	h := &hand{rng: newRNG(1, 1), mean: time.Hour, acts: []act{
		{name: "first", weight: 1000, do: do("first")}, {name: "last", weight: 1, last: true, do: do("last")},
	}}
	faults, end := context.WithCancel(t.Context())
	end()
	if err := h.run(t.Context(), faults); err != nil || len(done) != 1 || done[0] != "last" || h.done["last"] != 1 {
		t.Errorf("done %q, %v", done, err)
	}
	h.acts, done = h.acts[:1], nil
	if err := h.run(t.Context(), faults); err != nil || len(done) != 0 {
		t.Errorf("without a last act: done %q, %v", done, err)
	}
}

// An APNs side in the profile closed refuses every stream, whatever the token; in the profile
// leaving it takes none of them.
func TestNothingIsTaken(t *testing.T) {
	t.Parallel()
	a := newAnswers(1, "closed", func(int, uint32) {})
	for i, f := range []fate{good, dead, alien, bad, reborn, grave} {
		r := &apnstest.Request{Conn: 1, Stream: uint32(2*i + 1), Token: token(7, f)}
		if name := a.choose(r); name != "refused" {
			t.Errorf("%s: %s", f, name)
		}
	}
	a.set("leaving")
	for i, f := range []fate{good, dead, good} {
		r := &apnstest.Request{Conn: 2, Stream: uint32(2*i + 1), Token: token(7, f)}
		a.script(r)
		if name, delivered := a.named(r); delivered || name != "leave" && name != "ignored" {
			t.Errorf("%s: %s", f, name)
		}
	}
	a.set("calm")
	if name := a.choose(&apnstest.Request{Conn: 3, Stream: 1, Token: token(7, good)}); name != "200" {
		t.Errorf("calm: %s", name)
	}
}

// Each kind of job is put by every producer, and lists come, too.
func TestAllShapesAreDrawn(t *testing.T) {
	t.Parallel()
	p := &producer{app: logOnly, rng: newRNG(1, 1)}
	seen, lists, long := make(map[kind]int), 0, 0
	for range 5000 {
		k, many, fates := p.shape()
		seen[k]++
		if many {
			lists++
			long = max(long, len(fates))
		}
	}
	for _, k := range []kind{plain, delayed, timed, dated, misspelt, malformed, oversize} {
		if seen[k] == 0 {
			t.Errorf("no job of kind %s", k)
		}
	}
	if lists < 400 || long < 100 {
		t.Errorf("%d lists, the longest of %d tokens", lists, long)
	}
}

// Oversize jobs are buried and never delivered.
func TestOversizeIsBuried(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, oversize, good)
	s.bury(n, 2, "")
	s.feed(n, 2, "rejected")
	s.deliver(s.put(withTube, oversize, good), 1, 2)
	if a := s.wantFaults(t, "push 1 (too large, good token): was delivered"); a.buried != 1 {
		t.Errorf("buried %d, want 1", a.buried)
	}
}
