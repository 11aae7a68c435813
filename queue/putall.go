package queue

import (
	"context"

	"propeller/internal/parallel"
)

// NewJob is a job for PutAll.
type NewJob struct {
	Tube string
	Body []byte
	PutOptions
}

// Stored is what became of a job for PutAll: what Put returns.
type Stored struct {
	ID  string
	Err error
}

// ManyPutter is a Queue that puts many jobs at less cost than one by one. Queues
// that offer it implement it beside Queue; PutAll finds it.
type ManyPutter interface {
	// PutAll puts jobs, all at the same time and in no promised order, and
	// returns when it is known of each what Put would have returned. All of
	// them are in memory until then: how many is up to the caller.
	PutAll(ctx context.Context, jobs []NewJob) []Stored
}

// putsAtOnce is how many puts PutAll keeps under way on a queue that knows no
// better way: enough to bridge its round trip.
const putsAtOnce = 64

// PutAll puts jobs on q and returns what became of each, in their order. Each of
// them stands for itself.
func PutAll(ctx context.Context, q Queue, jobs []NewJob) []Stored {
	if many, ok := q.(ManyPutter); ok && len(jobs) > 1 {
		return many.PutAll(ctx, jobs)
	}
	out := make([]Stored, len(jobs))
	put := func(i int) bool {
		j := &jobs[i]
		out[i].ID, out[i].Err = q.Put(ctx, j.Tube, j.Body, j.PutOptions)
		return true
	}
	if len(jobs) == 1 {
		put(0) // without another goroutine
	} else {
		parallel.Do(putsAtOnce, len(jobs), put)
	}
	return out
}
