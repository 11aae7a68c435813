package backoff

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestPause(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shortest, longest time.Duration
		attempt           int
		want              time.Duration // without jitter
	}{
		{time.Second, time.Minute, 0, time.Second},
		{time.Second, time.Minute, 1, time.Second},
		{time.Second, time.Minute, 2, 2 * time.Second},
		{time.Second, time.Minute, 6, 32 * time.Second},
		{time.Second, time.Minute, 7, time.Minute},
		{time.Second, time.Minute, math.MaxInt, time.Minute},
		{time.Second, time.Minute + 1, math.MaxInt, time.Minute + 1},
		{time.Hour, math.MaxInt64, 80, math.MaxInt64},
		{time.Hour, time.Minute, 1, time.Minute},
		{0, time.Minute, math.MaxInt, 0},
		{time.Second, 0, 3, 0},
	} {
		seen := make(map[time.Duration]bool)
		for range 100 {
			d := Pause(tt.shortest, tt.longest, tt.attempt)
			seen[d] = true
			if d < tt.want-tt.want/5 || d > tt.longest || d-tt.want > tt.want/5 {
				t.Fatalf("Pause(%v, %v, %d) = %v, want about %v", tt.shortest, tt.longest, tt.attempt, d, tt.want)
			}
		}
		if tt.want > 0 && len(seen) < 50 { // at the bound, too
			t.Errorf("Pause(%v, %v, %d): %d different pauses of 100", tt.shortest, tt.longest, tt.attempt, len(seen))
		}
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	var below, above bool
	for range 200 {
		d := Jitter(time.Second)
		if d < 800*time.Millisecond || d > 1200*time.Millisecond {
			t.Fatal(d)
		}
		below, above = below || d < 900*time.Millisecond, above || d > 1100*time.Millisecond
	}
	if !below || !above {
		t.Error("the jitter does not use its range")
	}
	if d := Jitter(0); d != 0 {
		t.Error(d)
	}
}

func TestBackoffGrowsAndResets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{Min: time.Second, Max: 5 * time.Second}
		for round := range 2 {
			for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
				began := time.Now()
				if err := b.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(began); d < want*8/10 || d > min(want*12/10, b.Max) {
					t.Errorf("round %d: pause %d took %v, want about %v", round, i, d, want)
				}
			}
			b.Reset()
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		b := Backoff{Min: time.Hour, Max: time.Hour}
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
