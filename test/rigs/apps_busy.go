package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"propeller/internal/text"
)

// busyRate is what a busy tube takes in and gets out, in jobs a second.
type busyRate struct{ put, push float64 }

// busy measures a busy tube beside those that sleep against one in a daemon of its own, in
// turns. While that one has its turn the other daemon is frozen, so that what its apps cost
// shows in its own turns only.
func (r *appsRig) busy(ctx context.Context) (err error) {
	alone, err := r.newDaemon()
	if err != nil {
		return err
	}
	defer alone.close()
	if err := alone.configure(r.config(1, change{})); err != nil {
		return err
	}
	if err := alone.start(); err != nil {
		return err
	}
	if err := alone.answers(ctx); err != nil {
		return err
	}
	var beside, single []busyRate
	for i := range 1 + r.p.rounds { // the first warms up
		if err := r.d.freeze(true); err != nil {
			return err
		}
		one, err := r.busyRound(ctx, alone)
		if err := errors.Join(err, r.d.freeze(false)); err != nil {
			return err
		}
		if err := r.settle(ctx, 5*time.Second); err != nil { // it makes up for what it missed
			return err
		}
		other, err := r.busyRound(ctx, r.d)
		if err != nil {
			return err
		}
		if i > 0 {
			single, beside = append(single, one), append(beside, other)
		}
	}
	for _, what := range []struct {
		name string
		of   func(busyRate) float64
	}{{"put", func(b busyRate) float64 { return b.put }}, {"push", func(b busyRate) float64 { return b.push }}} {
		a, b := median(single, what.of), median(beside, what.of)
		r.judged(fmt.Sprintf("%s rate of a busy tube beside %s, to alone", what.name, text.Count(int64(r.p.apps-1))),
			fmt.Sprintf("%.2f: %s/s to %s/s", b/a, text.Count(int64(b)), text.Count(int64(a))), "≥ 0.95", b/a >= 0.95)
	}
	return nil
}

func median(rates []busyRate, of func(busyRate) float64) float64 {
	var all []float64
	for _, b := range rates {
		all = append(all, of(b))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

const (
	// Streams of so many notifications, so many at a time.
	streamItems, streamsAtOnce = 1000, 4
)

// busyRound puts jobs to the first app and waits until they are delivered.
func (r *appsRig) busyRound(ctx context.Context, d *daemon) (b busyRate, err error) {
	from := r.arrivals.begin()
	streams := r.streams(whose(0), r.p.busy)
	begun := time.Now()
	if err := putStreams(ctx, d, streams); err != nil {
		return b, err
	}
	b.put = float64(r.p.busy) / time.Since(begun).Seconds()
	last, err := r.arrivals.wait(ctx, overtime)
	if err != nil {
		return b, err
	}
	if count := r.arrivals.count(from); count != (tally{once: r.p.busy}) {
		return b, fmt.Errorf("of %d pushes came %v", r.p.busy, count)
	}
	b.push = float64(r.p.busy) / last.Sub(begun).Seconds()
	return b, nil
}

// streams are the bodies of requests that put n jobs.
func (r *appsRig) streams(whose string, n int) (all [][]byte) {
	for i := range n {
		if i%streamItems == 0 {
			all = append(all, nil)
		}
		_, fields := r.arrivals.job()
		last := &all[len(all)-1]
		*last = append(append(*last, notification(whose, fields)...), '\n')
	}
	return all
}

// putStreams sends the bodies, some at a time.
func putStreams(ctx context.Context, d *daemon, streams [][]byte) error {
	var puts sync.WaitGroup
	errs := make([]error, streamsAtOnce)
	for i := range errs {
		puts.Go(func() {
			for n := i; n < len(streams) && errs[i] == nil; n += streamsAtOnce {
				errs[i] = putStream(ctx, d, streams[n])
			}
		})
	}
	puts.Wait()
	return errors.Join(errs...)
}

// putStream sends one body, and looks for lines of the answer that are faults.
func putStream(ctx context.Context, d *daemon, body []byte) error {
	answer, err := d.must(ctx, http.MethodPost, "/v1/notifications", "application/x-ndjson", body)
	if err != nil {
		return err
	}
	if got, want := bytes.Count(answer, []byte(`"id"`)), bytes.Count(body, []byte("\n")); got != want {
		return fmt.Errorf("%d of %d notifications of a stream were accepted", got, want)
	}
	return nil
}
