package supervisor

import (
	"fmt"
	"log/slog"

	"github.com/thejerf/suture/v4"
)

// eventHook logs suture's events. It is called from many goroutines at once,
// on the supervisors' own, so it keeps no state and calls no supervisor; and
// it prints services by name only, since suture would print their fields.
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
