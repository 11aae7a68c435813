package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == simCommand:
		err = simMain(os.Args[2:], os.Stdin, os.Stdout)
	case len(os.Args) > 1 && os.Args[1] == natsCommand:
		err = natsMain(os.Args[2:])
	default:
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
	seeds uint64 // how many, from seed on
	rate  int    // jobs a second, of all apps together
	apps  int    // how many; those beyond the usual ones mostly sleep
	queue string
	bin   string // the daemon to run; "" builds this tree's
	keep  bool
	race  bool
	judge string // the folder of an earlier run to judge again; "" if none
}

// drainTime is how long the queue may take to run empty, from the last fault or from when
// its last job is due. The slowest jobs are those that a killed daemon held in a NATS
// cluster (120 s), and a push that the environment guard doubts in the last second of the
// faults (72 s).
const drainTime = 150 * time.Second

func parseOptions(args []string, env func(string) string) (options, error) {
	o := options{time: time.Minute, seed: 1, seeds: 1, queue: cmp.Or(env("CHAOS_ENGINE"), "beanstalkd"), apps: len(apps())}
	var err error
	if s := env("CHAOS_TIME"); s != "" {
		if o.time, err = time.ParseDuration(s); err != nil {
			return o, fmt.Errorf("CHAOS_TIME %q: want a duration, such as 30m", s)
		}
	}
	if s := env("CHAOS_APPS"); s != "" {
		if o.apps, err = strconv.Atoi(s); err != nil {
			return o, fmt.Errorf("CHAOS_APPS %q: want a whole number", s)
		}
	}
	for name, n := range map[string]*uint64{"CHAOS_SEED": &o.seed, "CHAOS_SEEDS": &o.seeds} {
		if s := env(name); s != "" {
			if *n, err = strconv.ParseUint(s, 10, 64); err != nil {
				return o, fmt.Errorf("%s %q: want a whole number", name, s)
			}
		}
	}
	fs := flag.NewFlagSet("chaos", flag.ContinueOnError)
	fs.DurationVar(&o.time, "time", o.time, "of faults; CHAOS_TIME")
	fs.Uint64Var(&o.seed, "seed", o.seed, "of the dice; CHAOS_SEED")
	fs.Uint64Var(&o.seeds, "seeds", o.seeds, "how many seeds, starting with -seed; CHAOS_SEEDS")
	fs.DurationVar(&o.drain, "drain", drainTime, "for the queue to run empty after the faults")
	fs.IntVar(&o.rate, "rate", 100, "jobs a second")
	fs.IntVar(&o.apps, "apps", o.apps, "how many apps; those beyond the usual ones mostly sleep; CHAOS_APPS")
	fs.StringVar(&o.queue, "queue", o.queue, "kind of queue: "+strings.Join(engineNames(), ", ")+" or "+allEngines+"; CHAOS_ENGINE")
	fs.StringVar(&o.bin, "daemon", "", "binary of propeller to run, instead of building this tree's")
	fs.BoolVar(&o.keep, "keep", false, "keep the folder, whatever comes out")
	fs.BoolVar(&o.race, "race", false, "build the daemon with the race detector")
	fs.StringVar(&o.judge, "judge", "", "folder of an earlier run: judge it again instead of running")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("argument %q: want flags only", fs.Arg(0))
	case o.time < time.Second || o.time > 24*time.Hour:
		return o, fmt.Errorf("time %v: want 1s to 24h", o.time)
	case o.seeds < 1 || o.seeds > 1000:
		return o, fmt.Errorf("-seeds %d: want 1 to 1000", o.seeds)
	case o.queue != allEngines && !slices.Contains(engineNames(), o.queue):
		return o, fmt.Errorf("-queue %q: want %s or %s", o.queue, strings.Join(engineNames(), ", "), allEngines)
	case o.drain < time.Second || o.drain > time.Hour:
		return o, fmt.Errorf("-drain %v: want 1s to 1h", o.drain)
	case o.apps < len(apps()) || o.apps > mostApps:
		return o, fmt.Errorf("-apps %d: want %d to %d", o.apps, len(apps()), mostApps)
	case o.rate < 1 || o.rate > 10_000:
		return o, fmt.Errorf("-rate %d: want 1 to 10000", o.rate)
	}
	return o, nil
}

// mostApps bounds the apps: each has a certificate that every reload reads.
const mostApps = 5000

// allEngines is the value of -queue for all engines, one after the other.
const allEngines = "all"

func (o options) engines() []string {
	if o.queue == allEngines {
		return engineNames()
	}
	return []string{o.queue}
}

var (
	errFailed      = errors.New("failed")
	errInterrupted = errors.New("interrupted")
)

// newRNG makes the dice of one part: what one draws leaves the others alone.
func newRNG(seed, part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }
