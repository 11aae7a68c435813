package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"propeller/queue"
)

// Engine is a queue that can be asked for its jobs, as all can.
type Engine interface {
	queue.Queue
	queue.Admin
}

// shared is a queue whose user must not close it.
type shared struct{ Engine }

func (shared) Close() error { return nil }

// drainTime bounds how long a run removes jobs that it has left behind.
const drainTime = 20 * time.Second

// drain removes what an interrupted run has left in its tube.
func drain(q Engine, tube string) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	c, err := q.Consume(tube)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for {
		left, err := q.TubeStats(ctx, tube)
		if err != nil {
			return fmt.Errorf("tube %q: jobs may be left in it: %w", tube, err)
		}
		if left.Ready+left.Delayed+left.Reserved == 0 {
			return nil
		}
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		jobs, _ := c.Receive(short, 1000) // an error says that there are none for now
		cancel()
		for _, j := range jobs {
			if err := j.Done(ctx); err != nil && !errors.Is(err, queue.ErrLost) {
				return fmt.Errorf("tube %q: jobs are left in it: %w", tube, err)
			}
		}
	}
}
