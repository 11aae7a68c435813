package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"propeller/worker"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == simCommand {
		err = simMain(os.Args[2:], os.Stdin, os.Stdout)
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = command(ctx, os.Args[1:], os.Stdout)
		stop()
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// options are the flags; the environment gives their defaults.
type options struct {
	time  time.Duration // of faults
	drain time.Duration // for the queue to run empty afterwards
	seed  uint64
	rate  int // jobs a second, of all apps together
	queue string
	keep  bool
	race  bool
}

// drainTime is how long the queue may take to run empty. What takes longest is a
// push that the environment guard doubts in the last second of the faults: it
// comes again after worker.DoubtMin and 20 %. Twice that and more, for a busy machine.
const drainTime = 2*worker.DoubtMin + 2*time.Minute

func parseOptions(args []string, env func(string) string) (options, error) {
	o := options{time: time.Minute, seed: 1, queue: cmp.Or(env("CHAOS_QUEUE"), "beanstalk")}
	var err error
	if s := env("CHAOS_TIME"); s != "" {
		if o.time, err = time.ParseDuration(s); err != nil {
			return o, fmt.Errorf("CHAOS_TIME %q: want a duration, such as 30m", s)
		}
	}
	if s := env("CHAOS_SEED"); s != "" {
		if o.seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			return o, fmt.Errorf("CHAOS_SEED %q: want a whole number", s)
		}
	}
	fs := flag.NewFlagSet("chaos", flag.ContinueOnError)
	fs.DurationVar(&o.time, "time", o.time, "of faults; CHAOS_TIME")
	fs.Uint64Var(&o.seed, "seed", o.seed, "of the dice; CHAOS_SEED")
	fs.DurationVar(&o.drain, "drain", drainTime, "for the queue to run empty after the faults")
	fs.IntVar(&o.rate, "rate", 300, "jobs a second")
	fs.StringVar(&o.queue, "queue", o.queue, "kind of queue: "+engineNames+"; CHAOS_QUEUE")
	fs.BoolVar(&o.keep, "keep", false, "keep the folder, whatever comes out")
	fs.BoolVar(&o.race, "race", false, "build the daemon with the race detector")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("argument %q: want flags only", fs.Arg(0))
	case o.time < time.Second || o.time > 24*time.Hour:
		return o, fmt.Errorf("time %v: want 1s to 24h", o.time)
	case o.drain < time.Second || o.drain > time.Hour:
		return o, fmt.Errorf("-drain %v: want 1s to 1h", o.drain)
	case o.rate < 1 || o.rate > 10_000:
		return o, fmt.Errorf("-rate %d: want 1 to 10000", o.rate)
	}
	return o, nil
}

var (
	errFailed      = errors.New("failed")
	errInterrupted = errors.New("interrupted")
)

// command is the program.
func command(ctx context.Context, args []string, out io.Writer) error {
	o, err := parseOptions(args, os.Getenv)
	if err != nil {
		return err
	}
	at, err := newSite(ctx, o.race)
	if at != nil {
		defer at.close()
	}
	if err != nil {
		return keepOrRemove(at, false, err)
	}
	fmt.Fprintf(out, "chaos: %v with seed %d, in %s\n", o.time, o.seed, at.dir)
	r, err := newRun(at, o)
	if err == nil {
		err = r.do(ctx, out)
	}
	if ctx.Err() != nil {
		err = errInterrupted
	}
	return keepOrRemove(at, o.keep || err != nil && ctx.Err() == nil, err)
}

// keepOrRemove ends with the folder: a failure keeps it.
func keepOrRemove(at *site, keep bool, err error) error {
	switch {
	case at == nil:
		return err
	case keep && err != nil:
		return fmt.Errorf("%w; all files are in %s", err, at.dir)
	case keep:
		return nil
	}
	return errors.Join(err, os.RemoveAll(at.dir))
}

// newRNG makes the dice of one part: what one draws leaves the others alone.
func newRNG(seed, part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }
