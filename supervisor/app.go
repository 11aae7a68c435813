package supervisor

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/thejerf/suture/v4"

	"propeller/config"
	"propeller/worker"
	"propeller/worker/feedback"
)

// app is one app of the configuration: a supervisor of its own, so that its trouble delays no
// other app's restarts, with N workers, and the webhook if it has one.
type app struct {
	cfg     config.App  // what is in use
	wanted  config.App  // what the configuration says: its credential may be one that cannot be used; under Supervisor.mu
	shared  *worker.App // what its workers share
	totals  *appTotals
	sup     *suture.Supervisor
	service *joinable // of root: sup
	token   suture.ServiceToken
	log     *slog.Logger
	running chan struct{} // closed when sup takes changes
	workers []*appWorker
	webhook *webhook // nil: none

	noted   int                           // how often wanted was; under Supervisor.mu
	bad     atomic.Pointer[badCredential] // wanted's; nil: it is good
	stalled atomic.Pointer[Stall]         // set by the watchdog; nil: it does not stall
	past    atomic.Pointer[past]          // set by the state watcher; nil before its first look
	puts    puts                          // of Put and PutAll
	stats   atomic.Pointer[QueueStats]    // of the watchdog's last look; nil: not known
	records atomic.Pointer[QueueStats]    // the same of the feedback tube
}

// appTotals is what is counted of one app since the process began, and whether an
// operator has paused it. It outlives the app when that changes.
type appTotals struct {
	worker.Totals
	steps        Steps // of the watchdog, about the workers
	outcomes     recentOutcomes
	webhook      feedback.WebhookCounters
	webhookSteps Steps // of the watchdog, about the webhook
}

type appWorker struct {
	*worker.Worker
	index       int
	restartable *restartable // serves the worker
	service     *joinable    // serves restartable
	token       suture.ServiceToken

	// The watchdog's.
	progress progress
	stuckBy  string // why progress calls it stuck
}

func newApp(c config.App, shared *worker.App, totals *appTotals, log *slog.Logger) *app {
	a := &app{cfg: c, shared: shared, totals: totals, log: log, running: make(chan struct{})}
	a.sup = suture.New("app "+c.Name, suture.Spec{
		EventHook: eventHook(log), Timeout: stopLimit,
		// An app that ends is that app's end, not the daemon's.
		DontPropagateTermination: true,
	})
	a.service = &joinable{service: a}
	if !c.Broken() { // without workers its jobs stay where they are
		for i := range c.Workers {
			a.addWorker(i)
		}
	}
	return a
}

// String names the app in suture's events.
func (a *app) String() string { return a.sup.Name }

// Serve runs the app's supervisor.
func (a *app) Serve(ctx context.Context) error {
	ended := a.sup.ServeBackground(ctx)
	close(a.running) // a suture supervisor serves once
	return <-ended
}

func (a *app) addWorker(i int) {
	w := a.shared.NewWorker(i)
	r := &restartable{service: w}
	service := &joinable{service: r}
	a.workers = append(a.workers, &appWorker{Worker: w, index: i, restartable: r, service: service, token: a.sup.Add(service)})
}

// resize adds or removes workers until there are n; it returns the removed,
// still draining.
func (a *app) resize(n int, ended <-chan struct{}) (gone []*joinable) {
	if n == len(a.workers) || a.cfg.Broken() {
		return nil
	}
	select {
	case <-a.running: // adding to a supervisor that is just starting is a race in suture
	case <-ended:
		return nil
	}
	a.log.Info("workers changed", "app", a.cfg.Name, "topic", a.cfg.Topic, "from", len(a.workers), "to", n)
	for len(a.workers) < n {
		a.addWorker(len(a.workers))
	}
	for _, w := range a.workers[n:] {
		_ = a.sup.Remove(w.token) // fails only when the tree stops, which removes all
		gone = append(gone, w.service)
	}
	a.workers = a.workers[:n]
	a.cfg.Workers = n
	return gone
}

// remove takes the app out of the tree; it drains until wait returns.
func (a *app) remove(root *suture.Supervisor) *joinable {
	_ = root.Remove(a.token) // fails only when the tree stops, which removes all
	return a.service
}
