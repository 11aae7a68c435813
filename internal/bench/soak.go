package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"propeller/apnsconn"
	"propeller/internal/apnslean"
)

const (
	soakJobs = 1_000_000
	// Every soakFanOutEvery-th job has SoakFanOut tokens, the others one.
	soakFanOutEvery, SoakFanOut = 50, 100
	// So many requests have one answer of 410 and one of 503.
	soakGoneEvery, soakBusyEvery = 100, 1000
	// soakAhead is how many pushes may wait in the queue, and at most a tenth of
	// all: the queue's own memory grows with them, and may be this process's.
	soakAhead = 60_000
	// soakSamples is how many samples a run has at least; more of a long one.
	soakSamples  = 60
	soakInterval = 2 * time.Second
)

// soakSample is what must not grow, at one moment.
type soakSample struct {
	HeapMiB    float64 `json:"heap_mib"` // live after the last collection
	MemoryMiB  float64 `json:"memory_mib"`
	Goroutines float64 `json:"goroutines"`
	Files      float64 `json:"files"`
}

func takeSoakSample() soakSample {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return soakSample{
		HeapMiB: mib(int64(live[0].Value.Uint64())), MemoryMiB: mib(memory()),
		Goroutines: float64(runtime.NumGoroutine()), Files: float64(openFiles()),
	}
}

// soakLimits say what is no growth, from the first quarter's mean to the last's:
// so many parts of it, and so much on top.
var soakLimits = []struct {
	what         string
	of           func(*soakSample) *float64
	factor, plus float64
}{
	// The memory of device tokens fills as APNs calls tokens dead: up to 8.5 MB.
	{"live heap, MiB", func(s *soakSample) *float64 { return &s.HeapMiB }, 1.1, 8},
	{"resident, MiB", func(s *soakSample) *float64 { return &s.MemoryMiB }, 1.1, 16},
	{"goroutines", func(s *soakSample) *float64 { return &s.Goroutines }, 1.1, 20},
	{"open files", func(s *soakSample) *float64 { return &s.Files }, 1, 5},
}

// SoakFigures are a soak's result.
type SoakFigures struct {
	Queue   string       `json:"queue"`
	Jobs    int          `json:"jobs"`
	Pushes  int64        `json:"pushes"`
	Dead    int64        `json:"tokens_dead"`
	Again   int64        `json:"pushes_tried_again"`
	Took    float64      `json:"took"`
	First   soakSample   `json:"first_quarter"`
	Last    soakSample   `json:"last_quarter"`
	Samples []soakSample `json:"samples"`
}

func soakTokens(i int) int {
	if i%soakFanOutEvery == 0 {
		return SoakFanOut
	}
	return 1
}

// soak works off many jobs of all kinds while it watches memory, goroutines and
// files. Its error says what has grown.
func (p *benchPlan) soak(ctx context.Context) (print func(io.Writer) error, err error) {
	r, err := newBenchRig(ctx, p, apnslean.Options{Delay: p.rtt, DelayWindow: !p.ackAtOnce, GoneEvery: soakGoneEvery, BusyEvery: soakBusyEvery}, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	p.say("working off %s, put meanwhile on %s", count(p.jobs, "job"), r.q.what)
	f := &SoakFigures{Queue: r.q.what, Jobs: p.jobs}
	for i := range p.jobs {
		f.Pushes += int64(soakTokens(i))
	}
	begun := time.Now()
	r.start()
	if err := r.soakAll(ctx, f); err != nil {
		return nil, err
	}
	f.Took = time.Since(begun).Seconds()
	end := r.progress()
	f.Dead, f.Again = end.dead, end.other
	f.quarters()
	return f.print(p.json), f.grown()
}

// soakAll puts jobs, not far ahead, while it takes samples, and waits until all
// are done. What comes after the last put is another load, and not sampled.
func (r *benchRig) soakAll(ctx context.Context, f *SoakFigures) error {
	if err := r.soakPut(ctx, f); err != nil {
		return err
	}
	return r.wait(ctx, f.Pushes)
}

func (r *benchRig) soakPut(ctx context.Context, f *SoakFigures) error {
	done := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() { r.sample(done, f) })
	defer sampler.Wait()
	defer close(done)
	ahead := min(soakAhead, f.Pushes/10)
	var put int64
	const portion = 1000
	for from := 0; from < f.Jobs; from += portion {
		to := min(from+portion, f.Jobs)
		if err := putAll(ctx, r.q, r.name, r.jobs, from, to, soakTokens); err != nil {
			return err
		}
		for i := from; i < to; i++ {
			put += int64(soakTokens(i))
		}
		if err := r.wait(ctx, put-ahead); err != nil {
			return err
		}
	}
	return nil
}

// sample adds samples to f once a tenth of the pushes has ended: until then
// buffers and caches fill.
func (r *benchRig) sample(done <-chan struct{}, f *SoakFigures) {
	tick := time.NewTicker(soakEvery(f.Pushes))
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if r.sup.Status()[0].Counters.Ended(apnsconn.Delivered) >= f.Pushes/10 {
			f.Samples = append(f.Samples, takeSoakSample())
		}
	}
}

// soakEvery is the time between samples: some for a short run, too.
func soakEvery(pushes int64) time.Duration {
	const fast = 200_000 // pushes per second, hardly ever reached
	return max(5*time.Millisecond, min(soakInterval, time.Duration(pushes)*time.Second/fast/soakSamples))
}

// quarters fills in the means of the samples' first and last quarter.
func (f *SoakFigures) quarters() {
	n := max(1, len(f.Samples)/4)
	if len(f.Samples) == 0 {
		return
	}
	for _, l := range soakLimits {
		*l.of(&f.First) = mean(f.Samples[:n], l.of)
		*l.of(&f.Last) = mean(f.Samples[len(f.Samples)-n:], l.of)
	}
}

func mean(samples []soakSample, of func(*soakSample) *float64) float64 {
	var sum float64
	for i := range samples {
		sum += *of(&samples[i])
	}
	return sum / float64(len(samples))
}

// grown says what has grown beyond its limit.
func (f *SoakFigures) grown() error {
	if len(f.Samples) < 8 {
		return fmt.Errorf("soak: %d samples are too few to tell anything: give more --jobs", len(f.Samples))
	}
	var errs []error
	for _, l := range soakLimits {
		first, last := *l.of(&f.First), *l.of(&f.Last)
		if most := l.factor*first + l.plus; last > most {
			errs = append(errs, fmt.Errorf("soak: %s grew from %.1f to %.1f, at most %.1f is expected", l.what, first, last, most))
		}
	}
	return errors.Join(errs...)
}

func (f *SoakFigures) print(asJSON bool) func(io.Writer) error {
	if asJSON {
		return func(w io.Writer) error { return printJSON(w, f) }
	}
	rows := [][2]string{
		{"queue", f.Queue},
		{"load", fmt.Sprintf("%s, every %dth with %d tokens", count(f.Jobs, "job"), soakFanOutEvery, SoakFanOut)},
		{"pushes", fmt.Sprintf("%s in %s, of which %s to dead tokens; %s tried again", thousands(f.Pushes), roundTime(seconds(f.Took)), thousands(f.Dead), thousands(f.Again))},
	}
	for _, l := range soakLimits {
		first, last := *l.of(&f.First), *l.of(&f.Last)
		rows = append(rows, [2]string{l.what, fmt.Sprintf("%.1f in the first quarter, %.1f in the last; at most %.1f", first, last, l.factor*first+l.plus)})
	}
	return func(w io.Writer) error { return printRows(w, rows) }
}
