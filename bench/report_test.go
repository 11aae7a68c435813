package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{5}, 5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 9, 2}, 3},
	} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v", got)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"0":         number(0, 0),
		"999":       number(999, 0),
		"1,000":     number(999.6, 0),
		"1,234.57":  number(1234.567, 2),
		"1,234,567": number(1234567, 0),
		"-123":      number(-123, 0),
		"-1,234":    number(-1234, 0),
		"–":         number(math.NaN(), 1),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestGoals: the verdicts follow the figures.
func TestGoals(t *testing.T) {
	t.Parallel()
	make := func(apnsconnRate int64) *report {
		r := &report{options: options{streams: []int{100, 900}}, turns: make(map[cell][]turn)}
		for _, c := range plan(r.options.streams) {
			for round := range 3 {
				f := figures{Pushes: 1000, All: 1000, Elapsed: time.Second, CPU: time.Second, P50: 2, P99: 3}
				if c.sender == keyApnsconn {
					f.Pushes = apnsconnRate + int64(round)
					f.CPU = time.Second / 100
				}
				r.turns[c] = append(r.turns[c], turn{figures: f})
			}
		}
		return r
	}
	for _, tt := range []struct {
		rate int64
		met  bool
	}{{1100, true}, {950, true}, {940, false}} {
		seen := 0
		for _, g := range make(tt.rate).goals() {
			if strings.Contains(g.what, "rate") && g.wanted != "" {
				seen++
				if g.met != tt.met {
					t.Errorf("rate %d: %+v", tt.rate, g)
				}
			}
		}
		if seen != len(feeds) {
			t.Errorf("%d goals for the rate", seen)
		}
	}
}

func TestParseH2load(t *testing.T) {
	t.Parallel()
	const out = "\nfinished in 1.47s, 204533.97 req/s, 4.50MB/s\nrequests: 3 total\nstatus codes: 300 2xx, 0 3xx, 0 4xx, 0 5xx\n"
	f, err := parseH2load(out, 300)
	if err != nil || f.Pushes != 300 || math.Abs(rate(turn{figures: f})-204534) > 1 {
		t.Errorf("got %+v, %v", f, err)
	}
	for name, bad := range map[string]string{
		"some refused": strings.Replace(out, "300 2xx", "299 2xx", 1),
		"no rate":      strings.Replace(out, "finished", "ended", 1),
		"rate 0":       strings.Replace(out, "204533.97", "0", 1),
		"nothing":      "",
	} {
		if f, err := parseH2load(bad, 300); err == nil {
			t.Errorf("%s: taken as %+v", name, f)
		}
	}
}
