package supervisor

import (
	"context"
	"errors"

	"github.com/thejerf/suture/v4"
)

// ordered is a service that the watchdog restarts. suture must not count that
// as failures: after a few of them it would pause the restarts of the whole app,
// and so undo what the watchdog does. The watchdog keeps the pace itself.
type ordered struct {
	service interface {
		suture.Service
		String() string
	}
	restarted error // wrapped by what Serve returns when it ends by order
}

// String is the service's.
func (o *ordered) String() string { return o.service.String() }

// Serve serves the service, and again each time it ends by order.
func (o *ordered) Serve(ctx context.Context) error {
	for {
		err := o.service.Serve(ctx)
		if ctx.Err() != nil || !errors.Is(err, o.restarted) {
			return err
		}
	}
}
