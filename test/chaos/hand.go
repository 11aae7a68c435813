package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// hand does harm to one process, by dice. Each process has its own, so that
// faults overlap.
type hand struct {
	rng  *rand.Rand
	mean time.Duration // between two acts
	acts []act
	done map[string]int // acts by name
}

// act is one thing that a hand does. It leaves its process running. life is
// the program's; faults ends when the faults are to stop, and cuts pauses short.
type act struct {
	name   string
	weight int
	do     func(life, faults context.Context) error
	last   bool // may be the last fault: nothing after it repairs what it leaves behind
}

// lastTime bounds the last fault.
const lastTime = 25 * time.Second

// run acts until faults ends. An error is this program's own failure.
func (h *hand) run(life, faults context.Context) error {
	h.done = make(map[string]int)
	for {
		sleep(faults, time.Duration(h.rng.Int64N(int64(2*h.mean))))
		if faults.Err() != nil {
			break
		}
		if err := h.act(life, faults, h.acts); err != nil {
			return err
		}
	}
	ends := slices.DeleteFunc(slices.Clone(h.acts), func(a act) bool { return !a.last })
	if len(ends) == 0 || life.Err() != nil {
		return life.Err()
	}
	last, cancel := context.WithTimeout(life, lastTime)
	defer cancel()
	return h.act(life, last, ends)
}

// act picks one of acts at random and does it.
func (h *hand) act(life, faults context.Context, acts []act) error {
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	n := h.rng.IntN(total)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			h.done[a.name]++
			return a.do(life, faults)
		}
	}
	return nil
}

// upTo is a random time below d.
func (h *hand) upTo(d time.Duration) time.Duration { return time.Duration(h.rng.Int64N(int64(d))) }
