package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"propeller/internal/bench"
	"propeller/internal/text"
)

// start measures how long it takes from a start until any app's push is delivered.
func (r *appsRig) start(ctx context.Context) error {
	if err := r.launch(ctx, change{}); err != nil {
		return err
	}
	some, last := r.p.apps/2, r.p.apps-1
	var took [2]time.Duration
	for i, app := range []int{some, last} {
		r.arrivals.begin()
		if err := r.put(ctx, app); err != nil {
			return err
		}
		at, err := r.arrivals.wait(ctx, r.p.settle)
		if err != nil {
			return fmt.Errorf("app %d of %d: %w", app+1, r.p.apps, err)
		}
		took[i] = at.Sub(r.d.begun)
	}
	r.judged("start until a push is delivered", fmt.Sprintf("%s to app %s, %s to the last app", seconds(took[0]), text.Count(int64(some+1)), seconds(took[1])),
		"≤ 3 s", max(took[0], took[1]) <= 3*time.Second)
	if err := r.d.ready(ctx, r.p.settle); err != nil {
		r.row("start until all are ready", err.Error())
		return nil
	}
	r.row("start until all are ready", seconds(time.Since(r.d.begun)))
	return nil
}

// launch starts the daemon and waits until it answers over HTTP.
func (r *appsRig) launch(ctx context.Context, c change) error {
	if err := r.d.configure(r.config(r.p.apps, c)); err != nil {
		return err
	}
	if err := r.d.start(); err != nil {
		return err
	}
	return r.d.answers(ctx)
}

// answers waits until the process answers over HTTP.
func (d *daemon) answers(ctx context.Context) error {
	for end := time.Now().Add(daemonTime); ; {
		_, _, err := d.ask(ctx, http.MethodGet, "/healthz", "", nil)
		switch {
		case err == nil:
			return nil
		case d.alive() != nil:
			return d.alive()
		case time.Now().After(end):
			return fmt.Errorf("no answer after %v: %w", daemonTime, err)
		}
		if err := bench.Pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// idle measures what the apps cost while there is nothing to do.
func (r *appsRig) idle(ctx context.Context) error {
	if err := r.settle(ctx, min(r.p.settle, 30*time.Second)); err != nil {
		return err
	}
	own, servers, err := r.d.cores(ctx, r.p.idle)
	if err != nil {
		return err
	}
	u, err := r.d.use()
	if err != nil {
		return err
	}
	r.resident("resident while idle", u)
	value, met := fmt.Sprintf("%.2f %%", 100*own), own <= 0.02
	if len(r.d.queue.pids) > 0 {
		value += fmt.Sprintf(", the queue's servers %.2f %%", 100*servers)
		met = met && servers <= 0.02
	}
	r.judged("CPU of a core, nothing to do", value, "≤ 2 %", met)
	r.judged("open files while idle", text.Count(int64(u.files)), "≤ 100", u.files <= 100)
	return nil
}

func (r *appsRig) resident(name string, u used) {
	most := 120.0
	if r.s.queue == "embedded" {
		most = 150
	}
	r.judged(name, fmt.Sprintf("%.0f MiB", u.residentMiB), fmt.Sprintf("≤ %.0f MiB", most), u.residentMiB <= most)
}

// firstPushes measures the time from put to request of pushes to apps that have had none.
func (r *appsRig) firstPushes(ctx context.Context) error {
	producer, err := r.d.queue.dial()
	if err != nil {
		return err
	}
	defer producer.close()
	overHTTP := func(ctx context.Context, apps []int) error { return r.putAtOnce(ctx, apps) }
	byOthers := func(ctx context.Context, apps []int) error {
		var jobs []foreignJob
		for _, app := range apps {
			_, fields := r.arrivals.job()
			jobs = append(jobs, foreignJob{topic(app), fmt.Appendf(nil, "{%s}", fields)})
		}
		return producer.put(ctx, jobs)
	}
	foreignMost := 300 * time.Millisecond
	if r.s.queue == "embedded" {
		foreignMost = 100 * time.Millisecond
	}
	for _, way := range []struct {
		name string
		put  func(ctx context.Context, apps []int) error
		most time.Duration // one at a time
	}{{"over HTTP", overHTTP, 20 * time.Millisecond}, {"by a foreign client", byOthers, foreignMost}} {
		single, err := r.delays(ctx, way.put, r.p.singles, 1)
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		r.judged("first push "+way.name, single.String(), fmt.Sprintf("p99 ≤ %v", way.most), single.at(0.99) <= way.most)
		burst, err := r.delays(ctx, way.put, r.p.burst, r.p.burst)
		if err != nil {
			return fmt.Errorf("%s, %d at once: %w", way.name, r.p.burst, err)
		}
		r.row(fmt.Sprintf("%d first pushes at once %s", r.p.burst, way.name), burst.String())
	}
	return nil
}

// At most so many apps wake within any second; a measurement of how long one takes puts no more.
const (
	wakesPace    = 1100 * time.Millisecond
	wakesASecond = 100
)

// delays puts n first pushes, so many at once, and waits for them before it puts more.
func (r *appsRig) delays(ctx context.Context, put func(context.Context, []int) error, n, atOnce int) (delays, error) {
	if err := bench.Pause(ctx, wakesPace); err != nil {
		return nil, err
	}
	from := r.arrivals.begin()
	for left := n; left > 0; left -= atOnce {
		if err := bench.Pause(ctx, wakesPace*time.Duration(atOnce)/wakesASecond); err != nil {
			return nil, err
		}
		var apps []int
		for range atOnce {
			apps = append(apps, r.fresh)
			r.fresh++
		}
		if err := put(ctx, apps); err != nil {
			return nil, err
		}
		if _, err := r.arrivals.wait(ctx, overtime); err != nil {
			return nil, err
		}
	}
	return r.arrivals.delays(from), nil
}

// putAtOnce puts a job to each of some apps over HTTP, all at once.
func (r *appsRig) putAtOnce(ctx context.Context, apps []int) error {
	var puts sync.WaitGroup
	errs := make([]error, len(apps))
	for i, app := range apps {
		puts.Go(func() { errs[i] = r.put(ctx, app) })
	}
	puts.Wait()
	return errors.Join(errs...)
}

// each gives each app a push, evenly over a time.
func (r *appsRig) each(ctx context.Context) error {
	from := r.arrivals.begin()
	before, err := r.d.use()
	if err != nil {
		return err
	}
	most, begun := before, time.Now()
	watching, stop := context.WithCancel(ctx)
	var others sync.WaitGroup
	others.Go(func() { r.most(watching, &most) })
	putErr := r.putEach(ctx, begun)
	put := time.Since(begun)
	last, waitErr := r.arrivals.wait(ctx, 2*overtime)
	stop()
	others.Wait()
	now, err := r.d.use()
	if err := errors.Join(putErr, err); err != nil {
		return err
	}
	count, took := r.arrivals.count(from), last.Sub(begun)
	value := fmt.Sprintf("%v; put in %s, the last delivered after %s; %v", count, seconds(put), seconds(took), r.arrivals.delays(from))
	if waitErr != nil {
		value = waitErr.Error()
	}
	r.judged("a push to each within 60 s", value, "all once", waitErr == nil && count == tally{once: r.p.apps} && put <= time.Minute)
	r.row("meanwhile", fmt.Sprintf("%.0f %% of a core, at most %.0f MiB resident and %s open files",
		100*(now.cpu-before.cpu).Seconds()/time.Since(begun).Seconds(), most.residentMiB, text.Count(int64(most.files))))
	return nil
}

// putters is how many put at a time, so that one slow answer does not hold up the others.
const putters = 16

func (r *appsRig) putEach(ctx context.Context, begun time.Time) error {
	var puts sync.WaitGroup
	errs := make([]error, putters)
	for i := range putters {
		puts.Go(func() {
			for app := i; app < r.p.apps && errs[i] == nil; app += putters {
				due := begun.Add(r.p.spread * time.Duration(app) / time.Duration(r.p.apps))
				if errs[i] = bench.Pause(ctx, time.Until(due)); errs[i] == nil {
					errs[i] = r.put(ctx, app)
				}
			}
		})
	}
	puts.Wait()
	return errors.Join(errs...)
}

// most keeps the most that the daemon has used at any time.
func (r *appsRig) most(ctx context.Context, most *used) {
	for bench.Pause(ctx, 500*time.Millisecond) == nil {
		u, err := r.d.use()
		if err != nil {
			return // the next step says why
		}
		most.residentMiB, most.files = max(most.residentMiB, u.residentMiB), max(most.files, u.files)
	}
}

// after measures what is left of that one minute later, and of one more.
func (r *appsRig) after(ctx context.Context) error {
	for _, name := range []string{"one minute after a push to each", "two minutes after"} {
		if err := bench.Pause(ctx, r.p.rest); err != nil {
			return err
		}
		u, err := r.d.use()
		if err != nil {
			return err
		}
		r.resident("resident "+name, u)
		r.row("open files "+name, text.Count(int64(u.files)))
	}
	return nil
}

// stop measures how long the daemon takes to end while it has nothing to do.
func (r *appsRig) stop(ctx context.Context) error {
	if err := r.settle(ctx, min(r.p.settle, 30*time.Second)); err != nil {
		return err
	}
	took, err := r.d.stop()
	if err != nil {
		return err
	}
	r.judged("SIGTERM while idle", seconds(took), "≤ 2 s", took <= 2*time.Second)
	return nil
}
