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

	mu     sync.Mutex
	tick   int64
	ticked chan struct{} // closed with the next tick
	apps   map[string]*sampled
	topics []string // of apps, as the tree has them
}

// liveApp is an app as the page shows it: the API's view with what takes several looks to
// know. Latency is that of the last minute, Queue a few seconds old at most.
type liveApp struct {
	App
	Rate  *float64  // pushes per second in the last seconds; nil while unknown
	Rates []float64 // each second's, oldest first; nil while all are 0
}

// sampled is what is known of an app over time.
type sampled struct {
	shown
	drawn time.Time // when row was

	at    time.Time // of the last sample
	ended int64     // pushes until then
	rates []float64 // pushes a second, oldest first, at most page.ChartPoints
	marks []mark    // oldest first: for latencyTime
	tube  *queue.TubeStats
}

// shown is an app as of a tick, as viewers see it.
type shown struct {
	app    *liveApp // replaced when it changes
	row    string   // of the overview
	status *supervisor.AppStatus
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
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.apps == nil {
		s.apps = make(map[string]*sampled)
	}
	s.tick++
	s.topics = s.topics[:0]
	there := make(map[string]bool, len(status))
	for i := range status {
		st := &status[i]
		there[st.Topic] = true
		s.topics = append(s.topics, st.Topic)
		a := s.apps[st.Topic]
		if a == nil {
			a = new(sampled)
			s.apps[st.Topic] = a
		}
		a.look(st, tubes, now, endedOf(st.Counters))
		a.status = st
		if app := a.view(st); !reflect.DeepEqual(app, a.app) || now.Sub(a.drawn) >= drawEvery {
			a.app, a.row, a.drawn = app, s.draw(app), now
		}
	}
	maps.DeleteFunc(s.apps, func(topic string, _ *sampled) bool { return !there[topic] })
	if s.ticked != nil {
		close(s.ticked)
	}
	s.ticked = make(chan struct{})
}

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
		out[st.Topic] = nil
		jobs, err := s.tree.Jobs(st.Topic)
		if err != nil || jobs.Queue == nil || st.Health.State == supervisor.NoQueue {
			continue
		}
		if numbers, err := jobs.Queue.TubeStats(ctx, jobs.Tube); err == nil {
			out[st.Topic] = &numbers
		}
	}
	return out
}

// look takes a sample of one app; ended is how many of its pushes have ended so far.
func (a *sampled) look(st *supervisor.AppStatus, tubes map[string]*queue.TubeStats, now time.Time, ended int64) {
	if tube, asked := tubes[st.Topic]; asked {
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
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[st.Topic]
	if a == nil || time.Since(a.at) > 2*sampleEvery {
		a = new(sampled)
		if st.Queue != nil {
			a.tube = &st.Queue.TubeStats
		}
	}
	return a.view(st)
}

func endedOf(c *worker.Counters) (n int64) {
	for class := apnsconn.Delivered; class <= apnsconn.Unknown; class++ {
		n += c.Ended(class)
	}
	return n
}

// see waits for a tick after the one that was seen, and returns the apps that are meant.
// ok is false if ctx ends first.
func (s *sampler) see(ctx context.Context, seen int64, meant func(topic string) bool) (apps []shown, tick int64, ok bool) {
	s.mu.Lock()
	if s.ticked == nil {
		s.ticked = make(chan struct{})
	}
	if next := s.ticked; seen == 0 || s.tick <= seen {
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, 0, false
		case <-next:
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	for _, topic := range s.topics {
		if meant(topic) {
			apps = append(apps, s.apps[topic].shown)
		}
	}
	return apps, s.tick, true
}
