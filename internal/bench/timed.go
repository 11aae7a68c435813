package bench

import (
	"bytes"
	"context"
	"sync"
	"time"

	"propeller/internal/apnslean"
	"propeller/queue"
)

// timedQueue times jobs from their put to the end of their settling, for an
// APNs side that cannot tell when a push came.
type timedQueue struct {
	engine

	mu    sync.Mutex
	times apnslean.Histogram
}

// take returns what was timed, and begins anew.
func (q *timedQueue) take() apnslean.Histogram {
	q.mu.Lock()
	defer q.mu.Unlock()
	times := q.times
	q.times = apnslean.Histogram{}
	return times
}

func (q *timedQueue) Consume(tube string) (queue.Consumer, error) {
	c, err := q.engine.Consume(tube)
	if err != nil {
		return nil, err
	}
	return &timedConsumer{c, q}, nil
}

type timedConsumer struct {
	queue.Consumer
	q *timedQueue
}

func (c *timedConsumer) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	jobs, err := c.Consumer.Receive(ctx, n)
	for i, j := range jobs {
		jobs[i] = &timedJob{j, c.q}
	}
	return jobs, err
}

type timedJob struct {
	queue.Job
	q *timedQueue
}

func (j *timedJob) Done(ctx context.Context) error {
	err := j.Job.Done(ctx)
	// The stamp ends the job's data, behind which only the job's brace follows.
	put, ok := apnslean.Stamped(bytes.TrimSuffix(j.Body(), []byte("}")))
	if err == nil && ok {
		j.q.mu.Lock()
		j.q.times.Add(time.Since(put))
		j.q.mu.Unlock()
	}
	return err
}
