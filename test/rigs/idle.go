package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"propeller/internal/bench"
	"propeller/internal/text"
)

const (
	idleApps = 1000
	// idleStartTime bounds the time until all workers wait for jobs.
	idleStartTime = time.Minute
)

// idleFigures are what apps cost that have nothing to do.
type idleFigures struct {
	apps, goroutines, files int
	memoryMiB, core         float64 // core: share of one that this process takes
}

// idle runs apps without jobs and measures what they cost.
func (s *settings) idle(ctx context.Context, q bench.Engine) ([][2]string, error) {
	f, err := s.measureIdle(ctx, q)
	if err != nil {
		return nil, err
	}
	return [][2]string{
		{"apps", text.Count(int64(f.apps)) + " without jobs"},
		{"memory", fmt.Sprintf("%.0f MiB", f.memoryMiB)},
		{"cpu", fmt.Sprintf("%.2f %% of a core here", 100*f.core)},
		{"goroutines", text.Count(int64(f.goroutines))},
		{"open files", text.Count(int64(f.files))},
	}, nil
}

func (s *settings) measureIdle(ctx context.Context, q bench.Engine) (f idleFigures, err error) {
	apps := cmp.Or(s.apps, idleApps)
	// Without a job no app connects to APNs.
	r, err := s.newRig(q, bench.Setup{Addr: "127.0.0.1:1", Apps: apps, Workers: 1, InFlight: 1000})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s.say("starting %s", text.Plural(apps, "app"))
	r.Start()
	if err := waitServing(ctx, r, apps); err != nil {
		return f, err
	}
	// The queue's own consumers are made only now, and leave something to collect.
	if err := bench.Pause(ctx, 2*s.time); err != nil {
		return f, err
	}
	debug.FreeOSMemory()
	used := bench.Measure()
	if err := bench.Pause(ctx, s.time); err != nil {
		return f, err
	}
	u := used()
	f = idleFigures{apps: apps, goroutines: runtime.NumGoroutine(), core: float64(u.CPU) / float64(u.Time)}
	f.memoryMiB, f.files, err = memory()
	return f, err
}

// waitServing waits until so many workers receive.
func waitServing(ctx context.Context, r *bench.Rig, workers int) error {
	for end := time.Now().Add(idleStartTime); ; {
		serving := 0
		for _, app := range r.Tree.Status() {
			for _, w := range app.Workers {
				if w.Serving && w.Waiting == "" {
					serving++
				}
			}
		}
		switch {
		case serving == workers:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("only %d of %d workers serve after %v", serving, workers, idleStartTime)
		}
		if err := bench.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
