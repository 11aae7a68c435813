package httpapi

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
)

// Bounds of what is sampled for the page.
const (
	sampleEvery = time.Second
	// maxRates is how many samples a chart has: two minutes.
	maxRates = 120
	// latencyTime is what p50 and p99 are of, markEvery how exactly.
	latencyTime = time.Minute
	markEvery   = 5 * time.Second
	// askedAtOnce and askTime bound what one sample asks the queue: so many
	// tubes, for so long. The others have their turn in the next.
	askedAtOnce = 50
	askTime     = 500 * time.Millisecond
)

// sampler looks at the tree once a second for all who look at the page, and not
// at all while nobody does. Its goroutine is begun by the first who joins and
// waited for by the last who leaves.
type sampler struct {
	tree Tree

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
	status []supervisor.AppStatus // as of the last tick
}

// sampled is what is known of an app over time.
type sampled struct {
	row     appRow
	changed int64 // the tick with which row became what it is

	at    time.Time // of the last sample
	ended int64     // pushes until then
	rates []float64 // pushes a second, oldest first, at most maxRates
	marks []mark    // oldest first: for latencyTime
	tube  *queue.TubeStats
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
	s.status = status
	there := make(map[string]bool, len(status))
	for i := range status {
		st := &status[i]
		there[st.Topic] = true
		a := s.apps[st.Topic]
		if a == nil {
			a = new(sampled)
			s.apps[st.Topic] = a
		}
		a.look(st, tubes, now, endedOf(st.Counters))
		if row := a.rowOf(st, now); row != a.row {
			a.row, a.changed = row, s.tick
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

// look takes a sample of one app, of which so many pushes have ended.
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
	case past > maxRates*sampleEvery: // nobody has looked for long
		a.rates = a.rates[:0]
	default:
		rate := float64(ended-a.ended) / past.Seconds()
		for range max(1, int(math.Round(past.Seconds()/sampleEvery.Seconds()))) {
			a.rates = append(a.rates, math.Round(rate*10)/10)
		}
		a.rates = slices.Delete(a.rates, 0, max(0, len(a.rates)-maxRates))
	}
	a.at, a.ended = now, ended
	if len(a.marks) == 0 || now.Sub(a.marks[len(a.marks)-1].at) >= markEvery {
		a.marks = append(a.marks, mark{now, latencyOf(&st.Counters.Seconds)})
		a.marks = slices.DeleteFunc(a.marks, func(m mark) bool { return now.Sub(m.at) > latencyTime+markEvery })
	}
}

// rate is how many pushes a second have ended lately; ok is false while that is
// not known.
func (a *sampled) rate() (rate float64, ok bool) {
	const over = 5 // one second alone makes a number nobody can read
	last := a.rates[max(0, len(a.rates)-over):]
	for _, r := range last {
		rate += r / float64(len(last))
	}
	return rate, len(last) > 0
}

// latency is that of the last minute's pushes; nil if there were none.
func (a *sampled) latency(h *worker.Histogram) *Latency {
	if len(a.marks) == 0 {
		return nil
	}
	return latencyOf(h).Since(a.marks[0].latency)
}

func endedOf(c *worker.Counters) (n int64) {
	for class := apnsconn.Delivered; class <= apnsconn.Unknown; class++ {
		n += c.Ended(class)
	}
	return n
}

// look is what a viewer who has seen a tick gets to see.
type look struct {
	tick   int64
	rows   []appRow             // that have changed since, by topic
	rates  map[string][]float64 // of the charts; only at the first look
	topics []string             // all that the viewer may see
	status []supervisor.AppStatus
	now    []float64 // pushes in the last second of each
	rate   float64   // of all apps together
}

// see waits for a tick after the one that was seen, and returns what has changed
// of the apps that are meant. ok is false if ctx ends first.
func (s *sampler) see(ctx context.Context, seen int64, meant func(topic string) bool) (out look, ok bool) {
	s.mu.Lock()
	if s.ticked == nil {
		s.ticked = make(chan struct{})
	}
	if next := s.ticked; seen == 0 || s.tick <= seen {
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return out, false
		case <-next:
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	out.tick, out.rates = s.tick, make(map[string][]float64)
	for i := range s.status {
		st := &s.status[i]
		if !meant(st.Topic) {
			continue
		}
		a := s.apps[st.Topic]
		out.topics = append(out.topics, st.Topic)
		out.status = append(out.status, *st)
		if rate, ok := a.rate(); ok {
			out.rate += rate
		}
		now := 0.0
		if n := len(a.rates); n > 0 {
			now = a.rates[n-1]
		}
		out.now = append(out.now, now)
		if a.changed > seen || seen == 0 {
			out.rows = append(out.rows, a.row)
		}
		if seen == 0 {
			out.rates[st.Topic] = slices.Clone(a.rates)
		}
	}
	return out, true
}
