package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"propeller/config"
	"propeller/internal/bench"
)

const benchLong = `bench measures propeller on this machine. It puts jobs on a queue, sends them with
the daemon's own workers in this process, and prints the rate, the CPU time per
push, the memory (on Linux), what limited the rate, and the time from put to request.

Pushes go to a lean stand-in for APNs, in a process of its own, so that its CPU
time is counted separately; --rtt sets its distance.

The default queue is an embedded one in a temporary folder. A --queue URL may be
in use: bench has a tube of its own there and removes what it has put.

  propeller bench --rtt 50ms --workers 4
  propeller bench --queue beanstalk://127.0.0.1:11300 --fan-out 500`

// benchPushes is how many pushes the default number of jobs makes: some seconds'
// work, in which the start does not count.
const benchPushes = 300_000

func newBench() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "measure rate, latency and cost on this machine", Long: benchLong}
	f := cmd.Flags()
	var p bench.Plan
	queue := f.String("queue", "embedded", "`URL` of the queue; embedded: a temporary one")
	f.IntVar(&p.Jobs, "jobs", 0, "`number` of jobs; 0: as many as make 300,000 pushes")
	f.IntVar(&p.Workers, "workers", 1, "`number` of workers, each with a connection to the stand-in")
	f.IntVar(&p.InFlight, "in-flight", 1000, "most pushes in flight per worker (`number`)")
	f.IntVar(&p.FanOut, "fan-out", 1, "device tokens per job (`number`)")
	f.IntVar(&p.Payload, "payload", 113, "size of a push's payload in `bytes`")
	f.DurationVar(&p.RTT, "rtt", 0, "`time` until a request is answered and its payload acknowledged")
	f.BoolVar(&p.AckAtOnce, "ack-at-once", false, "acknowledge payload at once despite --rtt, so that the window is no limit")
	f.IntVar(&p.Rate, "rate", 200, "jobs a second (`number`) of the second part, 1,000 jobs that measure the time from put to request; 0: leave it out")
	asJSON := f.Bool("json", false, "print the figures as JSON")
	standIn := f.Bool("stand-in", false, "be the stand-in") // for bench itself
	_ = f.MarkHidden("stand-in")                            // fails only for a flag there is not
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *standIn {
			return p.ServeStandIn(cmd.InOrStdin(), cmd.OutOrStdout())
		}
		if err := checkBench(&p); err != nil {
			return usageError{err}
		}
		p.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		p.Say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), "propeller: "+format+"\n", args...) }
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		figures, err := runBench(ctx, &p, *queue)
		switch {
		case err != nil:
			return err
		case *asJSON:
			return printJSON(cmd.OutOrStdout(), figures)
		}
		return figures.Print(cmd.OutOrStdout())
	}
	return cmd
}

// checkBench says what is wrong with the command line, and fills in what depends on it.
func checkBench(p *bench.Plan) error {
	for _, n := range []struct {
		flag              string
		value, least, max int
	}{
		{"jobs", p.Jobs, 0, 100_000_000},
		{"workers", p.Workers, 1, config.Max("workers")},
		{"in-flight", p.InFlight, 1, config.Max("in_flight")},
		{"fan-out", p.FanOut, 1, bench.MaxFanOut},
		{"payload", p.Payload, bench.LeastPayload, 4096},
		{"rate", p.Rate, 0, 100_000},
	} {
		if n.value < n.least || n.value > n.max {
			return fmt.Errorf("--%s %d: must be from %d to %d", n.flag, n.value, n.least, n.max)
		}
	}
	if p.RTT < 0 || p.RTT > 10*time.Second {
		return fmt.Errorf("--rtt %v: must be from 0 to 10s", p.RTT)
	}
	if p.Jobs == 0 {
		p.Jobs = max(1, benchPushes/p.FanOut)
	}
	return nil
}

func runBench(ctx context.Context, p *bench.Plan, name string) (f *bench.Figures, err error) {
	if p.Temporary = name == "embedded"; p.Temporary {
		dir, err := os.MkdirTemp("", "propeller-bench-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		name = "embedded://" + dir + "/queue"
	}
	u, err := config.ParseQueue(name, config.Options{})
	if err != nil {
		return nil, err
	}
	q, err := openQueue(u, p.Log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	p.Queue = u.String()
	if p.Temporary {
		p.Queue = "embedded, in a temporary folder, written through to disk once a second"
	}
	return bench.Run(ctx, p, q.(bench.Engine)) // every adapter's is one
}
