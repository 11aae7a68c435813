package supervisor

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"

	"propeller/config"
	"propeller/queue"
	"propeller/worker"
	"propeller/worker/feedback"
)

// app is one entry of the configuration. While it is awake it has a tree that works; while its
// tube is empty it sleeps, and has none.
type app struct {
	cfg    *config.App // what is in use; never changed
	wanted *config.App // what the configuration says: its credential may be one that cannot be used; under Supervisor.mu
	shared *worker.App // what its workers share
	totals *appTotals
	log    *slog.Logger
	size   int       // workers, since cfg.Workers may have changed; under Supervisor.mu
	tree   *appTree  // nil: it sleeps; under Supervisor.mu
	waits  time.Time // since when it is in Supervisor.sleep.waiting; zero: it is not; under Supervisor.mu

	noted   int                           // how often wanted was; under Supervisor.mu
	bad     atomic.Pointer[badCredential] // wanted's; nil: it is good
	stalled atomic.Pointer[Stall]         // set by the watchdog; nil: it does not stall
	past    atomic.Pointer[past]          // set by the state watcher; nil before its first look
	puts    puts                          // of Put and PutAll
	stats   atomic.Pointer[QueueStats]    // of the watchdog's last look; nil: not known
	records atomic.Pointer[QueueStats]    // the same of the feedback tube
	missed  time.Time                     // since when the watchdog sees it sleep although it has jobs
}

// appTree is what an app needs to work: a supervisor of its own, so that its trouble delays no
// other app's restarts, with N workers, and the webhook if it has one.
type appTree struct {
	app     *app
	sup     *suture.Supervisor
	service *joinable // of root: sup
	token   suture.ServiceToken
	running chan struct{} // closed when sup takes changes
	workers []*appWorker
	webhook *webhook // nil: none

	cost    int       // files that it may open
	woken   time.Time // when the app woke
	work    int64     // jobs and records received, when the app was last seen to work
	working time.Time // when that was
	asked   time.Time // when its tubes were last asked whether they are empty
	hadTurn bool      // at the last look
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

// waiting reports whether the app waits to be woken. Supervisor.mu is held.
func (a *app) waiting() bool { return !a.waits.IsZero() }

// newTree makes the tree of an app that wakes.
func newTree(a *app, q queue.Queue, locks tubeLocks, now time.Time) *appTree {
	t := &appTree{app: a, running: make(chan struct{}), woken: now, working: now}
	t.sup = suture.New("app "+a.cfg.Name, suture.Spec{
		EventHook: eventHook(a.log), Timeout: stopLimit,
		// An app that ends is that app's end, not the daemon's.
		DontPropagateTermination: true,
	})
	t.service = &joinable{service: t}
	if !a.cfg.Broken() { // without workers its jobs stay where they are
		for i := range a.size {
			t.addWorker(i)
		}
	}
	t.addWebhook(q, locks)
	return t
}

// String names the app in suture's events.
func (t *appTree) String() string { return t.sup.Name }

// Serve runs the app's supervisor.
func (t *appTree) Serve(ctx context.Context) error {
	ended := t.sup.ServeBackground(ctx)
	close(t.running) // a suture supervisor serves once
	return <-ended
}

func (t *appTree) addWorker(i int) {
	w := t.app.shared.NewWorker(i)
	r := &restartable{service: w}
	service := &joinable{service: r}
	t.workers = append(t.workers, &appWorker{Worker: w, index: i, restartable: r, service: service, token: t.sup.Add(service)})
}

// pace sets how many pushes a second the app may send; 0: as many as it can.
func (a *app) pace(rate int) {
	if was := a.totals.SetMaxRate(rate); was != rate {
		a.log.Info("max_rate changed", "app", a.cfg.Name, "topic", a.cfg.Topic, "from", was, "to", rate)
	}
}

// resize adds or removes workers until there are n; it returns the removed,
// still draining. s.mu is held.
func (s *Supervisor) resize(a *app, n int) (gone []*joinable) {
	if n == a.size || a.cfg.Broken() {
		return nil
	}
	if a.tree != nil {
		select {
		case <-a.tree.running: // adding to a supervisor that is just starting is a race in suture
		case <-s.ended:
			return nil
		}
		gone = a.tree.resize(n)
	}
	a.log.Info("workers changed", "app", a.cfg.Name, "topic", a.cfg.Topic, "from", a.size, "to", n)
	a.size = n
	if a.tree != nil {
		cost := s.cost(a)
		s.sleep.files += cost - a.tree.cost
		a.tree.cost = cost
		s.sleep.calls.ring()
	}
	return gone
}

func (t *appTree) resize(n int) (gone []*joinable) {
	for len(t.workers) < n {
		t.addWorker(len(t.workers))
	}
	for _, w := range t.workers[n:] {
		_ = t.sup.Remove(w.token) // fails only when the root stops, which removes all
		gone = append(gone, w.service)
	}
	t.workers = t.workers[:n]
	return gone
}
