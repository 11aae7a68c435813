package supervisor

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"propeller/queue"
)

// partAdmin is a queue of several servers, of which one is away.
type partAdmin struct{ queue.Admin }

func (partAdmin) TubeStats(context.Context, string) (queue.TubeStats, error) {
	return queue.TubeStats{Ready: 7}, fmt.Errorf("b is away: %w", queue.ErrPartial)
}

// The numbers of those servers that answer are kept, as what they are.
func TestIncompleteNumbers(t *testing.T) {
	t.Parallel()
	d := questions{admin: partAdmin{}, each: statsTime, end: time.Now().Add(time.Hour)}
	var kept atomic.Pointer[QueueStats]
	if n := d.available(t.Context(), "tube", &kept); n != (available{7, true}) {
		t.Errorf("%+v", n)
	}
	if st := kept.Load(); st == nil || st.Ready != 7 || st.Incomplete != "b is away: only some servers answer: queue unavailable" {
		t.Errorf("%+v", st)
	}
}
