package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"propeller/apnsconn"
	"propeller/internal/apnslean"
	"propeller/internal/bench"
	"propeller/internal/text"
)

const (
	// Every soakFanOutEvery-th job has soakFanOut tokens, the others one.
	soakFanOutEvery, soakFanOut = 50, 100
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
	heapMiB    float64 // live after the last collection
	memoryMiB  float64
	goroutines float64
	files      float64
}

func takeSoakSample() (s soakSample, err error) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	mib, files, err := memory()
	return soakSample{
		heapMiB: float64(live[0].Value.Uint64()) / (1 << 20), memoryMiB: mib,
		goroutines: float64(runtime.NumGoroutine()), files: float64(files),
	}, err
}

// soakLimits say what is no growth, from the first quarter's mean to the last's:
// so many parts of it, and so much on top.
var soakLimits = []struct {
	what         string
	of           func(*soakSample) *float64
	factor, plus float64
}{
	// The memory of device tokens fills as APNs calls tokens dead: up to 8.5 MB.
	{"live heap, MiB", func(s *soakSample) *float64 { return &s.heapMiB }, 1.1, 8},
	{"resident, MiB", func(s *soakSample) *float64 { return &s.memoryMiB }, 1.1, 16},
	{"goroutines", func(s *soakSample) *float64 { return &s.goroutines }, 1.1, 20},
	{"open files", func(s *soakSample) *float64 { return &s.files }, 1, 5},
}

// soakFigures are a soak's result.
type soakFigures struct {
	jobs         int
	pushes       int64
	dead, again  int64 // again: ended in a way that has a next try
	took         time.Duration
	first, last  soakSample // means of the samples' first and last quarter
	samples      []soakSample
	samplesError error
}

func soakTokens(i int) int {
	if i%soakFanOutEvery == 0 {
		return soakFanOut
	}
	return 1
}

// soak works off many jobs of all kinds while it watches memory, goroutines and
// files. Its error says what has grown.
func (s *settings) soak(ctx context.Context, q bench.Engine) ([][2]string, error) {
	f, err := s.measureSoak(ctx, q)
	if err != nil {
		return nil, err
	}
	return f.rows(), f.grown()
}

func (s *settings) measureSoak(ctx context.Context, q bench.Engine) (f *soakFigures, err error) {
	apns, err := apnslean.Start(apnslean.Options{GoneEvery: soakGoneEvery, BusyEvery: soakBusyEvery})
	if err != nil {
		return nil, err
	}
	defer apns.Close()
	r, err := s.newRig(q, bench.Setup{Addr: apns.Addr(), Cert: string(apns.CertPEM()), Apps: 1, Workers: 1, InFlight: 1000})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s.say("working off %s, put meanwhile", text.Plural(s.jobs, "job"))
	f = &soakFigures{jobs: s.jobs}
	for i := range s.jobs {
		f.pushes += int64(soakTokens(i))
	}
	begun := time.Now()
	r.Start()
	if err := soakPut(ctx, r, f); err != nil {
		return nil, err
	}
	// What comes after the last put is another load, and not sampled.
	if err := r.Wait(ctx, f.pushes); err != nil {
		return nil, err
	}
	end := r.Progress()
	f.took, f.dead, f.again = time.Since(begun), end.Dead, end.Other
	f.quarters()
	return f, f.samplesError
}

// soakPut puts jobs, not far ahead, while it takes samples.
func soakPut(ctx context.Context, r *bench.Rig, f *soakFigures) error {
	done := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() { f.sample(r, done) })
	defer sampler.Wait()
	defer close(done)
	ahead := min(soakAhead, f.pushes/10)
	var put int64
	const portion = 1000
	for from := 0; from < f.jobs; from += portion {
		to := min(from+portion, f.jobs)
		if err := r.Put(ctx, from, to, 0, soakTokens); err != nil {
			return err
		}
		for i := from; i < to; i++ {
			put += int64(soakTokens(i))
		}
		if err := r.Wait(ctx, put-ahead); err != nil {
			return err
		}
	}
	return nil
}

// sample adds samples to f once a tenth of the pushes has ended: until then
// buffers and caches fill.
func (f *soakFigures) sample(r *bench.Rig, done <-chan struct{}) {
	tick := time.NewTicker(soakEvery(f.pushes))
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if r.Tree.Status()[0].Counters.Ended(apnsconn.Delivered) < f.pushes/10 {
			continue
		}
		s, err := takeSoakSample()
		if err != nil {
			f.samplesError = err
			return
		}
		f.samples = append(f.samples, s)
	}
}

// soakEvery is the time between samples: some for a short run, too.
func soakEvery(pushes int64) time.Duration {
	const fast = 200_000 // pushes per second, hardly ever reached
	return max(5*time.Millisecond, min(soakInterval, time.Duration(pushes)*time.Second/fast/soakSamples))
}

// quarters fills in the means of the samples' first and last quarter.
func (f *soakFigures) quarters() {
	n := max(1, len(f.samples)/4)
	if len(f.samples) == 0 {
		return
	}
	for _, l := range soakLimits {
		*l.of(&f.first) = mean(f.samples[:n], l.of)
		*l.of(&f.last) = mean(f.samples[len(f.samples)-n:], l.of)
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
func (f *soakFigures) grown() error {
	if len(f.samples) < 8 {
		return fmt.Errorf("soak: %d samples are too few to tell anything: give more -jobs", len(f.samples))
	}
	var errs []error
	for _, l := range soakLimits {
		first, last := *l.of(&f.first), *l.of(&f.last)
		if most := l.factor*first + l.plus; last > most {
			errs = append(errs, fmt.Errorf("soak: %s grew from %.1f to %.1f, at most %.1f is expected", l.what, first, last, most))
		}
	}
	return errors.Join(errs...)
}

func (f *soakFigures) rows() [][2]string {
	rows := [][2]string{
		{"load", fmt.Sprintf("%s, every %dth with %d tokens", text.Plural(f.jobs, "job"), soakFanOutEvery, soakFanOut)},
		{"pushes", fmt.Sprintf("%s in %s, of which %s to dead tokens; %s tried again", text.Count(f.pushes), f.took.Round(time.Millisecond), text.Count(f.dead), text.Count(f.again))},
	}
	for _, l := range soakLimits {
		first, last := *l.of(&f.first), *l.of(&f.last)
		rows = append(rows, [2]string{l.what, fmt.Sprintf("%.1f in the first quarter, %.1f in the last; at most %.1f", first, last, l.factor*first+l.plus)})
	}
	return rows
}
