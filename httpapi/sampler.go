package httpapi

import (
	"context"
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
	// rateOver is how many seconds a rate is the average of: that of a single one changes
	// too fast to read.
	rateOver = 5
	// askedAtOnce and askTime bound what one sample asks the queue: so many
	// tubes, for so long. The others have their turn in the next.
	askedAtOnce = 50
	askTime     = 500 * time.Millisecond
	// askSeen is for how many looks the tube of an app that sleeps is asked about after a
	// page has shown it.
	askSeen = 5
)

// sampler looks at the tree once a second for all viewers of the page, and not at all
// without any. The first viewer starts its goroutine, the last one waits for it.
type sampler struct {
	tree appTree
	draw func(*liveApp) string // the app's row of the overview, for all viewers

	joining sync.Mutex // guards viewers, stop and running
	viewers int
	stop    context.CancelFunc
	running sync.WaitGroup

	// Of the goroutine.
	turn  int            // of the apps, whose tubes are asked about next
	apps  []*sampled     // as the tree has them
	index map[string]int // of apps, by name; replaced when there are others

	mu     sync.Mutex
	last   *look         // nil before the first
	ticked chan struct{} // closed with the next look
}

// look is all apps as of one tick. It is never changed, so that viewers need no lock to
// read it.
type look struct {
	tick  int64
	at    time.Time
	apps  []shown // as the tree has them
	index map[string]int
}

// find returns an app as of the look; nil if there was none of this name.
func (l *look) find(name string) *shown {
	if i, ok := l.index[name]; ok {
		return &l.apps[i]
	}
	return nil
}

// liveApp is an app as the page shows it: the API's view with what takes several looks to
// know. Latency is that of the last minute, Queue a few seconds old at most.
type liveApp struct {
	App
	Rate  *float64  // pushes per second in the last seconds; nil while unknown
	Rates []float64 // each second's, oldest first; nil while all are 0
}

// meant returns the apps that are meant, in the tree's order.
func (l *look) meant(is func(*supervisor.AppStatus) bool) (apps []shown) {
	for i := range l.apps {
		if is(l.apps[i].status) {
			apps = append(apps, l.apps[i])
		}
	}
	return apps
}

// sampled is what is known of an app over time.
type sampled struct {
	shown
	at     time.Time // of the last sample
	ended  int64     // pushes until then
	rates  []float64 // pushes a second, oldest first, at most page.ChartPoints
	marks  []mark    // oldest first: for latencyTime
	quiet  bool      // it sleeps, and no push has ended for as long as a chart goes back
	asked  bool      // for tube, in this sample
	tube   *queue.TubeStats
	tubeAt time.Time
}

// shown is an app as of a tick, as viewers see it.
type shown struct {
	status *supervisor.AppStatus
	app    *liveApp // replaced when it changes; nil before the first look
	row    *row     // of the overview
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
	s.follow(status)
	tick := int64(1)
	if s.last != nil { // only this goroutine sets it
		tick = s.last.tick + 1
	}
	s.askTubes(ctx, status, tick)
	now := &look{tick: tick, at: time.Now(), apps: make([]shown, len(status)), index: s.index}
	for i, a := range s.apps {
		a.sample(&status[i], now.at)
		now.apps[i] = a.shown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = now
	if s.ticked != nil {
		close(s.ticked)
	}
	s.ticked = make(chan struct{})
}

// follow has apps and index be those of the status.
func (s *sampler) follow(status []supervisor.AppStatus) {
	same := len(s.apps) == len(status)
	for i := 0; same && i < len(status); i++ {
		same = s.apps[i].status.Name == status[i].Name
	}
	if same {
		return
	}
	apps, index := make([]*sampled, len(status)), make(map[string]int, len(status))
	for i := range status {
		name := status[i].Name
		if at, ok := s.index[name]; ok {
			apps[i] = s.apps[at]
		} else {
			apps[i] = &sampled{shown: shown{row: new(row)}}
		}
		index[name] = i
	}
	s.apps, s.index = apps, index
}

// askTubes asks the queue for the numbers of some apps' tubes: all of those awake and those
// of sleepers that pages show, if they are not very many.
func (s *sampler) askTubes(ctx context.Context, status []supervisor.AppStatus, tick int64) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var due []int
	for i := range status {
		if seen := s.apps[i].row.seen.Load(); !status[i].Asleep || seen > 0 && tick-seen <= askSeen {
			due = append(due, i)
		}
	}
	for range min(len(due), askedAtOnce) {
		if ctx.Err() != nil {
			break
		}
		i := due[s.turn%len(due)]
		s.turn++
		st, a := &status[i], s.apps[i]
		a.asked, a.tube, a.tubeAt = true, nil, time.Time{}
		jobs, err := s.tree.Jobs(st.Name)
		if err != nil || jobs.Queue == nil || st.Health.State == supervisor.NoQueue {
			continue
		}
		if numbers, err := jobs.Queue.TubeStats(ctx, jobs.Tube); err == nil {
			a.tube, a.tubeAt = &numbers, time.Now()
		}
	}
}

// sample takes a sample of the app. One that sleeps costs next to nothing, unless it changes.
func (a *sampled) sample(st *supervisor.AppStatus, now time.Time) {
	ended := endedOf(st.Counters)
	if a.quiet && ended == a.ended && !a.asked && sleepsOn(a.status, st) {
		a.status, a.at, a.marks[0].at = st, now, now
		return
	}
	a.look(st, now, ended)
	a.status, a.asked = st, false
	if app := a.view(st); !reflect.DeepEqual(app, a.app) {
		a.app = app
	}
	if a.quiet = st.Asleep && len(a.rates) > 0 && a.app.Rates == nil && a.app.Latency == nil; a.quiet {
		a.rates = slices.Clone(a.rates[max(0, len(a.rates)-rateOver):])
		a.marks = slices.Clone(a.marks[len(a.marks)-1:])
	}
}

// sleepsOn reports whether an app that sleeps is as it was. What its workers would change has
// not changed.
func sleepsOn(was, is *supervisor.AppStatus) bool {
	return was.Asleep && is.Asleep && was.Topic == is.Topic && was.Tube == is.Tube && was.Health == is.Health && was.Paused == is.Paused &&
		was.CredentialExpiry.Equal(is.CredentialExpiry) && was.CredentialFault == is.CredentialFault && len(was.Workers) == len(is.Workers) &&
		was.Counters == is.Counters && was.Steps == is.Steps && sameQueue(was.Queue, is.Queue) && sameWebhook(was.Webhook, is.Webhook)
}

func sameQueue(a, b *supervisor.QueueStats) bool {
	return a == b || a != nil && b != nil && a.TubeStats == b.TubeStats && a.Incomplete == b.Incomplete
}

func sameWebhook(a, b *supervisor.Webhook) bool {
	return a == b || a != nil && b != nil && a.Down == b.Down && a.Reason == b.Reason && a.Since.Equal(b.Since) && a.Stalled == b.Stalled
}

// look takes a sample of one app; ended is how many of its pushes have ended so far.
func (a *sampled) look(st *supervisor.AppStatus, now time.Time, ended int64) {
	if q := st.Queue; q != nil && q.At.After(a.tubeAt) {
		a.tube, a.tubeAt = &q.TubeStats, q.At
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
	last := a.rates[max(0, len(a.rates)-rateOver):]
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
	if last := s.latest(); last != nil {
		if a := last.find(st.Name); a != nil {
			v.Rate, v.Rates, v.Latency, v.Queue = a.app.Rate, a.app.Rates, a.app.Latency, a.app.Queue
		}
	}
	return v
}

// latest is the last look; nil if nobody looks.
func (s *sampler) latest() *look {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || time.Since(s.last.at) > 2*sampleEvery {
		return nil
	}
	return s.last
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
