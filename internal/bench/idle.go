package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"propeller/internal/apnslean"
)

// IdleFigures are what apps cost that have nothing to do.
type IdleFigures struct {
	Queue      string  `json:"queue"`
	Apps       int     `json:"apps"`
	MemoryMiB  float64 `json:"memory_mib"`
	Core       float64 `json:"core_share"` // of one core, this process
	QueueCore  float64 `json:"queue_core_share,omitempty"`
	Goroutines int     `json:"goroutines"`
	Files      int     `json:"files"`
}

// idleStartTime bounds the time until all workers wait for jobs.
const idleStartTime = time.Minute

// idle runs apps without jobs and measures what they cost.
func (p *benchPlan) idle(ctx context.Context, apps int) (print func(io.Writer) error, err error) {
	r, err := newBenchRig(ctx, p, apnslean.Options{}, apps)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	p.say("starting %s on %s", count(apps, "app"), r.q.what)
	r.start()
	if err := r.waitServing(ctx, apps*p.workers); err != nil {
		return nil, err
	}
	// The queue's own consumers are made only now, and leave something to collect.
	if err := pause(ctx, 2*p.time); err != nil {
		return nil, err
	}
	debug.FreeOSMemory()
	before, err := r.usage()
	if err != nil {
		return nil, err
	}
	stopProfile, err := p.startProfile()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(pause(ctx, p.time), stopProfile()); err != nil {
		return nil, err
	}
	after, err := r.usage()
	if err != nil {
		return nil, err
	}
	took := after.at.Sub(before.at)
	f := &IdleFigures{
		Queue: r.q.what, Apps: apps, MemoryMiB: mib(memory()), Goroutines: runtime.NumGoroutine(), Files: openFiles(),
		Core: float64(after.own-before.own) / float64(took),
	}
	if before.queueOK && after.queueOK {
		f.QueueCore = float64(after.queue-before.queue) / float64(took)
	}
	return f.print(p.json), r.halt()
}

// waitServing waits until so many workers receive.
func (r *benchRig) waitServing(ctx context.Context, workers int) error {
	for end := time.Now().Add(idleStartTime); ; {
		serving := 0
		for _, app := range r.sup.Status() {
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
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, unless the run is interrupted.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return errors.New("interrupted")
	case <-time.After(d):
		return nil
	}
}

func (f *IdleFigures) print(asJSON bool) func(io.Writer) error {
	if asJSON {
		return func(w io.Writer) error { return printJSON(w, f) }
	}
	cost := fmt.Sprintf("%.2f %% of a core here", 100*f.Core)
	if f.QueueCore > 0 {
		cost += fmt.Sprintf(", %.2f %% in beanstalkd", 100*f.QueueCore)
	}
	return func(w io.Writer) error {
		return printRows(w, [][2]string{
			{"queue", f.Queue},
			{"apps", thousands(int64(f.Apps)) + " without jobs"},
			{"memory", fmt.Sprintf("%.0f MiB", f.MemoryMiB)},
			{"cpu", cost},
			{"goroutines", thousands(int64(f.Goroutines))},
			{"open files", thousands(int64(f.Files))},
		})
	}
}
