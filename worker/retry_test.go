package worker

import (
	"testing"
	"time"
)

// A broken app's probe dials anew: the pause between dials never makes it late.
func TestBackoffBounds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for range 200 {
		var l link
		for try := range 20 {
			l.failed(now)
			want := min(dialMax, dialMin<<min(try, 10))
			if d := l.dialAt.Sub(now); d < want*8/10 || d > want*12/10 || d > ProbeEvery {
				t.Fatalf("%v after dial %d, want about %v", d, try+1, want)
			}
		}
	}
}
