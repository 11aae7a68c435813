package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// run is one run: three processes, the hands on them, the producers.
type run struct {
	at     *site
	o      options
	queue  *beanstalkd
	apns   *apns
	daemon *daemon
	ledger *ledger
	hands  []*hand
}

// maxJobs bounds the ledger's memory, about 64 bytes a job.
const maxJobs = 20_000_000

func newRun(at *site, o options) *run {
	r := &run{
		at: at, o: o, queue: &beanstalkd{at: at}, apns: &apns{at: at, rng: newRNG(o.seed, 1)},
		daemon: &daemon{at: at, now: usual()}, ledger: &ledger{limit: maxJobs},
	}
	r.hands = []*hand{
		handOnDaemon(r.daemon, newRNG(o.seed, 2)), handOnQueue(r.queue, newRNG(o.seed, 3)), handOnAPNs(r.apns, newRNG(o.seed, 4)),
	}
	return r
}

// do runs the chaos, lets the queue run empty, and judges.
func (r *run) do(ctx context.Context, out io.Writer) error {
	defer r.end()
	if err := errors.Join(r.queue.start(ctx), r.apns.start(ctx, "usual")); err != nil {
		return err
	}
	if err := r.daemon.start(ctx); err != nil {
		return err
	}
	if err := r.chaos(ctx); err != nil {
		return err
	}
	took, rest, err := r.calm(ctx)
	if err != nil {
		return err
	}
	for _, h := range r.hands {
		fmt.Fprintf(out, "%s\n", counts(h.done))
	}
	if rest == "" {
		fmt.Fprintf(out, "the queue ran empty %v after the faults\n", took.Round(100*time.Millisecond))
	}
	if err := r.daemon.alive(ctx); err != nil {
		return err
	}
	r.daemon.stop()
	return r.audit(out, rest)
}

// chaos lets the hands act and the producers put, for the time given.
func (r *run) chaos(ctx context.Context) error {
	faults, cancel := context.WithTimeout(ctx, r.o.time)
	defer cancel()
	var wg sync.WaitGroup
	failed := make([]error, len(r.hands))
	for i, h := range r.hands {
		wg.Go(func() {
			if failed[i] = h.run(ctx, faults); failed[i] != nil {
				cancel() // the others need not go on
			}
		})
	}
	n := len(apps())
	for i := range n {
		p := &producer{at: r.at, app: i, rng: newRNG(r.o.seed, 10+uint64(i)), ledger: r.ledger, every: time.Second * time.Duration(n) / time.Duration(r.o.rate)}
		wg.Go(func() { p.run(faults) })
	}
	wg.Wait()
	return errors.Join(append(failed, ctx.Err())...)
}

// calm ends the faults and waits until the queue is empty: rest says what is
// left of it when that takes too long.
func (r *run) calm(ctx context.Context) (took time.Duration, rest string, err error) {
	r.at.note("calm")
	if err := r.apns.tell(ctx, order{Do: "calm"}); err != nil {
		return 0, "", err
	}
	if err := r.daemon.alive(ctx); err != nil {
		return 0, "", err
	}
	if err := r.daemon.reload(r.daemon.now.complete(), "all apps"); err != nil {
		return 0, "", err
	}
	began := time.Now()
	for {
		n, text, err := left(r.at.queueAddr)
		switch {
		case ctx.Err() != nil:
			return 0, "", ctx.Err()
		case err == nil && n == 0:
			return time.Since(began), "", nil
		case time.Since(began) > r.o.drain:
			if err != nil {
				return 0, "", err
			}
			return time.Since(began), text, nil
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// audit prints the account and says whether the run has passed.
func (r *run) audit(out io.Writer, rest string) error {
	buried, err := takeBuried(r.at.queueAddr)
	if err != nil {
		return err
	}
	said, err := hear(r.at, r.ledger.jobs)
	if err != nil {
		return err
	}
	a := (&court{jobs: r.ledger.jobs, lives: r.daemon.lives, buried: buried, said: said}).judge()
	a.print(out)
	faults := append(a.faults(), r.daemon.faults...)
	if rest != "" {
		faults = append(faults, fmt.Sprintf("the queue did not run empty within %v:%s", r.o.drain, rest))
	}
	if len(faults) == 0 {
		fmt.Fprintln(out, "passed")
		return nil
	}
	fmt.Fprintln(out)
	for _, f := range faults {
		fmt.Fprintln(out, "FAULT", f)
	}
	a.stories(out, r.at)
	return errFailed
}

// end ends every process that still runs.
func (r *run) end() {
	if p := r.daemon.p; p != nil {
		p.kill()
	}
	if p := r.apns.p; p != nil {
		p.kill()
		r.apns.in.Close()
	}
	if p := r.queue.p; p != nil {
		p.kill()
	}
}
