package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/thejerf/suture/v4"

	"propeller/worker"
)

// restartable is a worker or webhook that the watchdog restarts. suture must not count that as
// a failure: after a few it would pause the restarts of the whole app, and so undo what the
// watchdog does. The watchdog sets the pace itself.
type restartable struct {
	service interface {
		suture.Service
		String() string
	}
	cancel atomic.Pointer[context.CancelCauseFunc] // ends the current run; nil before the first
}

// String is the service's: without it suture would print its fields.
func (r *restartable) String() string { return r.service.String() }

// Serve runs the service, and runs it again after each Restart.
func (r *restartable) Serve(ctx context.Context) error {
	for {
		run, cancel := context.WithCancelCause(ctx)
		r.cancel.Store(&cancel)
		err := r.service.Serve(run)
		restarted := errors.Is(context.Cause(run), worker.ErrRestarted)
		cancel(nil)
		if ctx.Err() != nil || !restarted {
			return err
		}
	}
}

// Restart ends the service, with ErrRestarted as the cause of its context, and serves it
// again. It does nothing unless the service runs.
func (r *restartable) Restart() {
	if cancel := r.cancel.Load(); cancel != nil {
		(*cancel)(worker.ErrRestarted)
	}
}

// joinable is a service that can be waited for after its removal. suture's own
// RemoveAndWait leaves a goroutine behind when the tree stops meanwhile.
type joinable struct {
	service interface {
		suture.Service
		String() string
	}
	mu      sync.Mutex
	serving chan struct{} // closed when Serve returns; nil when it does not run
}

// String is the service's: without it suture would print its fields.
func (j *joinable) String() string { return j.service.String() }

// Serve serves the service.
func (j *joinable) Serve(ctx context.Context) error {
	done := make(chan struct{})
	j.set(done)
	defer func() {
		j.set(nil)
		close(done)
	}()
	return j.service.Serve(ctx)
}

func (j *joinable) set(c chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.serving = c
}

// wait returns when the removed service has stopped.
func (j *joinable) wait() {
	j.mu.Lock()
	serving := j.serving
	j.mu.Unlock()
	if serving != nil {
		<-serving
	}
}

// eventHook logs suture's events. Many goroutines call it at once, the supervisors' own among
// them, so it keeps no state and calls no supervisor. It names services only, since suture would
// print their fields.
func eventHook(log *slog.Logger) suture.EventHook {
	return func(e suture.Event) {
		switch e := e.(type) { // events are values
		case suture.EventServicePanic:
			log.Error("service panicked; it is restarted", "service", e.ServiceName, "panic", e.PanicMsg, "stack", e.Stacktrace, "restarting", e.Restarting)
		case suture.EventServiceTerminate:
			log.Error("service ended unexpectedly; it is restarted", "service", e.ServiceName, "err", fmt.Sprint(e.Err), "restarting", e.Restarting)
		case suture.EventBackoff:
			log.Error("too many failures: restarts are paused", "supervisor", e.SupervisorName)
		case suture.EventResume:
			log.Info("restarts resume", "supervisor", e.SupervisorName)
		case suture.EventStopTimeout:
			log.Error("service did not stop in time", "service", e.ServiceName)
		default:
			log.Warn("supervision event of an unknown kind", "kind", int(e.Type()))
		}
	}
}
