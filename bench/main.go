package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// senderCommand is the first argument of a sender's process; the second is its
// job in JSON.
const senderCommand = "sender"

func main() {
	if len(os.Args) > 1 && os.Args[1] == senderCommand {
		os.Exit(senderMain(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop() // os.Exit runs no deferred calls
		os.Exit(1)
	}
}

// command is the program, as tests call it too. Its error never is about speed:
// only a measurement that could not be made is one.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit(), fmt.Errorf("not done within %v", o.limit()))
	defer cancel()
	if err := checkTools(); err != nil {
		return err
	}
	b, err := newBench(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	report, err := b.run(ctx)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	if o.markdown {
		return report.writeMarkdown(stdout)
	}
	return report.writeText(stdout)
}

// options are the flags.
type options struct {
	rounds   int
	duration time.Duration // of one measurement of the rate
	warm     time.Duration // before it
	streams  []int         // beside 1
	markdown bool
}

func parseFlags(args []string, stderr io.Writer) (options, error) {
	o := options{streams: []int{100, 900}}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.rounds, "rounds", 5, "how often each sender has its turn; the table shows medians")
	fs.DurationVar(&o.duration, "duration", 700*time.Millisecond, "of one turn, after the warm-up")
	fs.DurationVar(&o.warm, "warm", 250*time.Millisecond, "of a sender, before it is measured")
	fs.Func("streams", "pushes in flight, several separated by commas (default 100,900)", func(s string) (err error) {
		o.streams, err = parseStreams(s)
		return err
	})
	fs.BoolVar(&o.markdown, "md", false, "print Markdown, for docs/benchmarks.md")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("argument %q: want flags only", fs.Arg(0))
	case o.rounds < 1 || o.rounds > 100:
		return o, fmt.Errorf("-rounds %d: want 1 to 100", o.rounds)
	case o.duration < 10*time.Millisecond || o.duration > time.Minute:
		return o, fmt.Errorf("-duration %v: want 10ms to 1m", o.duration)
	case o.warm < 0 || o.warm > time.Minute:
		return o, fmt.Errorf("-warm %v: want 0s to 1m", o.warm)
	}
	return o, nil
}

// limit is when a run has failed: several times what it should take, and some for
// starting.
func (o options) limit() time.Duration {
	turns := time.Duration(o.rounds * len(plan(o.streams)))
	return 5*time.Minute + 4*turns*(o.duration+o.warm+time.Second)
}
