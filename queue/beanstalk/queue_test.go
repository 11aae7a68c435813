package beanstalk

import (
	"math"
	"testing"
	"time"
)

func TestWholeSeconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]time.Duration{
		-time.Second:            0,
		0:                       0,
		1:                       time.Second,
		999 * time.Millisecond:  time.Second,
		time.Second:             time.Second,
		1001 * time.Millisecond: 2 * time.Second,
		math.MaxInt64:           maxSeconds * time.Second,
	} {
		if got := wholeSeconds(d); got != want {
			t.Errorf("%v: %v, want %v", d, got, want)
		}
	}
}
