package beanstalk

import (
	"context"
	"errors"

	"propeller/queue"
)

var errBuilding = errors.New("beanstalk: buried jobs: being built")

// Buried implements queue.Admin.
func (q *client) Buried(ctx context.Context, tube string, limit int) ([]queue.BuriedJob, error) {
	return nil, errBuilding
}

// Peek implements queue.Admin.
func (q *client) Peek(ctx context.Context, tube, id string) (queue.BuriedJob, error) {
	return queue.BuriedJob{}, errBuilding
}

// Kick implements queue.Admin.
func (q *client) Kick(ctx context.Context, tube, id string) error { return errBuilding }

// Delete implements queue.Admin.
func (q *client) Delete(ctx context.Context, tube, id string) error { return errBuilding }
