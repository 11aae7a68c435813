// Package supervisor runs the apps of a configuration in a tree of suture
// supervisors:
//
//	root
//	├── app com.example.one        a supervisor of its own
//	│   ├── app com.example.one worker 0
//	│   ├── app com.example.one worker 1
//	│   └── feedback com.example.one    a supervisor of its own
//	│       └── webhook com.example.one
//	├── app com.example.two
//	├── waker                      wakes apps that sleep when their tubes have jobs
//	├── sleeper                    puts apps to sleep that have no work
//	├── watchdog                   demands progress of every worker
//	├── state watcher              notes when apps' states change
//	├── reader of tubes            finds tubes that belong to no app
//	└── reader of buried jobs      keeps the index of buried jobs up to date
//
// Workers handle expected trouble (a refused dial, a queue that restarts) themselves. suture
// restarts a worker after an unexpected error or a panic, and the watchdog deals with standstills
// that cause no error.
package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"

	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/queue"
	"propeller/queue/queueurl"
	"propeller/worker"
	"propeller/worker/buried"
	"propeller/worker/feedback"
	"propeller/worker/job"
)

// Options are what a Supervisor needs besides the configuration.
type Options struct {
	Log *slog.Logger
	// OpenQueue opens the queue at the given URL. It does not wait until that can be reached.
	OpenQueue func(queueurl.URL) (queue.Queue, error)
	// Sinks receive the end of every push.
	Sinks []worker.Sink
}

// Supervisor runs all apps of a configuration.
type Supervisor struct {
	o    Options
	root *suture.Supervisor
	live worker.Live

	dials pace // of all apps, to APNs

	started chan struct{} // closed when root accepts changes
	ended   chan struct{} // closed when root has stopped

	applying sync.Mutex // one Apply at a time; guards the fields below
	url      queueurl.URL
	queue    queue.Queue
	users    *sync.WaitGroup       // removed by reloads, and still draining into queue
	mock     *apnstest.Server      // for server: mock; nil until an app needs it
	totals   map[string]*appTotals // by name
	tokens   tokens
	lanes    lanes
	locks    tubeLocks
	buried   *buried.Index

	draining sync.WaitGroup // what reloads have removed, and their queues; added to under applying

	mu     sync.Mutex          // also guards apps, topics and queue, for readers
	apps   map[string]*app     // by name
	topics map[string][]string // the names of each topic's apps
	sleep  sleep

	unknown       atomic.Pointer[[]UnknownTube]
	reloaded      chan struct{} // cap 1: Apply has changed the apps
	period        atomic.Int64  // the watchdog's, time.Duration
	periodChanged chan struct{} // cap 1
}

// stopLimit is how long suture waits for a service to stop. Workers bound their own stop by
// shutdown_timeout, at most 10 minutes; this is longer, and each supervisor's limit is longer
// than its children's.
const stopLimit = 11 * time.Minute

// New opens what cfg needs and prepares its apps. Nothing runs until Serve.
func New(cfg *config.Config, o Options) (*Supervisor, error) {
	s := &Supervisor{
		o: o, started: make(chan struct{}), ended: make(chan struct{}),
		apps: make(map[string]*app), totals: make(map[string]*appTotals), tokens: make(tokens), lanes: make(lanes), locks: make(tubeLocks),
		buried:        buried.NewIndex(o.Log),
		periodChanged: make(chan struct{}, 1), reloaded: make(chan struct{}, 1),
		sleep: sleep{sleepTimes: sleepTimes{sleepAfter, sleeperEvery, leastTurn}, awake: make(map[*app]struct{}), limit: fileLimit(), calls: calls{rung: make(chan struct{}, 1)}},
	}
	s.root = suture.New("propeller", suture.Spec{EventHook: eventHook(o.Log), Timeout: stopLimit + time.Minute})
	if err := s.apply(cfg); err != nil {
		return nil, errors.Join(err, s.free())
	}
	s.root.Add(&watchdog{log: o.Log, awake: s.awake, asleep: s.asleep, wake: s.sleep.calls.add, period: &s.period, changed: s.periodChanged})
	s.root.Add(&stateWatcher{log: o.Log, awake: s.awake, asleep: s.asleep, blind: s.blind})
	s.root.Add(&waker{s})
	s.root.Add(&sleeper{sup: s, log: o.Log})
	s.root.Add(&unknownTubes{log: o.Log, queue: s.allTubes, found: &s.unknown, reloaded: s.reloaded})
	s.root.Add(&buried.Walker{Log: o.Log, Index: s.buried, Tubes: s.tubes})
	return s, nil
}

// Attach adds another service to the tree, beside the apps. It must be called before Serve.
func (s *Supervisor) Attach(service suture.Service) { s.root.Add(service) }

// Started is closed when the tree runs.
func (s *Supervisor) Started() <-chan struct{} { return s.started }

// Serve runs the apps until ctx ends, and returns when they have finished or released their jobs.
func (s *Supervisor) Serve(ctx context.Context) error {
	ended := s.root.ServeBackground(ctx)
	close(s.started)
	err := <-ended
	close(s.ended)
	s.applying.Lock() // wait for an Apply in progress
	defer s.applying.Unlock()
	s.draining.Wait()
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, s.free())
}

// free closes what the apps share.
func (s *Supervisor) free() error {
	var err error
	if s.sleep.watch != nil {
		s.sleep.watch.Close()
	}
	if s.queue != nil {
		err = s.queue.Close()
	}
	if s.mock != nil {
		s.mock.Close()
	}
	return err
}

// start makes an app. It sleeps.
func (s *Supervisor) start(c *config.App) *app {
	totals := s.totals[c.Name]
	if totals == nil {
		totals = new(appTotals)
		s.totals[c.Name] = totals
	}
	totals.outcomes.forget()
	totals.SetMaxRate(c.MaxRate)
	for _, w := range c.Warnings {
		s.o.Log.Warn(w, "app", c.Name, "topic", c.Topic)
	}
	wc := worker.Config{
		App: c.Name, Rules: RulesOf(c), Tube: c.Tube, InFlight: c.InFlight, Retry: worker.Retry(c.Retry),
		Queue: s.queue, Dial: s.dialer(c), Turn: s.dials.wait, Log: s.o.Log, Live: &s.live, Sinks: append([]worker.Sink{&totals.outcomes}, s.o.Sinks...),
		Buried: func(id string, b job.Burial) { s.buried.Told(c.Tube, id, b) },
	}
	if c.Feedback.Tube != "" {
		wc.Feedback = feedback.Writer(s.queue, c.Feedback.Tube)
	}
	return &app{cfg: c, size: c.Workers, shared: worker.NewApp(wc, &totals.Totals, s.lanes.of(c)), totals: totals, log: s.o.Log}
}
