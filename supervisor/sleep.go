package supervisor

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"propeller/config"
	"propeller/internal/files"
	"propeller/internal/parallel"
	"propeller/queue"
)

// Apps whose tubes are empty sleep: they have no tree, and so no goroutine, no connection and no
// consumer. The queue's Watch calls for an app when its tube has jobs again; the waker then
// gives the app a tree. An app is put to sleep after a minute without work. An app that wakes
// costs open files; when those are short the app that has been idle longest sleeps first, and if
// none is idle, apps take turns.

const (
	// sleepAfter is how long an app must have had no work to be put to sleep: it keeps its
	// connection to APNs over the pauses of ordinary traffic.
	sleepAfter = time.Minute
	// askAgain is the time between two questions whether the tube of an idle app is empty: a
	// retry may wait for a quarter of an hour.
	askAgain = 10 * time.Second
	// emptyTime bounds such a question.
	emptyTime = 2 * time.Second
	// sleeperEvery is the time between two looks at the apps that are awake.
	sleeperEvery = time.Second
	// leastTurn is how long an app works at least before it makes room for one that waits for
	// open files.
	leastTurn = 10 * time.Second
	// moreAtOnce is how many trees are looked at for room at a time, and how many make room
	// for those whose turn has come.
	moreAtOnce = 16
	// manyAwake is how many apps must have been awake for their memory to go back to the
	// system once half of them sleep: Go itself takes its time.
	manyAwake = 64
	// treeEnds is how long a tree without jobs may take to end: see worker.Worker.Serve.
	treeEnds = 10 * time.Second
	// asksAtOnce is how many tubes the queue is asked about at once whether they are empty.
	asksAtOnce = 8
)

// sleep is the part of a Supervisor that concerns apps that sleep. Supervisor.mu guards it, but
// for calls.
type sleep struct {
	sleepTimes
	watch   queue.Watch     // nil: the queue cannot wake apps, and so none sleeps
	tubes   map[string]*app // by the tubes of its consumers
	awake   map[*app]struct{}
	waiting []*app // have been called, and wait to be woken; the first came first
	pace    pace   // of waking
	files   int    // that those awake may open
	limit   int
	said    bool // the log has said that there are too few
	calls   calls
}

// sleepTimes are sleepAfter, sleeperEvery and leastTurn, but for tests.
type sleepTimes struct{ after, every, turn time.Duration }

// calls are the tubes that the queue has called for. The Watch calls once for each tube that was
// put to sleep, so there are at most as many as tubes.
type calls struct {
	mu    sync.Mutex
	tubes []string
	rung  chan struct{} // cap 1
}

// add is what the Watch calls.
func (c *calls) add(tube string) {
	c.mu.Lock()
	c.tubes = append(c.tubes, tube)
	c.mu.Unlock()
	c.ring()
}

// ring wakes the waker.
func (c *calls) ring() {
	select {
	case c.rung <- struct{}{}:
	default:
	}
}

func (c *calls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	tubes := c.tubes
	c.tubes = nil
	return tubes
}

// otherFiles are left to the queue, logs and trees that are ending, besides the half for clients.
const otherFiles = 128

// fileLimit is how many open files the apps that are awake may have together: half of what the
// process may have, less otherFiles. The other half is left to clients.
func fileLimit() int {
	if most := files.MaxOpen(); most > 0 {
		return int(min(max(most/2-min(most/2, otherFiles), most/4), 1<<30))
	}
	return 1 << 30 // no such limit on this system
}

// cost is how many files an app may open while it is awake: a connection to APNs for each
// worker, one to each beanstalkd for each worker and the webhook, and one to the webhook's server.
func (s *Supervisor) cost(a *app) int {
	c := a.cfg
	servers := 0
	if s.url.Scheme == "beanstalk" {
		servers = len(s.url.Servers)
	}
	n := 0
	if !c.Broken() {
		n = a.size * (1 + servers)
	}
	if !c.Feedback.Webhook.IsZero() {
		n += 1 + servers
	}
	return n
}

// tubesOf returns the tubes of an app's consumers.
func tubesOf(c *config.App) []string {
	var tubes []string
	if !c.Broken() {
		tubes = append(tubes, c.Tube)
	}
	if !c.Feedback.Webhook.IsZero() {
		tubes = append(tubes, c.Feedback.Tube)
	}
	return tubes
}

// wakeLocked gives an app that sleeps a tree. s.mu is held.
func (s *Supervisor) wakeLocked(a *app) {
	a.tree = newTree(a, s.queue, s.locks, time.Now())
	a.tree.cost = s.cost(a)
	s.sleep.files += a.tree.cost
	s.sleep.awake[a] = struct{}{}
	a.tree.token = s.root.Add(a.tree.service)
}

// removeLocked takes an app's tree out of the root, and returns it, still draining; nil if the app
// sleeps. s.mu is held.
func (s *Supervisor) removeLocked(a *app) []*joinable {
	if a.waiting() {
		a.waits = time.Time{}
		s.sleep.calls.ring() // the next may fit
		s.sleep.waiting = slices.DeleteFunc(s.sleep.waiting, func(b *app) bool { return a == b })
	}
	t := a.tree
	if t == nil {
		return nil
	}
	a.tree = nil
	s.sleep.files -= t.cost
	s.sleep.calls.ring() // there is room for others
	delete(s.sleep.awake, a)
	_ = s.root.Remove(t.token) // fails only when the root stops, which removes all
	return []*joinable{t.service}
}

// layDown begins to watch the tubes of apps that sleep, after a reload; if the queue cannot,
// they wake. moved: the queue is another one. s.mu is held.
func (s *Supervisor) layDown(fresh []*app, moved bool) {
	z := &s.sleep
	if moved {
		if z.watch != nil {
			z.watch.Close()
		}
		z.watch = nil
		if w, ok := s.queue.(queue.Watcher); ok {
			z.watch = w.Watch(z.calls.add)
		}
	}
	was := z.tubes
	z.tubes = make(map[string]*app, len(s.apps))
	for _, a := range s.apps {
		for _, tube := range tubesOf(a.cfg) {
			// Apps may share a feedback tube; any of them can work on it.
			if b := z.tubes[tube]; b == nil || a.cfg.Name < b.cfg.Name {
				z.tubes[tube] = a
			}
		}
	}
	if z.watch == nil {
		for _, a := range fresh {
			if a.tree == nil {
				s.wakeLocked(a)
			}
		}
		return
	}
	for tube := range was {
		if z.tubes[tube] == nil {
			z.watch.Forget(tube)
		}
	}
	var tubes []string
	for _, a := range fresh {
		if a.tree == nil {
			tubes = append(tubes, tubesOf(a.cfg)...)
		}
	}
	z.watch.Sleep(tubes...)
}

// called puts the apps with these tubes into the line of those that wait to be woken, and reports
// whether the first of that line may wake now.
func (s *Supervisor) called(tubes []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := &s.sleep
	for _, tube := range tubes {
		a := z.tubes[tube]
		if a != nil && tube == a.cfg.Tube && a.totals.Paused().Paused {
			continue // its jobs have to wait: Resume calls for it
		}
		if a != nil && a.tree == nil && !a.waiting() {
			a.waits = time.Now()
			z.waiting = append(z.waiting, a)
		}
	}
	return len(z.waiting) > 0 && s.room(z.waiting[0])
}

// wakeNext wakes the first app of the line, if there is room for it.
func (s *Supervisor) wakeNext() {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := &s.sleep
	if len(z.waiting) == 0 || !s.room(z.waiting[0]) {
		return
	}
	a := z.waiting[0]
	z.waiting = z.waiting[1:]
	a.waits = time.Time{}
	s.wakeLocked(a)
}

// room reports whether there are files enough for an app to wake. One app may always. s.mu is
// held.
func (s *Supervisor) room(a *app) bool {
	z := &s.sleep
	return z.files == 0 || z.files+s.cost(a) <= z.limit
}

// waker is a service that wakes apps for which the queue calls.
type waker struct{ sup *Supervisor }

// String names the waker in suture's events.
func (*waker) String() string { return "waker" }

// Serve waits for the queue to call.
func (w *waker) Serve(ctx context.Context) error {
	s := w.sup
	select {
	case <-s.started: // adding to a supervisor that is just starting is a race in suture
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		if !s.called(s.sleep.calls.take()) {
			select {
			case <-s.sleep.calls.rung:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := s.sleep.pace.wait(ctx); err != nil {
			return err
		}
		s.wakeNext()
	}
}

// sleeper is a service that puts apps to sleep: those without work, and, when apps wait for open
// files, those that must make room.
type sleeper struct {
	sup  *Supervisor
	log  *slog.Logger
	most int // apps awake at once, since memory went back to the system

	again time.Time // when it does so once more; zero: not
}

// String names the sleeper in suture's events.
func (*sleeper) String() string { return "sleeper" }

// Serve looks at all apps that are awake, once a second.
func (z *sleeper) Serve(ctx context.Context) error {
	tick := time.NewTicker(z.sup.sleep.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		z.look(ctx, time.Now())
	}
}

// look puts apps to sleep. When apps wait for open files, those that have had their turn make room
// for some of them: first those whose tubes are empty, then other idle ones, then the others.
func (z *sleeper) look(ctx context.Context, now time.Time) {
	l := z.sup.restless(now)
	var rest, idle []*appTree
	empty := make([]bool, len(l.idle))
	parallel.Do(asksAtOnce, len(l.idle), func(i int) bool {
		empty[i] = ctx.Err() == nil && z.sup.empty(ctx, l.idle[i], now)
		return true
	})
	for i, t := range l.idle {
		if empty[i] {
			rest = append(rest, t)
		} else if t.hadTurn {
			idle = append(idle, t)
		}
	}
	for _, t := range append(idle, l.busy...) {
		if len(rest) < min(l.short, moreAtOnce) {
			rest = append(rest, t)
		}
	}
	if len(rest) > 0 {
		z.sup.rest(rest)
	}
	z.tellShort(l.short)
	z.sup.sleep.calls.ring() // in case that there is room and nobody has told the waker
	z.freeMemory(l.awake, now)
}

// freeMemory gives memory back to the system when half of the apps that were awake sleep, and
// once more when their trees have ended.
func (z *sleeper) freeMemory(awake int, now time.Time) {
	z.most = max(z.most, awake)
	switch {
	case z.most >= manyAwake && awake <= z.most/2:
		z.most, z.again = awake, now.Add(treeEnds)
	case z.again.IsZero() || now.Before(z.again):
		return
	default:
		z.again = time.Time{}
	}
	debug.FreeOSMemory()
}

// tellShort logs a change of whether apps wait for open files.
func (z *sleeper) tellShort(short int) {
	s := &z.sup.sleep
	switch {
	case short > 0 && !s.said:
		z.log.Warn("more apps have jobs than open files allow: they take turns; allow the process more open files, or run several daemons", "waiting", short, "files", s.limit)
	case short == 0 && s.said:
		z.log.Info("no app waits for open files any more")
	}
	s.said = short > 0
}

// restless is which trees may have to sleep.
type restless struct {
	idle  []*appTree // may sleep if their tubes are empty
	busy  []*appTree // have had their turn; those that worked longest ago first
	short int        // how many apps wait for open files
	awake int        // how many apps are awake
}

// restless returns the trees that may have to sleep.
func (s *Supervisor) restless(now time.Time) (l restless) {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := &s.sleep
	if z.watch == nil {
		return l
	}
	l.awake = len(z.awake)
	var trees []*appTree
	for a := range z.awake {
		trees = append(trees, a.tree)
	}
	slices.SortFunc(trees, func(a, b *appTree) int { return a.working.Compare(b.working) })
	if len(z.waiting) > 0 && !s.room(z.waiting[0]) {
		l.short = len(z.waiting)
	}
	spare := min(l.short, moreAtOnce)
	for _, t := range trees {
		quiet := t.quiet(now)
		t.hadTurn = now.Sub(t.woken) >= z.turn
		switch {
		case quiet && now.Sub(t.working) >= z.after && now.Sub(t.asked) >= min(askAgain, z.after):
			l.idle = append(l.idle, t)
		case quiet && len(l.idle) < spare:
			l.idle = append(l.idle, t)
		case t.hadTurn && len(l.busy) < spare:
			l.busy = append(l.busy, t)
		}
	}
	return l
}

// quiet notes whether the tree has worked since the last look, and reports whether it has nothing
// at hand and can receive jobs.
func (t *appTree) quiet(now time.Time) bool {
	var received int64
	quiet := true
	for _, w := range t.workers {
		s := w.Status()
		received += s.Received
		quiet = quiet && s.Serving && s.Reserved == 0 && s.QueueErr == nil
	}
	if t.webhook != nil {
		s := t.webhook.Status()
		received += s.Received
		quiet = quiet && s.Reserved == 0
	}
	if received != t.work || !quiet {
		t.work, t.working = received, now
	}
	return quiet
}

// empty reports whether nothing is in the tubes of a tree that its consumers alone could serve.
func (s *Supervisor) empty(ctx context.Context, t *appTree, now time.Time) bool {
	s.mu.Lock()
	q, watch, tubes := s.queue, s.sleep.watch, tubesOf(t.app.cfg)
	t.asked = now
	s.mu.Unlock()
	if watch == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, emptyTime)
	defer cancel()
	for _, tube := range tubes {
		if empty, err := q.(queue.Watcher).Empty(ctx, tube); err != nil || !empty {
			return false
		}
	}
	return true
}

// rest puts apps to sleep. Their tubes are watched once their trees have ended.
func (s *Supervisor) rest(trees []*appTree) {
	s.applying.Lock()
	defer s.applying.Unlock()
	select {
	case <-s.ended:
		return
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range trees {
		a := t.app
		if a.tree != t || s.sleep.watch == nil {
			continue
		}
		gone := s.removeLocked(a)
		s.sleep.files += t.cost // until they are closed
		s.drain(gone)
		s.draining.Go(func() {
			gone[0].wait()
			s.slept(a, t)
		})
	}
}

// slept begins to watch the tubes of an app whose tree has ended, which leaves room for others.
func (s *Supervisor) slept(a *app, t *appTree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := &s.sleep
	z.files -= t.cost
	a.stalled.Store(nil) // its tube is empty, or it begins anew
	if s.apps[a.cfg.Name] == a && a.tree == nil && !a.waiting() && z.watch != nil {
		z.watch.Sleep(tubesOf(a.cfg)...)
	}
	z.calls.ring()
}
