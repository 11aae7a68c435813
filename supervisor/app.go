package supervisor

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/thejerf/suture/v4"

	"propeller/config"
	"propeller/worker"
	"propeller/worker/feedback"
)

// app is one topic: a supervisor of its own, so that its trouble delays no
// other app's restarts, with N workers, and the webhook if it has one.
type app struct {
	cfg     config.App    // what is in use
	wanted  config.App    // what the configuration says: its credential may be one that cannot be used; under Supervisor.mu
	common  worker.Config // of its workers, but for their index
	ledger  *ledger
	sup     *suture.Supervisor
	member  *member // of root: sup
	token   suture.ServiceToken
	running chan struct{} // closed when sup takes changes
	workers []*appWorker
	webhook *webhook // nil: none

	noted   int                           // how often wanted was; under Supervisor.mu
	bad     atomic.Pointer[badCredential] // wanted's; nil: it is good
	stalled atomic.Pointer[Stall]         // set by the watchdog; nil: it does not stall
	past    atomic.Pointer[past]          // set by the lookout; nil before its first look
	puts    puts                          // of Put and PutAll
	stats   atomic.Pointer[QueueStats]    // of the watchdog's last look; nil: not known
	records atomic.Pointer[QueueStats]    // the same of the feedback tube
}

// ledger is what is counted of one topic since the process began, and whether an
// operator holds it. It outlives the app when that changes.
type ledger struct {
	pushes  worker.Counters
	steps   Steps
	webhook feedback.WebhookCounters
	hold    worker.Hold // the operator's
	recent  worker.Recent
	ends    ends
	// Of the watchdog, about the webhook.
	webhookSteps Steps
}

type appWorker struct {
	*worker.Worker
	index  int
	member *member
	token  suture.ServiceToken

	// The watchdog's.
	progress progress
	stuckBy  string // why progress calls it stuck
	late     lateness
}

func newApp(c config.App, common worker.Config, l *ledger) *app {
	a := &app{cfg: c, common: common, ledger: l, running: make(chan struct{})}
	a.sup = suture.New("app "+c.Topic, suture.Spec{
		EventHook: eventHook(common.Log), Timeout: stopLimit,
		// An app that ends is that app's end, not the daemon's.
		DontPropagateTermination: true,
	})
	a.member = &member{service: a}
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
	c := a.common
	c.Index = i
	w := worker.New(c)
	m := &member{service: &restartable{service: w}}
	a.workers = append(a.workers, &appWorker{Worker: w, index: i, member: m, token: a.sup.Add(m)})
}

// resize adds or removes workers until there are n; it returns the removed,
// still draining.
func (a *app) resize(n int, ended <-chan struct{}) (gone []waiter) {
	if n == len(a.workers) || a.cfg.Broken() {
		return nil
	}
	select {
	case <-a.running: // adding to a supervisor that is just starting is a race in suture
	case <-ended:
		return nil
	}
	a.common.Log.Info("workers changed", "topic", a.cfg.Topic, "from", len(a.workers), "to", n)
	for len(a.workers) < n {
		a.addWorker(len(a.workers))
	}
	for _, w := range a.workers[n:] {
		_ = a.sup.Remove(w.token) // fails only when the tree stops, which removes all
		gone = append(gone, w.member)
	}
	a.workers = a.workers[:n]
	a.cfg.Workers = n
	return gone
}

// remove takes the app out of the tree; it drains until wait returns.
func (a *app) remove(root *suture.Supervisor) waiter {
	_ = root.Remove(a.token) // fails only when the tree stops, which removes all
	return a.member
}

// waiter is something that stops in its own time.
type waiter interface{ wait() }

// member is a service that can be waited for after its removal. suture's own
// RemoveAndWait leaves a goroutine behind when the tree stops meanwhile.
type member struct {
	service interface {
		suture.Service
		String() string
	}
	mu      sync.Mutex
	serving chan struct{} // closed when Serve returns; nil when it does not run
}

// String is the service's: without it suture would print its fields.
func (m *member) String() string { return m.service.String() }

// Serve serves the service.
func (m *member) Serve(ctx context.Context) error {
	done := make(chan struct{})
	m.set(done)
	defer func() {
		m.set(nil)
		close(done)
	}()
	return m.service.Serve(ctx)
}

func (m *member) set(c chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serving = c
}

// wait returns when the removed service has stopped.
func (m *member) wait() {
	m.mu.Lock()
	serving := m.serving
	m.mu.Unlock()
	if serving != nil {
		<-serving
	}
}
