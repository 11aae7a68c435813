// Package bench is the command bench, which measures the daemon's own tree in this process.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"propeller/config"
)

const benchLong = `bench measures propeller on this machine, from a queue to an APNs side. It puts
jobs on the queue, works them off with the daemon's own workers in this process,
and prints the rate, the processor time of a push, the memory, the time from put
to request, and what limited the rate.

The APNs side is a lean stand-in, a process of its own, so that its processor
time is told apart; --rtt is its distance. With --apns URL it is another server,
which must take any certificate, never Apple's.

Without --queue the queue is a beanstalkd started for the run and without a log
on disk, if beanstalkd is installed, else an embedded one in a temporary folder.
--queue embedded and --queue beanstalkd choose; a URL names a queue that exists.
There, too, bench uses only tubes of its own with names made up anew, and leaves
none behind.

  propeller bench --rtt 50ms --in-flight 1000
  propeller bench --fan-out 500 --queue embedded
  propeller bench --http --queue embedded`

// benchPlan is what is to be measured.
type benchPlan struct {
	queue, apns, caFile string

	jobs, workers, inFlight, fanOut, payload int

	rtt       time.Duration
	ackAtOnce bool
	rate      int           // of the paced part; 0: none
	time      time.Duration // its length

	profile, heap string // files for profiles; "": none

	usage func(error) error // marks an error of the command line

	json bool
	log  *slog.Logger
	say  func(format string, args ...any) // what it is about to do
}

const (
	// defaultPushes is how many pushes the default number of jobs makes: some
	// seconds' work, in which the start does not count.
	defaultPushes = 300_000
	// maxFanOut: so many tokens fit in beanstalkd's default limit of a job,
	// 65,535 bytes (beanstalkd(1), -z).
	maxFanOut = 900
	// defaultPayload is a short alert's size.
	defaultPayload = 113
)

// New is the command bench. usage marks an error as one of the command line.
func New(usage func(error) error) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "measure rate, latency and cost on this machine", Long: benchLong}
	f := cmd.Flags()
	p := benchPlan{usage: usage}
	f.StringVar(&p.queue, "queue", "", "`URL` of the queue, or beanstalkd or embedded for one of the run's own")
	f.StringVar(&p.apns, "apns", "sim", "APNs side: sim, or the `URL` of another server")
	f.StringVar(&p.caFile, "ca-file", "", ".pem `file` of the root that --apns URL is trusted by")
	f.IntVar(&p.jobs, "jobs", 0, "`number` of jobs; 0: as many as make 300,000 pushes")
	f.IntVar(&p.workers, "workers", 1, "`number` of workers, each with a connection to the APNs side")
	f.IntVar(&p.inFlight, "in-flight", 1000, "most pushes in flight per worker (`number`)")
	f.IntVar(&p.fanOut, "fan-out", 1, "device tokens per job (`number`)")
	f.IntVar(&p.payload, "payload", defaultPayload, "size of a push's payload in `bytes`")
	f.DurationVar(&p.rtt, "rtt", 0, "`time` from a request to its answer; its payload is acknowledged as late")
	f.BoolVar(&p.ackAtOnce, "ack-at-once", false, "acknowledge payload at once despite --rtt, so that the window is no limit")
	f.IntVar(&p.rate, "rate", 200, "jobs per second of the second part, which measures the time from put to request; 0: leave it out")
	f.DurationVar(&p.time, "time", 5*time.Second, "`time` that the second part takes, or the measurement of idle apps, or each of HTTP")
	f.StringVar(&p.profile, "cpuprofile", "", "write a profile of the first part, or of idle apps, to a `file`, for go tool pprof")
	f.StringVar(&p.heap, "memprofile", "", "the same for memory (`file`)")
	f.BoolVar(&p.json, "json", false, "print the figures as JSON")
	soak := f.Bool("soak", false, "work off a million jobs, mixed with refusals, and fail if memory, goroutines or files grow")
	overHTTP := f.Bool("http", false, "measure how fast notifications are taken by HTTP and put instead, with wrk for a client")
	idle := f.Int("idle", 0, "measure this `number` of apps with nothing to do instead")
	serve := f.Bool("stand-in", false, "be the stand-in") // for bench itself
	_ = f.MarkHidden("stand-in")                          // fails only for a flag there is not
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *serve {
			return serveStandIn(cmd.InOrStdin(), cmd.OutOrStdout())
		}
		p.log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		p.say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), "propeller: "+format+"\n", args...) }
		if err := p.check(*soak, *overHTTP, *idle); err != nil {
			return usage(err)
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		var print func(io.Writer) error
		var err error
		switch {
		case *soak:
			print, err = p.soak(ctx)
		case *overHTTP:
			print, err = p.http(ctx)
		case *idle > 0:
			print, err = p.idle(ctx, *idle)
		default:
			print, err = p.measure(ctx)
		}
		if print != nil {
			err = errors.Join(print(cmd.OutOrStdout()), err)
		}
		return err
	}
	return cmd
}

// check says what is wrong with the command line, and fills in what depends on it.
func (p *benchPlan) check(soak, overHTTP bool, idle int) error {
	for _, n := range []struct {
		flag              string
		value, least, max int
	}{
		{"jobs", p.jobs, 0, 100_000_000},
		{"workers", p.workers, 1, config.MaxWorkers},
		{"in-flight", p.inFlight, 1, config.MaxInFlight},
		{"fan-out", p.fanOut, 1, maxFanOut},
		{"payload", p.payload, leastPayload, 4096},
		{"rate", p.rate, 0, 100_000},
		{"idle", idle, 0, 10_000},
	} {
		if n.value < n.least || n.value > n.max {
			return fmt.Errorf("--%s %d: must be from %d to %d", n.flag, n.value, n.least, n.max)
		}
	}
	switch {
	case soak && idle > 0, soak && overHTTP, overHTTP && idle > 0:
		return errors.New("--soak, --idle and --http do not go together")
	case p.rtt < 0 || p.rtt > 10*time.Second:
		return fmt.Errorf("--rtt %v: must be from 0 to 10s", p.rtt)
	case p.time < 100*time.Millisecond || p.time > time.Hour:
		return fmt.Errorf("--time %v: must be from 100ms to 1h", p.time)
	case p.apns != simName && p.rtt > 0:
		return errors.New("--rtt is the stand-in's: --apns URL has its own")
	case p.apns == simName && p.caFile != "":
		return errors.New("--ca-file is for --apns URL")
	}
	if p.jobs == 0 {
		p.jobs = max(1, defaultPushes/p.fanOut)
		if soak {
			p.jobs = soakJobs
		}
	}
	return nil
}

// load is the plan in words.
func (p *benchPlan) load() string {
	return fmt.Sprintf("%s of %s, %s × %d in flight, payload of %d bytes",
		count(p.jobs, "job"), count(p.fanOut, "token"), count(p.workers, "worker"), p.inFlight, p.payload)
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%s %s", thousands(int64(n)), what)
}

// thousands writes n with a comma before each three digits.
func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// benchMachine is where it was measured.
func benchMachine() string {
	return fmt.Sprintf("%s %s/%s, %d cores", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
}
