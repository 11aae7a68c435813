package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"propeller/queue"
	"propeller/queue/queueurl"
)

// The two apps of the demonstration.
const (
	demoNews = "com.example.news"
	demoChat = "com.example.chat"
)

func newDemo() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "see it work: queue, APNs stand-in, two apps and traffic in one process",
		Long: `demo shows propeller at work, with nothing installed and nothing configured: the
daemon with a queue inside it, a stand-in for Apple's push service, two apps, a
trickle of pushes of which some are refused, and a server of yours that is told
about dead device tokens. All of it is in one temporary folder, which is removed
at the end, and takes no connection from other machines.`,
	}
	every := cmd.Flags().Duration("every", 700*time.Millisecond, "put a job each `duration`")
	length := cmd.Flags().Duration("for", 0, "end after this `duration` instead of by Ctrl-C")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case *every <= 0:
			return usageError{fmt.Errorf("--every %v: must be more than 0", *every)}
		case *length < 0:
			return usageError{fmt.Errorf("--for %v: is negative", *length)}
		}
		orders := make(chan os.Signal, 2)
		signal.Notify(orders, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(orders)
		out := cmd.OutOrStdout()
		d := &demo{screen: newScreen(out, colourful(out)), every: *every, orders: orders}
		if *length > 0 {
			d.end = time.After(*length)
		}
		return d.run()
	}
	return cmd
}

// demo is propeller demo: the daemon as it always is, with all that it needs
// around it.
type demo struct {
	screen *screen
	every  time.Duration
	orders <-chan os.Signal
	end    <-chan time.Time // nil: only by orders
	stage  *stage

	queue chan queue.Queue // cap 1: the daemon's, as soon as it is open
}

func (d *demo) run() (err error) {
	d.queue = make(chan queue.Queue, 1)
	if d.stage, err = newStage(d.screen); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.stage.close()) }()
	cfg, err := d.stage.load()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.screen.text(d.welcome())

	ctx, stop := context.WithCancel(context.Background())
	_, stops := makeSignals()
	ended := make(chan struct{})
	var background sync.WaitGroup
	background.Go(func() { d.traffic(ctx) })
	background.Go(func() { d.obey(stop, stops, ended) })
	err = d.daemon(stops).run(cfg)
	stop()
	close(ended)
	background.Wait()
	d.screen.text(d.farewell())
	return err
}

// daemon is the daemon of propeller run, but for where it logs to, and that its
// queue is also the traffic's.
func (d *demo) daemon(stops <-chan os.Signal) *daemon {
	log := slog.New(d.screen.handler())
	return &daemon{
		load: d.stage.load, level: new(slog.LevelVar), log: log, stops: stops, notify: takeNotifier(log),
		open: func(u queueurl.URL, _ *slog.Logger) (queue.Queue, error) {
			// The server inside has little to say to who sees a demonstration.
			q, err := openQueue(u, slog.New(slog.DiscardHandler))
			if err == nil {
				d.queue <- q
			}
			return q, err
		},
	}
}

// obey ends the traffic and then the daemon, when told to or when it is time.
// Being told again makes the daemon quit at once.
func (d *demo) obey(stopTraffic func(), stops chan<- os.Signal, ended <-chan struct{}) {
	for range 2 {
		var s os.Signal = syscall.SIGTERM
		select {
		case <-ended:
			return
		case s = <-d.orders:
		case <-d.end:
		}
		stopTraffic()
		stops <- s // has room for two
	}
}

// command is how this program is called.
func command() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/propeller"
	}
	return os.Args[0]
}

func (d *demo) welcome() string {
	run, file := command(), d.stage.file
	return fmt.Sprintf(`
  All in this process: the daemon with its queue, a stand-in for Apple, the apps
  %s and %s, and your server, which is told of dead
  tokens. What happens is below. Try in another terminal:

    %s send -c %s --topic %s --token %s --title Hello
    %s jobs list -c %s --topic %s

  A token that ends in fa170410 is dead, one in fa170503 finds Apple unwell.
  Ctrl-C ends it.

`, demoNews, demoChat, run, file, demoNews, demoToken(0, ""), run, file, demoChat)
}

func (d *demo) farewell() string {
	return fmt.Sprintf(`
  %s

  Next:
    %[2]s run      the daemon on propeller.yaml, which lists every setting
    %[2]s check    what is wrong with a configuration, if anything
    README.md: putting jobs from your program, your certificates

`, d.screen.summary(), command())
}
