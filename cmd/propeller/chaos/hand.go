package main

import (
	"context"
	"math/rand/v2"
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
}

// run acts until faults ends. An error is this program's own failure.
func (h *hand) run(life, faults context.Context) error {
	total := 0
	for _, a := range h.acts {
		total += a.weight
	}
	h.done = make(map[string]int)
	for {
		sleep(faults, time.Duration(h.rng.Int64N(int64(2*h.mean))))
		if faults.Err() != nil {
			return life.Err()
		}
		n := h.rng.IntN(total)
		for _, a := range h.acts {
			if n -= a.weight; n < 0 {
				h.done[a.name]++
				if err := a.do(life, faults); err != nil {
					return err
				}
				break
			}
		}
	}
}

// upTo is a random time below d.
func (h *hand) upTo(d time.Duration) time.Duration { return time.Duration(h.rng.Int64N(int64(d))) }
