package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"propeller/apnsconn"
	"propeller/config"
	"propeller/httpapi"
)

// The two apps of the demonstration.
const (
	demoNews = "com.example.news"
	demoChat = "com.example.chat"
)

// demoConfig is the configuration. Pauses are short, to be seen.
const demoConfig = `queue: embedded://./queue
http: {listen: "127.0.0.1:0"}
shutdown_timeout: 5s
defaults:
  server: mock
  push_timeout: 4s
  retry: {min: 2s, max: 2s, give_up_after: 5s}
apps:
  - {topic: ` + demoNews + `, workers: 2}
  - {topic: ` + demoChat + `}
`

// demoEnds are the last digits of the device tokens, in turn. They choose the stand-in's answer
// (apnstest.TokenCodes). Their number is odd, so that each app gets all of them.
var demoEnds = [...]string{"", "", "fa171150", "", "fa170410", "", "", "fa170503", "", "", "fa170429", "", "fa170413"}

func newDemo() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "see propeller work: queue, APNs stand-in, two apps and traffic in one process",
		Long: `demo shows propeller at work, with nothing installed and nothing configured: the
daemon with a queue inside it, a stand-in for Apple's push service, two apps, and
a trickle of pushes, some of which are refused. It logs as the daemon does, and
prints a summary once a second. All files are in one temporary folder, which is
removed at the end. It accepts no connections from other machines.`,
	}
	every := cmd.Flags().Duration("every", 700*time.Millisecond, "put a job every `duration`")
	length := cmd.Flags().Duration("for", 0, "stop after this `duration` instead of at Ctrl-C")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case *every <= 0:
			return usageError{fmt.Errorf("--every %v: must be more than 0", *every)}
		case *length < 0:
			return usageError{fmt.Errorf("--for %v: is negative", *length)}
		}
		dir, err := os.MkdirTemp("", "propeller-demo-")
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		d := &demo{dir: dir, file: filepath.Join(dir, defaultFile), every: *every, out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr()}
		return errors.Join(d.run(*length), os.RemoveAll(dir))
	}
	return cmd
}

// demo is propeller demo: the daemon as it always is, and somebody who puts jobs.
type demo struct {
	dir, file string
	state     string // the folder of the daemon's socket
	every     time.Duration
	out, errs io.Writer
	log       *slog.Logger
}

func (d *demo) run(length time.Duration) error {
	if err := os.WriteFile(d.file, []byte(demoConfig), 0o600); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	load := func() (*config.Config, error) { return config.Load(d.file, config.Options{}) }
	cfg, err := load()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.state = cfg.StateDir
	_, stops := makeSignals()
	signal.Notify(stops, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(stops)
	ctx, end := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	if length > 0 {
		defer time.AfterFunc(length, func() {
			end()
			select {
			case stops <- syscall.SIGTERM:
			default: // it was told to end
			}
		}).Stop()
	}
	level := new(slog.LevelVar)
	d.log = newLogger(d.errs, cfg.Log, level)
	var background sync.WaitGroup
	opened := func(web net.Addr) {
		page := "http://" + web.String() + "/"
		fmt.Fprint(d.out, d.welcome(page))
		background.Go(func() { d.put(ctx) })
		background.Go(func() { d.sumUp(ctx, page) })
	}
	err = (&daemon{load: load, level: level, log: d.log, stops: stops, notify: takeNotifier(d.log), opened: opened}).run(cfg)
	end()
	background.Wait()
	return err
}

// command is how this program is called.
func command() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/propeller"
	}
	return os.Args[0]
}

func (d *demo) welcome(page string) string {
	return fmt.Sprintf(`
  All in this process: the daemon with its queue, a stand-in for Apple, and the
  apps %s and %s. In a browser: %s
  Try in another terminal:

    %[4]s send -c %[5]s --topic %[1]s --token %[6]s --title Hello
    %[4]s jobs list -c %[5]s --topic %[2]s
    %[4]s status -c %[5]s

  A token that ends in fa170410 is dead; for one in fa170503 Apple is unavailable.
  Ctrl-C stops it. README.md says how to run propeller with your certificates.

`, demoNews, demoChat, page, command(), d.file, demoToken(0, ""))
}

// put puts a job from time to time until ctx ends, as a program of the user's would.
func (d *demo) put(ctx context.Context) {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for n := 1; ctx.Err() == nil; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		topic := demoNews
		if n%2 == 0 {
			topic = demoChat
		}
		switch err := d.putOne(ctx, topic, demoJob(n)); {
		case err == nil:
			n++
		case errors.Is(err, httpapi.ErrNoDaemon): // it is starting
		case ctx.Err() == nil:
			d.log.Warn("demo: cannot put a job", "topic", topic, "err", err)
		}
	}
}

func (d *demo) putOne(ctx context.Context, topic string, job []byte) error {
	c, err := httpapi.Dial(ctx, d.state, topic)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Put(ctx, job, 0)
	return err
}

// sumUp logs a line a second: how many pushes have ended, by class.
func (d *demo) sumUp(ctx context.Context, page string) {
	c := httpapi.ForState(d.state)
	defer c.Close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		all, err := c.Apps(ctx)
		if err != nil {
			continue // it starts or ends, which its log tells
		}
		ended := make(map[string]int64)
		for _, a := range all.Apps {
			for class, n := range a.Pushes.Ended {
				ended[class] += n
			}
		}
		attrs := []any{"page", page}
		for class := apnsconn.Delivered; class <= apnsconn.Unknown; class++ {
			if n := ended[class.String()]; n > 0 || class == apnsconn.Delivered {
				attrs = append(attrs, class.String(), n)
			}
		}
		d.log.Info("demo", attrs...)
	}
}

// demoJob is the nth job, as JSON.
func demoJob(n int) []byte {
	job, err := json.Marshal(map[string]string{"token": demoToken(n, demoEnds[n%len(demoEnds)]), "title": "Hello", "body": fmt.Sprintf("This is push %d.", n)})
	if err != nil { // of strings: cannot be
		panic(err)
	}
	return job
}

// demoToken is the nth device token, with an end that the stand-in knows.
func demoToken(n int, end string) string {
	const digits = 64
	token := strings.Repeat(fmt.Sprintf("%08x", uint32(n+1)*2654435761), digits/8) // spread, so that 8 characters tell them apart
	return token[:digits-len(end)] + end
}
