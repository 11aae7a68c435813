package httpapi

import (
	"context"
	"maps"
	"math"
	"reflect"
	"slices"
	"sync"
	"time"

	"propeller/apnsconn"
	"propeller/httpapi/page"
	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
)

// Bounds of what is sampled for the page.
const (
	sampleEvery = time.Second
	// latencyTime is what p50 and p99 are of, markEvery how exactly.
	latencyTime = time.Minute
	markEvery   = 5 * time.Second
	// drawEvery is how often a row is drawn again if nothing has changed: an expiry comes
	// nearer.
	drawEvery = time.Minute
	// drawTime is how long one look draws rows, some hundred, and drawLeast how many it
	// draws however long that takes. Of more that have changed those with another state
	// come first, then those drawn longest ago; the rest wait for the next look.
	drawTime  = 25 * time.Millisecond
	drawLeast = 50
	// askedAtOnce and askTime bound what one sample asks the queue: so many
	// tubes, for so long. The others have their turn in the next.
	askedAtOnce = 50
	askTime     = 500 * time.Millisecond
)

// sampler looks at the tree once a second for all viewers of the page, and not at all
// without any. The first viewer starts its goroutine, the last one waits for it.
type sampler struct {
	tree appTree
	draw func(*liveApp) string // the app's row of the overview

	joining sync.Mutex // guards viewers, stop and running
	viewers int
	stop    context.CancelFunc
	running sync.WaitGroup

	// Of the goroutine.
	turn int // of the apps, whose tubes are asked about next
	apps map[string]*sampled

	mu     sync.Mutex
	last   *look         // nil before the first
	ticked chan struct{} // closed with the next look
}

// look is all apps as of one tick. It is never changed, so that viewers need no lock to
// read it.
type look struct {
	tick int64
	at   time.Time
	apps []shown // as the tree has them
	of   map[string]*shown
}

// liveApp is an app as the page shows it: the API's view with what takes several looks to
// know. Latency is that of the last minute, Queue a few seconds old at most.
type liveApp struct {
	App
	Rate  *float64  // pushes per second in the last seconds; nil while unknown
	Rates []float64 // each second's, oldest first; nil while all are 0
}

// meant returns the apps that are meant, in the tree's order.
func (l *look) meant(is func(*liveApp) bool) (apps []shown) {
	for i := range l.apps {
		if is(l.apps[i].app) {
			apps = append(apps, l.apps[i])
		}
	}
	return apps
}

// sampled is what is known of an app over time.
type sampled struct {
	shown
	drawn   time.Time // when row was
	drawnOf *liveApp  // what it shows

	at    time.Time // of the last sample
	ended int64     // pushes until then
	rates []float64 // pushes a second, oldest first, at most page.ChartPoints
	marks []mark    // oldest first: for latencyTime
	tube  *queue.TubeStats
}

// shown is an app as of a tick, as viewers see it.
type shown struct {
	app     *liveApp // replaced when it changes
	row     string   // of the overview, maybe of an earlier tick; "" before it is drawn
	changed int64    // the tick that row is of
	status  *supervisor.AppStatus
}

// mark is how long pushes had taken until then.
type mark struct {
	at      time.Time
	latency *Latency // since the process began
}

// join has samples made until leave is called.
func (s *sampler) join() (leave func()) {
	s.joining.Lock()
	defer s.joining.Unlock()
	if s.viewers++; s.viewers == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		s.stop = cancel
		s.running.Go(func() { s.run(ctx) })
	}
	return func() {
		s.joining.Lock()
		defer s.joining.Unlock()
		if s.viewers--; s.viewers == 0 {
			s.stop()
			s.running.Wait()
		}
	}
}

func (s *sampler) run(ctx context.Context) {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		s.sample(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// sample looks once.
func (s *sampler) sample(ctx context.Context) {
	status := s.tree.Status()
	tubes := s.askTubes(ctx, status)
	if s.apps == nil {
		s.apps = make(map[string]*sampled)
	}
	now := &look{tick: 1, at: time.Now(), apps: make([]shown, len(status)), of: make(map[string]*shown, len(status))}
	if s.last != nil { // only this goroutine sets it
		now.tick = s.last.tick + 1
	}
	for i := range status {
		st := &status[i]
		now.of[st.Name] = &now.apps[i]
		a := s.apps[st.Name]
		if a == nil {
			a = new(sampled)
			s.apps[st.Name] = a
		}
		a.look(st, tubes, now.at, endedOf(st.Counters))
		a.status = st
		if app := a.view(st); !reflect.DeepEqual(app, a.app) {
			a.app = app
		}
	}
	maps.DeleteFunc(s.apps, func(name string, _ *sampled) bool { return now.of[name] == nil })
	s.drawRows(now)
	for i := range now.apps {
		now.apps[i] = s.apps[status[i].Name].shown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = now
	if s.ticked != nil {
		close(s.ticked)
	}
	s.ticked = make(chan struct{})
}

// drawRows draws rows that have changed, for drawTime.
func (s *sampler) drawRows(now *look) {
	var due []*sampled
	for _, a := range s.apps {
		if a.app != a.drawnOf || now.at.Sub(a.drawn) >= drawEvery {
			due = append(due, a)
		}
	}
	slices.SortFunc(due, func(a, b *sampled) int {
		switch x, y := a.newState(), b.newState(); {
		case x && !y:
			return -1
		case y && !x:
			return 1
		}
		return a.drawn.Compare(b.drawn)
	})
	for begun, i := time.Now(), 0; i < len(due) && (i < drawLeast || time.Since(begun) < drawTime); i++ {
		a := due[i]
		if row := s.draw(a.app); row != a.row {
			a.row, a.changed = row, now.tick
		}
		a.drawn, a.drawnOf = now.at, a.app
	}
}

// newState reports whether the app's row shows a state that has passed.
func (a *sampled) newState() bool { return a.drawnOf != nil && a.drawnOf.State != a.app.State }

// askTubes asks the queue for the numbers of some apps' tubes: all of them, if
// they are not very many. One that does not answer has nil.
func (s *sampler) askTubes(ctx context.Context, status []supervisor.AppStatus) map[string]*queue.TubeStats {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	out := make(map[string]*queue.TubeStats)
	for range min(len(status), askedAtOnce) {
		if ctx.Err() != nil {
			break
		}
		st := &status[s.turn%len(status)]
		s.turn++
		out[st.Name] = nil
		jobs, err := s.tree.Jobs(st.Name)
		if err != nil || jobs.Queue == nil || st.Health.State == supervisor.NoQueue {
			continue
		}
		if numbers, err := jobs.Queue.TubeStats(ctx, jobs.Tube); err == nil {
			out[st.Name] = &numbers
		}
	}
	return out
}

// look takes a sample of one app; ended is how many of its pushes have ended so far.
func (a *sampled) look(st *supervisor.AppStatus, tubes map[string]*queue.TubeStats, now time.Time, ended int64) {
	if tube, asked := tubes[st.Name]; asked {
		a.tube = tube
	}
	if a.tube == nil && st.Queue != nil {
		a.tube = &st.Queue.TubeStats
	}
	past := now.Sub(a.at)
	switch {
	case a.at.IsZero():
	case past > page.ChartPoints*sampleEvery: // there was no viewer for long
		a.rates = a.rates[:0]
	default:
		rate := float64(ended-a.ended) / past.Seconds()
		for range max(1, int(math.Round(past.Seconds()/sampleEvery.Seconds()))) {
			a.rates = append(a.rates, math.Round(rate*10)/10)
		}
		a.rates = slices.Delete(a.rates, 0, max(0, len(a.rates)-page.ChartPoints))
	}
	a.at, a.ended = now, ended
	if len(a.marks) == 0 || now.Sub(a.marks[len(a.marks)-1].at) >= markEvery {
		a.marks = append(a.marks, mark{now, latencyOf(&st.Counters.Seconds)})
		a.marks = slices.DeleteFunc(a.marks, func(m mark) bool { return now.Sub(m.at) > latencyTime+markEvery })
	}
}

// rate is how many pushes a second have ended lately; nil while that is not known.
func (a *sampled) rate() *float64 {
	const over = 5 // the rate of a single second changes too fast to read
	last := a.rates[max(0, len(a.rates)-over):]
	if len(last) == 0 {
		return nil
	}
	rate := 0.0
	for _, r := range last {
		rate += r / float64(len(last))
	}
	return &rate
}

// latency is that of the last minute's pushes; nil if there were none.
func (a *sampled) latency(h *worker.Histogram) *Latency {
	if len(a.marks) == 0 {
		return nil
	}
	return latencyOf(h).Since(a.marks[0].latency)
}

// view puts together what is known of an app.
func (a *sampled) view(st *supervisor.AppStatus) *liveApp {
	v := &liveApp{App: appOf(st), Rate: a.rate()}
	v.Latency, v.Queue = a.latency(&st.Counters.Seconds), nil
	if t := a.tube; t != nil {
		v.Queue = &Queue{Ready: t.Ready, Delayed: t.Delayed, Reserved: t.Reserved, Buried: t.Buried}
	}
	if len(a.rates) > 0 && slices.Max(a.rates) > 0 {
		v.Rates = slices.Clone(a.rates)
	}
	return v
}

// view is an app as of now, with what samples have shown before.
func (s *sampler) view(st *supervisor.AppStatus) *liveApp {
	v := &liveApp{App: appOf(st)}
	v.Latency = nil
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if last == nil || time.Since(last.at) > 2*sampleEvery {
		return v
	}
	if a := last.of[st.Name]; a != nil {
		v.Rate, v.Rates, v.Latency, v.Queue = a.app.Rate, a.app.Rates, a.app.Latency, a.app.Queue
	}
	return v
}

func endedOf(c *worker.Counters) (n int64) {
	for class := apnsconn.Delivered; class <= apnsconn.Unknown; class++ {
		n += c.Ended(class)
	}
	return n
}

// see waits for a look after the tick that was seen. ok is false if ctx ends first.
func (s *sampler) see(ctx context.Context, seen int64) (_ *look, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ticked == nil {
		s.ticked = make(chan struct{})
	}
	if next := s.ticked; seen == 0 || s.last.tick <= seen {
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-next:
			ok = true
		}
		s.mu.Lock()
		return s.last, ok
	}
	return s.last, true
}
