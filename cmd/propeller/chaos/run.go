package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// run is one run: the processes, the hands on them, the producers, the readers.
type run struct {
	at       *site
	o        options
	engine   engine
	apns     *apns
	daemon   *daemon
	ledger   *ledger
	book     *book
	reader   *reader
	receiver *receiver
	sequence *sequencer
	hands    []*hand
}

func newRun(at *site, o options) (*run, error) {
	e, err := newEngine(o.queue, at)
	if err != nil {
		return nil, err
	}
	at.queueURL = e.url()
	b, err := newBook(at.path(bookName))
	if err != nil {
		return nil, err
	}
	r := &run{
		at: at, o: o, engine: e, ledger: new(ledger), book: b,
		apns:     &apns{at: at, rng: newRNG(o.seed, 1)},
		daemon:   &daemon{at: at, now: usual()},
		reader:   &reader{engine: e, book: b},
		receiver: newReceiver(at, b, newRNG(o.seed, 5)),
		sequence: &sequencer{engine: e, rng: newRNG(o.seed, 6), app: slices.IndexFunc(apps(), func(a app) bool { return a.webhook })},
	}
	r.hands = []*hand{handOnDaemon(r.daemon, newRNG(o.seed, 2)), handOnAPNs(r.apns, newRNG(o.seed, 4)), r.receiver.hand(newRNG(o.seed, 7))}
	if h := e.hand(newRNG(o.seed, 3)); h != nil {
		r.hands = append(r.hands, h)
	}
	return r, nil
}

// do runs the chaos, lets the queue run empty, and judges.
func (r *run) do(ctx context.Context, out io.Writer) error {
	defer r.end()
	if err := errors.Join(r.engine.start(ctx), r.apns.start(ctx, "usual"), r.receiver.listen()); err != nil {
		return err
	}
	if err := r.daemon.start(ctx); err != nil {
		return err
	}
	reading, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	var readErr error
	readers.Go(func() { readErr = r.reader.run(reading) })
	rest, err := r.course(ctx, out)
	stop()
	readers.Wait()
	if err := errors.Join(err, readErr); err != nil {
		return err
	}
	r.daemon.stop()
	r.engine.orphan()
	r.receiver.leave()
	if err := r.book.close(); err != nil {
		return err
	}
	return r.audit(ctx, out, rest)
}

// course is the chaos and the calm after it. rest is what the queue was left
// with.
func (r *run) course(ctx context.Context, out io.Writer) (rest string, err error) {
	if err := r.chaos(ctx); err != nil {
		return "", err
	}
	took, rest, err := r.calm(ctx)
	if err != nil {
		return "", err
	}
	for _, h := range r.hands {
		fmt.Fprintf(out, "%s\n", counts(h.done))
	}
	if rest == "" {
		fmt.Fprintf(out, "the queue ran empty %v after the faults\n", took.Round(100*time.Millisecond))
	}
	return rest, r.daemon.alive(ctx)
}

// chaos lets the hands act and the producers put, for the time given.
func (r *run) chaos(ctx context.Context) error {
	faults, cancel := context.WithTimeout(ctx, r.o.time)
	defer cancel()
	r.daemon.corruptFrom = time.Now().Add(r.o.time / 2)
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
		p := &producer{engine: r.engine, app: i, rng: newRNG(r.o.seed, 10+uint64(i)), ledger: r.ledger, every: time.Second * time.Duration(n) / time.Duration(r.o.rate)}
		wg.Go(func() { p.run(faults) })
	}
	wg.Go(func() { r.sequence.run(faults) })
	wg.Wait()
	return errors.Join(append(failed, ctx.Err())...)
}

// calm ends the faults and waits until the queue is empty: rest says what is
// left of it when that takes too long.
func (r *run) calm(ctx context.Context) (took time.Duration, rest string, err error) {
	r.at.note("calm")
	r.receiver.soothe()
	if err := r.apns.tell(ctx, order{Do: "calm"}); err != nil {
		return 0, "", err
	}
	if err := r.daemon.alive(ctx); err != nil {
		return 0, "", err
	}
	if err := r.daemon.mauled(ctx, newRNG(r.o.seed, 8)); err != nil {
		return 0, "", err
	}
	if _, yes := r.daemon.isMisled(); yes {
		if err := r.daemon.right(); err != nil {
			return 0, "", err
		}
	}
	if err := r.daemon.reload(r.daemon.now.complete(), "all apps"); err != nil {
		return 0, "", err
	}
	beacons := r.beacons()
	defer func() {
		for _, b := range beacons {
			b.drop()
		}
	}()
	began := time.Now()
	var lit time.Time
	var n int
	var text string
	for {
		if time.Since(lit) > beaconEvery {
			for _, b := range beacons {
				b.beacon(ctx)
			}
			lit = time.Now()
			r.at.note("left:%s", text)
		}
		n, text, err = left(r.engine, tubes())
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

// beaconEvery is the pause between two jobs of an app in the calm. They answer
// what the environment guard waits for: whether the environment is right.
const beaconEvery = 2 * time.Second

// beacons are producers of good jobs, one an app.
func (r *run) beacons() []*producer {
	var out []*producer
	for i := range apps() {
		out = append(out, &producer{engine: r.engine, app: i, rng: newRNG(r.o.seed, 20+uint64(i)), ledger: r.ledger})
	}
	return out
}

// audit prints the account and says whether the run has passed.
func (r *run) audit(ctx context.Context, out io.Writer, rest string) error {
	buried, listed, err := r.exhume(ctx)
	if err != nil {
		return err
	}
	said, err := hear(r.at, r.ledger, r.sequence.stored, r.putOff())
	if err != nil {
		return err
	}
	c := &court{
		ledger: r.ledger, lives: r.daemon.lives, troubles: r.at.troubles, misled: r.daemon.misled, corrupted: r.daemon.corrupted,
		buried: buried, listed: listed, junk: r.sequence.junk, said: said,
	}
	a := c.judge()
	a.print(out)
	faults := slices.Concat(a.faults(), r.daemon.faults, r.reader.odd, r.receiver.refused)
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

// putOff are the times when daemons died, if what they held comes later then.
func (r *run) putOff() (late []time.Time) {
	for _, l := range r.daemon.lives {
		if l.killed && r.engine.late() {
			late = append(late, l.ended)
		}
	}
	return late
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
	r.engine.kill()
	r.receiver.leave()
	_ = r.book.close() // the audit has heard of errors
}
