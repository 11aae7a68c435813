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
	sleepers *sleepers // nil if there are none
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
	if o.apps > len(apps()) {
		r.sleepers = newSleepers(r)
		r.hands[0].leaveAlone(o.time)
	}
	return r, nil
}

// do runs the chaos, lets the queue run empty, and judges.
func (r *run) do(ctx context.Context, out io.Writer, res *result) error {
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
	end, err := r.course(ctx, out)
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
	return r.audit(ctx, out, end, res)
}

// course is the chaos and the calm after it.
func (r *run) course(ctx context.Context, out io.Writer) (*ending, error) {
	if err := r.chaos(ctx); err != nil {
		return nil, err
	}
	end, err := r.calm(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range r.hands {
		fmt.Fprintf(out, "%s\n", counts(h.done))
	}
	if r.sleepers != nil {
		fmt.Fprintln(out, r.sleepers)
	}
	if !end.late() {
		fmt.Fprintf(out, "the queue ran empty %v after the faults\n", end.took.Round(100*time.Millisecond))
	}
	return end, r.daemon.alive(ctx)
}

// undisturbed is how long the daemon's hand rests at the end of the faults: a restart or a
// reload would repair whatever the other hands brought to a stop.
const undisturbed = 20 * time.Second

// chaos runs the hands for the given time, and the producers until the hands have done their
// last fault.
func (r *run) chaos(ctx context.Context) error {
	faults, cancel := context.WithTimeout(ctx, r.o.time)
	defer cancel()
	traffic, stopTraffic := context.WithCancel(ctx)
	defer stopTraffic()
	var wg, putting sync.WaitGroup
	failed := make([]error, len(r.hands))
	rest, cancelRest := context.WithTimeout(faults, r.o.time-min(undisturbed, r.o.time/3))
	defer cancelRest()
	for i, h := range r.hands {
		wg.Go(func() {
			until := faults
			if i == 0 {
				until = rest
			}
			if failed[i] = h.run(ctx, until); failed[i] != nil {
				cancel() // the others need not go on
			}
		})
	}
	n := len(apps())
	every := time.Second * time.Duration(n) / time.Duration(r.o.rate)
	if r.sleepers != nil {
		every *= 2 // they get the other half
		putting.Go(func() { r.sleepers.run(traffic) })
		putting.Go(func() { r.sleepers.kick(traffic) })
	}
	for i := range n {
		p := &producer{engine: r.engine, app: i, rng: newRNG(r.o.seed, 10+uint64(i)), ledger: r.ledger, every: every}
		putting.Go(func() { p.run(traffic) })
	}
	putting.Go(func() { r.sequence.run(traffic) })
	wg.Wait()
	stopTraffic()
	putting.Wait()
	return errors.Join(append(failed, ctx.Err())...)
}

// audit prints the account and says whether the run has passed.
func (r *run) audit(ctx context.Context, out io.Writer, end *ending, res *result) error {
	buried, listed, waiting, err := r.exhume(ctx)
	if err != nil {
		return err
	}
	e := r.evidence(buried, listed, waiting)
	e.Ending, e.Others = end.faults(r.o.drain), slices.Concat(r.daemon.faults, r.reader.odd, r.receiver.refused)
	if err := e.save(r.at); err != nil {
		return err
	}
	a, err := e.judge(r.at, out)
	if a != nil {
		res.account, res.stalls, res.faults = a, len(end.stalls), a.all
	}
	return err
}

// putOff are the times when daemons died, if what they held comes later then.
func (r *run) putOff() (late []time.Time) {
	for _, l := range r.daemon.lives {
		if l.killed && r.engine.late() {
			late = append(late, l.ended)
		}
	}
	return append(late, r.engine.upset()...)
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
