// Command rigs measures what `propeller bench` does not: many jobs for a long time, apps
// without jobs, and notifications by HTTP. These run the daemon's own parts in this process:
//
//	go run ./test/rigs soak    a million jobs; fails if memory, goroutines or files grow
//	go run ./test/rigs idle    a thousand apps with nothing to do
//	go run ./test/rigs http    how fast notifications are taken; needs wrk
//
// These run the built daemon as a process of its own, on a queue of its own:
//
//	go run ./test/rigs apps    ten thousand apps, of which most sleep
//	go run ./test/rigs lanes   an urgent lane beside a bulk lane of the same topic
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"propeller/config"
	"propeller/internal/bench"
	"propeller/queue/beanstalk"
	"propeller/queue/jetstream"
	"propeller/queue/jetstream/jetstreamtest"
	"propeller/queue/queueurl"
)

// settings are the command line.
type settings struct {
	queue      string
	jobs, apps int
	time       time.Duration
	cpuProfile string
	daemon     string // binary of propeller

	log *slog.Logger
	say func(format string, args ...any) // what it is about to do
}

// payload is the size of a push's, a short alert.
const payload = 113

func main() {
	if jetstreamtest.Main() { // one of the servers that a rig starts
		return
	}
	s := settings{
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		say: func(format string, args ...any) { fmt.Fprintf(os.Stderr, "rigs: "+format+"\n", args...) },
	}
	flag.StringVar(&s.queue, "queue", "embedded", "embedded, or the `URL` of a beanstalkd; for apps and lanes: embedded, beanstalkd or nats")
	flag.IntVar(&s.jobs, "jobs", 1_000_000, "`number` of jobs of soak")
	flag.IntVar(&s.apps, "apps", 0, "`number` of apps: 1,000 of idle and 10,000 of apps by default")
	flag.DurationVar(&s.time, "time", 5*time.Second, "`time` of the measurement of idle, and of each of http; apps takes twice as long")
	flag.StringVar(&s.daemon, "daemon", "", "`binary` of propeller for apps and lanes, instead of building this tree's")
	flag.StringVar(&s.cpuProfile, "cpuprofile", "", "write a profile to a `file`, for go tool pprof")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "rigs soak|idle|http|apps|lanes [flags]")
		flag.PrintDefaults()
	}
	name, err := parseArgs(flag.CommandLine, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "rigs:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := s.run(ctx, name); err != nil {
		fmt.Fprintln(os.Stderr, "rigs:", err)
		os.Exit(1)
	}
}

// parseArgs reads the flags before and after the rig's name.
func parseArgs(flags *flag.FlagSet, args []string) (name string, err error) {
	if err := flags.Parse(args); err != nil || flags.NArg() == 0 {
		return "", err
	}
	name = flags.Arg(0)
	if err := flags.Parse(flags.Args()[1:]); err != nil {
		return "", err
	}
	if flags.NArg() > 0 {
		return "", fmt.Errorf("%q: one rig at a time", flags.Arg(0))
	}
	return name, nil
}

// run runs one rig and prints its rows, also when it has failed by them.
func (s *settings) run(ctx context.Context, name string) (err error) {
	rig, ok := map[string]func(context.Context) ([][2]string, error){
		"soak": s.onQueue(s.soak), "idle": s.onQueue(s.idle), "http": s.onQueue(s.http), "apps": s.manyApps, "lanes": s.lanes,
	}[name]
	if !ok {
		return fmt.Errorf("%q: must be soak, idle, http, apps or lanes", name)
	}
	stopProfile, err := s.startProfile()
	if err != nil {
		return err
	}
	rows, err := rig(ctx)
	rows = append([][2]string{{"machine", bench.Machine()}, {"queue", s.queue}}, rows...)
	return errors.Join(err, stopProfile(), bench.PrintRows(os.Stdout, rows))
}

// onQueue is a rig with a queue that this process opens.
func (s *settings) onQueue(rig func(context.Context, bench.Engine) ([][2]string, error)) func(context.Context) ([][2]string, error) {
	return func(ctx context.Context) (rows [][2]string, err error) {
		q, closeQueue, err := s.openQueue()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, closeQueue()) }()
		return rig(ctx, q)
	}
}

// openQueue starts an embedded queue in a temporary folder, or reaches a beanstalkd.
func (s *settings) openQueue() (bench.Engine, func() error, error) {
	if s.queue != "embedded" {
		u, err := config.ParseQueue(s.queue, config.Options{})
		if err != nil {
			return nil, nil, err
		}
		q, err := beanstalk.Open(beanstalk.Options{Addrs: u.Servers, Log: s.log})
		if err != nil {
			return nil, nil, err
		}
		return q.(bench.Engine), q.Close, nil // each adapter's is one
	}
	dir, err := os.MkdirTemp("", "propeller-rigs-")
	if err != nil {
		return nil, nil, err
	}
	q, err := jetstream.Open(jetstream.Options{URL: queueurl.URL{Scheme: "embedded", Dir: filepath.Join(dir, "queue")}, Log: s.log})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return q.(bench.Engine), func() error { return errors.Join(q.Close(), os.RemoveAll(dir)) }, nil
}

// newRig is a rig on the run's queue.
func (s *settings) newRig(q bench.Engine, o bench.Setup) (*bench.Rig, error) {
	o.Payload, o.Temporary, o.Log = payload, s.queue == "embedded", s.log
	return bench.NewRig(q, o)
}

// memory is what this process has resident, and how many files it has open.
func memory() (mib float64, files int, err error) {
	self, err := procfs.Self()
	if err != nil {
		return 0, 0, err
	}
	status, err := self.NewStatus()
	if err != nil {
		return 0, 0, err
	}
	files, err = self.FileDescriptorsLen()
	return float64(status.VmRSS) / (1 << 20), files, err
}

func (s *settings) startProfile() (stop func() error, err error) {
	if s.cpuProfile == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(s.cpuProfile)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return file.Close()
	}, nil
}
