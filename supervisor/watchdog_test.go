package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/worker"
)

// period is the shortest that the tests' apps can have: their push_timeout.
const period = time.Second

// stuckQueue's first consumers of a tube never receive anything, as if their
// connections had died without a word.
type stuckQueue struct {
	adminQueue
	tube string
	deaf *atomic.Int64 // how many are still to come
}

func (q *stuckQueue) Consume(tube string) (c queue.Consumer, err error) {
	c, err = q.adminQueue.Consume(tube)
	if tube == q.tube && q.deaf.Add(-1) >= 0 {
		c = deafConsumer{c}
	}
	return c, err
}

// deafen makes a world's first n consumers of a tube deaf. What it returns is how many
// are still to come.
func (w *world) deafen(tube string, n int64) *atomic.Int64 {
	deaf := new(atomic.Int64)
	deaf.Store(n)
	w.wrap = func(a adminQueue) adminQueue { return &stuckQueue{adminQueue: a, tube: tube, deaf: deaf} }
	return deaf
}

type deafConsumer struct{ queue.Consumer }

func (deafConsumer) Receive(ctx context.Context, _ int) ([]queue.Job, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A consumer that receives nothing, though there are jobs, is replaced with its
// worker.
func TestWatchdogRestartsADeafConsumer(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.period = period
	w.deafen(topic, 1)
	w.putMany(topic, 20)
	w.start(w.app(topic, "push_timeout: 1s"))
	w.empty(topic)
	w.eachOnce(20)
	steps := w.status(topic).Steps
	if steps.Restarted.Load() == 0 || steps.Replaced.Load() != 0 {
		t.Errorf("%d restarted, %d replaced", steps.Restarted.Load(), steps.Replaced.Load())
	}
	if last := steps.Restarted.Last(); last == nil || !strings.HasPrefix(last.Reason, "worker 0: has received none of 20 ready jobs") || last.At.IsZero() {
		t.Errorf("the last restart: %+v", last)
	}
	for _, text := range []string{"has received none of 20 ready jobs", "the worker is restarted"} {
		if !w.log.contains(text) {
			t.Errorf("the log lacks %q", text)
		}
	}
}

// That many workers are restarted at once is no failure of the app, which suture
// would answer with a pause.
func TestWatchdogRestartsManyWorkers(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.period = period
	w.deafen(topic, 12)
	w.putMany(topic, 20)
	w.start(w.app(topic, "workers: 12", "push_timeout: 1s"))
	w.until("many are restarted", func() bool { return w.status(topic).Steps.Restarted.Load() > 5 }) // suture's threshold
	w.empty(topic)
	w.until("all serve", func() bool {
		return !slices.ContainsFunc(w.status(topic).Workers, func(s worker.Status) bool { return !s.Serving })
	})
	w.eachOnce(20)
	if w.log.contains("restarts are paused") || w.log.contains("ended unexpectedly") {
		t.Error("suture has taken restarts by order for failures")
	}
}

// Of two workers one has a connection that takes pushes and answers none: it gets
// another by itself, and all is delivered.
func TestSilentConnection(t *testing.T) {
	const n = 40
	w := newWorld(t, apnstest.Options{})
	w.apns.SetScript(func(r *apnstest.Request) apnstest.Answer { return apnstest.Answer{Silence: r.Conn == 1} })
	w.putMany(topic, n)
	w.start(w.app(topic, "workers: 2", "in_flight: 5", "push_timeout: 1s"))
	w.empty(topic)
	w.until("there is work again, and a new connection for it", func() bool {
		w.putMany(topic, 1)
		return w.apns.Dials() > 2
	})
	w.empty(topic)
	got := w.received()
	for i := range n {
		if got[token(i)] == 0 {
			t.Fatalf("push %d not delivered", i)
		}
	}
	w.until("the app is well", func() bool { return !w.status(topic).Health.State.Trouble() })
}

// A connection that the watchdog finds at fault is replaced.
func TestWatchdogReplacesAConnection(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.start(w.app(topic))
	w.putMany(topic, 1)
	w.empty(topic)
	apps, _ := w.sup.awake()
	const why = "has held 5 jobs for a minute and finished none"
	d := &watchdog{log: slog.New(slog.NewTextHandler(w.log, nil))}
	d.act(apps[0], apps[0].workers[0], replace, why)
	w.until("it is let go", func() bool { return w.log.contains("connection to apns is replaced") })
	w.putMany(topic, 1)
	w.empty(topic)
	if n := w.apns.Dials(); n != 2 {
		t.Errorf("%d connections", n)
	}
	steps := w.status(topic).Steps
	if last := steps.Replaced.Last(); last == nil || last.Reason != "worker 0: "+why || steps.Restarted.Load() != 0 {
		t.Errorf("%+v, %d restarted", last, steps.Restarted.Load())
	}
	if !w.log.contains("the worker's connection to apns is replaced") {
		t.Error("the log does not say so")
	}
}

// While nothing helps the app is not ready, and says why; as soon as there is
// progress it is again.
func TestWatchdogStallAndRecovery(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.period = period
	deaf := w.deafen(topic, 1000)
	w.putMany(topic, 30)
	w.start(w.app(topic, "push_timeout: 1s"))
	w.until("the app stalls", func() bool { return w.status(topic).Health.State == Stalled })
	s := w.status(topic)
	if !strings.HasPrefix(s.Health.String(), "stalled: worker 0: ") || s.Health.Since.IsZero() {
		t.Errorf("%+v", s.Health)
	}
	if s.Steps.Restarted.Load() == 0 || s.Steps.Stalled.Load() != 1 {
		t.Errorf("%d restarted, %d stalled", s.Steps.Restarted.Load(), s.Steps.Stalled.Load())
	}
	for _, c := range []*StepCount{&s.Steps.Restarted, &s.Steps.Stalled} {
		if last := c.Last(); last == nil || !strings.HasPrefix(last.Reason, "worker 0: ") {
			t.Errorf("a step without its reason: %+v", last)
		}
	}
	deaf.Store(0)
	w.empty(topic)
	w.until("it stalls no more", func() bool { return w.status(topic).Health.State != Stalled })
	w.until("the log says so", func() bool { return w.log.contains("app recovered: it finishes jobs again") })
}

// What the watchdog cannot mend it leaves alone, and names.
func TestWatchdogKnowsCauses(t *testing.T) {
	tests := []struct {
		name  string
		state State
		hurt  func(w *world)
		heal  func(w *world)
	}{
		{"apns away", Unreachable,
			func(w *world) { w.apns.StopListening() },
			func(w *world) {
				if err := w.apns.Resume(); err != nil {
					w.t.Fatal(err)
				}
			}},
		{"queue away", NoQueue,
			func(w *world) { w.bs.Kill() }, func(w *world) { w.bs.Restart() }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, apnstest.Options{}, beanstalktest.WithBinlog())
			w.period = period
			w.putMany(topic, 10)
			test.hurt(w)
			w.start(w.app(topic, "push_timeout: 1s"))
			w.until("the state says why", func() bool { return w.status(topic).Health.State == test.state })
			time.Sleep(5 * period) // enough time to call it a stall
			if h := w.status(topic).Health; h.State != test.state || h.Reason == "" || h.Since.IsZero() {
				t.Errorf("%+v", h)
			}
			if steps := w.status(topic).Steps; steps.Replaced.Load()+steps.Restarted.Load() != 0 {
				t.Errorf("%d replaced, %d restarted", steps.Replaced.Load(), steps.Restarted.Load())
			}
			test.heal(w)
			w.empty(topic)
			w.until("it is ready again", func() bool { s := w.status(topic); return !s.Health.State.Trouble() })
			w.eachOnce(10)
		})
	}
}

// numbers is a queue that gives the numbers of a test.
type numbers struct {
	queue.Admin
	stats queue.TubeStats
	err   error
	asked atomic.Int64
}

func (n *numbers) TubeStats(context.Context, string) (queue.TubeStats, error) {
	n.asked.Add(1)
	return n.stats, n.err
}

// newLook is a watchdog over apps of one idle worker each, and a look of it.
func newLook(admin queue.Admin, apps int) (d *watchdog, all []watched, log *logBuffer) {
	log = new(logBuffer)
	for i := range apps {
		totals := new(appTotals)
		shared := worker.NewApp(worker.Config{Log: slog.New(slog.DiscardHandler)}, &totals.Totals, nil)
		a := &app{cfg: &config.App{Name: fmt.Sprint("t", i), Topic: fmt.Sprint("t", i), Tube: "tube"}, totals: totals, shared: shared}
		all = append(all, watched{app: a, tree: new(appTree), workers: []*appWorker{{Worker: shared.NewWorker(0)}}})
	}
	d = &watchdog{
		log: slog.New(slog.NewTextHandler(log, nil)), period: new(atomic.Int64),
		awake: func() ([]watched, queue.Admin) { return all, admin }, asleep: func() []watched { return nil },
	}
	d.period.Store(int64(time.Minute))
	return d, all, log
}

// A queue that gives no numbers is asked about each app in each look; it is said
// once.
func TestWatchdogWithoutNumbers(t *testing.T) {
	t.Parallel()
	for _, err := range []error{context.DeadlineExceeded, queue.ErrUnavailable} {
		admin := &numbers{err: err}
		d, _, log := newLook(admin, 10)
		look := func() {
			for range 3 {
				d.lookAtAll(t.Context())
			}
		}
		look()
		if n := admin.asked.Swap(0); n != 30 {
			t.Errorf("%v: asked %d times in 3 looks", err, n)
		}
		admin.err = nil
		look()
		if n := admin.asked.Load(); n != 30 {
			t.Errorf("asked %d times in 3 looks when it answers", n)
		}
		for _, text := range []string{"does not say how many jobs wait", "says again how many jobs wait"} {
			if n := strings.Count(log.String(), text); n != 1 {
				t.Errorf("%q is logged %d times", text, n)
			}
		}
	}
}

// frozen is a queue of two servers of which one does not answer.
type frozen struct{ numbers }

func (f *frozen) TubeStats(ctx context.Context, tube string) (queue.TubeStats, error) {
	st, _ := f.numbers.TubeStats(ctx, tube)
	<-ctx.Done()
	return st, ctx.Err()
}

// While one of several servers is frozen the jobs of the other are seen, those of
// every app, and a look does not take for ever.
func TestWatchdogWithAFrozenServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		admin := &frozen{numbers{stats: queue.TubeStats{Ready: 2}}}
		d, all, _ := newLook(admin, 20)
		begun := time.Now()
		d.lookAtAll(t.Context())
		for _, a := range all {
			if !a.workers[0].progress.working {
				t.Errorf("%s: the jobs of the server that answers are not seen", a.cfg.Topic)
			}
		}
		if took := time.Since(begun); took > statsTime+19*statsShort {
			t.Errorf("a look took %v", took)
		}
		d, _, _ = newLook(admin, 1000)
		begun = time.Now()
		d.lookAtAll(t.Context())
		if took := time.Since(begun); took > 15*time.Second+statsShort {
			t.Errorf("a look at 1000 apps took %v", took)
		}
	})
}

// When one of several servers is away, the jobs of the others are there.
func TestWatchdogWithSomeNumbers(t *testing.T) {
	t.Parallel()
	d, all, _ := newLook(&numbers{stats: queue.TubeStats{Ready: 2}, err: queue.ErrUnavailable}, 1)
	d.lookAtAll(t.Context())
	if !all[0].workers[0].progress.working {
		t.Error("the jobs of the server that answers are not seen")
	}
}

// Jobs of a tube that an operator has paused are not to be had.
func TestWatchdogAndPausedTubes(t *testing.T) {
	t.Parallel()
	for ready, working := range map[queue.TubeStats]bool{
		{Ready: 5}: true, {Ready: 5, Paused: 5}: false, {Ready: 5, Paused: 2}: true, {Delayed: 5, Reserved: 1, Buried: 7}: false,
	} {
		d, all, _ := newLook(&numbers{stats: ready}, 1)
		d.lookAtAll(t.Context())
		if got := all[0].workers[0].progress.working; got != working {
			t.Errorf("%+v: work to do: %v", ready, got)
		}
	}
}

// What is seen of a worker, with the causes that explain that it does nothing.
func TestView(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status worker.Status
		want   view
	}{
		{"at work", worker.Status{Serving: true, Reserved: 3, InFlight: 3, Received: 9, Finished: 6},
			view{reserved: 3, received: 9, finished: 6}},
		{"between two runs", worker.Status{Received: 9},
			view{received: 9, cause: "the worker does not run"}},
		{"without its queue", worker.Status{Serving: true, QueueErr: queue.ErrUnavailable, Waiting: "queue unavailable: x"},
			view{cause: "queue unavailable: x", waits: true}},
		{"its records cannot be put", worker.Status{Serving: true, Reserved: 2, Lingering: 2, Unstored: queue.ErrUnavailable, Waiting: "the queue takes no records: x"},
			view{cause: "the queue takes no records: x", waits: true}},
		{"its jobs wait for the guard", worker.Status{Serving: true, Reserved: 2, PendingAnswers: 2},
			view{}},
		{"one of its jobs waits for the guard", worker.Status{Serving: true, Reserved: 2, PendingAnswers: 1, InFlight: 1},
			view{reserved: 2}},
		{"all but one of its jobs wait for the queue", worker.Status{Serving: true, Reserved: 3, Lingering: 2, InFlight: 1},
			view{reserved: 1}},
	}
	for _, test := range tests {
		if got := viewOf(test.status, available{}); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// That an app is broken explains that it does nothing as long as it is probed.
func TestProbeLate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := &app{cfg: &config.App{PushTimeout: 20 * time.Second}}
	for due, late := range map[time.Duration]bool{worker.ProbeEvery: false, 0: false, -79 * time.Second: false, -81 * time.Second: true, -time.Hour: true} {
		if got := a.probeLate(worker.BreakerState{Broken: true, Probe: now.Add(due)}, now); got != late {
			t.Errorf("probe due in %v: late %v", due, got)
		}
	}
}

// A dial that failed is no explanation for a worker that dials no more, since
// its consumer has died.
func TestWatchdogSeesThroughAnOldCause(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.period = period
	q := new(deafenedQueue)
	w.wrap = func(a adminQueue) adminQueue { q.adminQueue = a; return q }
	w.apns.StopListening()
	w.putMany(topic, 10)
	w.start(w.app(topic, "push_timeout: 1s"))
	w.until("a dial has failed", func() bool { return w.status(topic).Workers[0].Waiting != "" })
	q.deaf.Store(true)
	if err := w.apns.Resume(); err != nil {
		t.Fatal(err)
	}
	w.until("the worker is restarted", func() bool { return w.status(topic).Steps.Restarted.Load() > 0 })
	w.empty(topic)
	w.eachOnce(10)
}

// deafenedQueue's first consumer receives nothing from when deaf is set.
type deafenedQueue struct {
	adminQueue
	once sync.Once
	deaf atomic.Bool
}

type deafenedConsumer struct {
	queue.Consumer
	deaf *atomic.Bool
}

func (q *deafenedQueue) Consume(tube string) (c queue.Consumer, err error) {
	c, err = q.adminQueue.Consume(tube)
	q.once.Do(func() { c = &deafenedConsumer{c, &q.deaf} })
	return c, err
}

func (c *deafenedConsumer) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	if c.deaf.Load() {
		return deafConsumer{c.Consumer}.Receive(ctx, n)
	}
	return c.Consumer.Receive(ctx, n)
}

// A push that takes its push_timeout is no standstill, whatever the watchdog's
// period.
func TestWatchdogPeriod(t *testing.T) {
	t.Parallel()
	a := &app{cfg: &config.App{PushTimeout: 20 * time.Second}}
	if d := a.patience(5 * time.Second); d != 20*time.Second {
		t.Error(d)
	}
	if d := a.patience(time.Minute); d != time.Minute {
		t.Error(d)
	}
}

// Four looks in a period, about; a period that is changed counts at once.
func TestWatchdogLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		admin := &numbers{}
		d, _, _ := newLook(admin, 1)
		d.changed = make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Serve(ctx) }()
		looks := func(during time.Duration) int64 {
			admin.asked.Store(0)
			time.Sleep(during)
			synctest.Wait()
			return admin.asked.Load()
		}
		if n := looks(100 * time.Minute); n < 350 || n > 450 {
			t.Errorf("%d looks in 100 periods", n)
		}
		d.period.Store(int64(time.Hour))
		d.changed <- struct{}{}
		if n := looks(11 * time.Minute); n > 0 {
			t.Errorf("%d looks in 11 minutes of a period of an hour", n)
		}
		d.period.Store(int64(time.Second))
		d.changed <- struct{}{}
		if n := looks(10 * time.Second); n < 30 {
			t.Errorf("%d looks in 10 periods", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// partAdmin is a queue of several servers, of which one is away.
type partAdmin struct{ queue.Admin }

func (partAdmin) TubeStats(context.Context, string) (queue.TubeStats, error) {
	return queue.TubeStats{Ready: 7}, fmt.Errorf("b is away: %w", queue.ErrPartial)
}

// The numbers of those servers that answer are kept, as what they are.
func TestIncompleteNumbers(t *testing.T) {
	t.Parallel()
	d := questions{admin: partAdmin{}, each: statsTime, end: time.Now().Add(time.Hour)}
	var kept atomic.Pointer[QueueStats]
	if n := d.available(t.Context(), "tube", &kept); n != (available{7, true}) {
		t.Errorf("%+v", n)
	}
	if st := kept.Load(); st == nil || st.Ready != 7 || st.Incomplete != "b is away: only some servers answer: queue unavailable" {
		t.Errorf("%+v", st)
	}
}
