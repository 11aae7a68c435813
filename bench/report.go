package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// report is a run's result.
type report struct {
	options options
	machine machine
	turns   map[cell][]turn // one for each round
	took    time.Duration
}

// median returns the median of f over c's rounds.
func (r *report) median(c cell, f func(turn) float64) float64 {
	var values []float64
	for _, t := range r.turns[c] {
		values = append(values, f(t))
	}
	return median(values)
}

// ratio returns the median over the rounds of f of a divided by f of b in the
// same round: what disturbs a round mostly disturbs both.
func (r *report) ratio(a, b cell, f func(turn) float64) float64 {
	var values []float64
	for round := range min(len(r.turns[a]), len(r.turns[b])) {
		values = append(values, f(r.turns[a][round])/f(r.turns[b][round]))
	}
	return median(values)
}

// spread is half of what lies between the extremes of f over the rounds, as a
// part of the median.
func (r *report) spread(c cell, f func(turn) float64) float64 {
	least, most := math.Inf(1), math.Inf(-1)
	for _, t := range r.turns[c] {
		least, most = min(least, f(t)), max(most, f(t))
	}
	return (most - least) / 2 / r.median(c, f)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

// What the columns show of a turn.

func rate(t turn) float64      { return float64(t.Pushes) / t.Elapsed.Seconds() }
func cpu(t turn) float64       { return microseconds(t.CPU) / float64(t.Pushes) }
func serverCPU(t turn) float64 { return microseconds(t.server) / float64(t.All) }
func allocs(t turn) float64    { return float64(t.Allocs) / float64(t.Pushes) }
func bytesOf(t turn) float64   { return float64(t.Bytes) / float64(t.Pushes) }
func heldOf(t turn) float64    { return t.Held }
func p50(t turn) float64       { return microseconds(t.P50) }
func p99(t turn) float64       { return microseconds(t.P99) }

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// goal is something that apnsconn shall reach, and what it did reach.
type goal struct {
	what   string
	value  string
	wanted string // "" where the figure is only told
	met    bool
}

// goals compares apnsconn with the others.
func (r *report) goals() []goal {
	var list []goal
	least := func(what string, v, limit float64) {
		list = append(list, goal{what, number(v, 2), "≥ " + trimmed(limit), v >= limit})
	}
	most := func(what string, v float64, decimals int, limit float64) {
		list = append(list, goal{what, number(v, decimals), "≤ " + trimmed(limit), v <= limit})
	}
	told := func(what string, v float64) {
		list = append(list, goal{what: what, value: number(v, 2)})
	}
	busiest := slices.Max(r.options.streams)
	for _, n := range slices.Backward(r.options.streams) {
		at := fmt.Sprintf(" at %d streams", n)
		yardstick, theirs := cell{keyH2load, byCallback, n}, cell{keyAPNs2, byCallers, n}
		for _, f := range feeds {
			ours := cell{keyApnsconn, f, n}
			what, v := ours.label()+": rate / h2load's"+at, r.ratio(ours, yardstick, rate)
			if n == busiest {
				least(what, v, 0.95)
			} else {
				told(what, v)
			}
		}
		ours := cell{keyApnsconn, byCallback, n}
		most("CPU per push / apns2's"+at, r.ratio(ours, theirs, cpu), 3, 0.1)
		most("allocations per push"+at, r.median(ours, allocs), 2, 6)
		most("bytes per push in flight"+at, r.median(ours, heldOf), 0, 2048)
	}
	one, other := cell{keyApnsconn, byCallers, 1}, cell{keyClientConn, byCallers, 1}
	most("time of a lone push / http2.ClientConn's, p50", r.ratio(one, other, p50), 2, 1)
	most("time of a lone push / http2.ClientConn's, p99", r.ratio(one, other, p99), 2, 1)
	return list
}
