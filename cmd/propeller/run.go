package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"propeller/config"
	"propeller/httpapi"
	"propeller/queue"
	"propeller/queue/queueurl"
	"propeller/supervisor"
	"propeller/worker"
)

const runLong = `run starts the daemon. It sends the jobs of the apps in the configuration file
until SIGTERM or SIGINT, then finishes the pushes in flight within
shutdown_timeout. A second signal quits at once. SIGHUP reloads the file and its
certificates. An app with a certificate or key that cannot be used is broken
until its file is replaced; with --strict such a fault refuses the start or the
reload, as other faults do. The daemon reports its state to systemd, and reaps
orphaned processes as process 1 of a container.

With --topic it runs one app from flags, without a file.`

func newRun() *cobra.Command {
	cmd := &cobra.Command{Short: "run the daemon", Long: runLong}
	source := configFlags(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		load, err := source()
		if err != nil {
			return err
		}
		hups, stops := makeSignals()
		signal.Notify(hups, syscall.SIGHUP)
		signal.Notify(stops, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(hups)
		defer signal.Stop(stops)
		// The reader of the log may exit, since Ctrl-C ends both; the drain goes on.
		signal.Ignore(syscall.SIGPIPE)
		cfg, err := loadUnless(stops, load)
		if err != nil || cfg == nil {
			return err
		}
		level := new(slog.LevelVar)
		log := newLogger(cmd.ErrOrStderr(), cfg.Log, level)
		d := &daemon{load: load, level: level, log: log, hups: hups, stops: stops, notify: takeNotifier(log)}
		return d.run(cfg)
	}
	return cmd
}

// loadUnless loads the configuration. If the process is told to stop meanwhile, it returns
// neither configuration nor error: a disk that does not answer, or much to decrypt, must
// not delay the exit.
func loadUnless(stops <-chan os.Signal, load func() (*config.Config, error)) (cfg *config.Config, err error) {
	var loaded *config.Config
	var fault error
	if endsBefore(stops, func() { loaded, fault = load() }) {
		return loaded, fault
	}
	return nil, nil
}

// endsBefore runs f, which reads files, and reports whether it ended before something came
// from stop. If not, f is left behind: the process exits, and f with it.
func endsBefore[T any](stop <-chan T, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-stop:
		return false
	}
}

// makeSignals makes a channel of its own for each order, since a signal that
// finds its channel full is lost: of SIGHUPs one may wait, which reads the newest
// file; of those that end the daemon both that count.
func makeSignals() (hups, stops chan os.Signal) {
	return make(chan os.Signal, 1), make(chan os.Signal, 2)
}

// daemon is propeller run.
type daemon struct {
	load   func() (*config.Config, error)
	level  *slog.LevelVar
	log    *slog.Logger
	hups   <-chan os.Signal // SIGHUP; nil: no reloads
	stops  <-chan os.Signal // SIGTERM, SIGINT
	notify *notifier
	opened func(web net.Addr) // called with the address of http; may be nil
	state  *state
	web    *web
	asks   chan chan error // for reloads by HTTP, each answered with how it went; nil: none

	statuses chan string      // to the main loop
	pings    chan string      // cap 1: from there to the service manager
	stopping chan stopMessage // cap 1
	limit    time.Time        // when the process ends though something is stuck; zero before its end

	unused atomic.Bool // metrics.unused_apps

	mu      sync.Mutex
	drain   time.Duration          // shutdown_timeout
	refused *httpapi.RefusedReload // the last reload; nil if it was not
	taken   time.Time              // when a configuration was last taken over
}

// tree is what the daemon needs of *supervisor.Supervisor.
type tree interface {
	Serve(ctx context.Context) error
	Started() <-chan struct{}
	Apply(cfg *config.Config) error
	Renew()
	Status() []supervisor.AppStatus
}

// overrun is how long after shutdown_timeout the process ends no matter what:
// the workers' own time to part from the queue, and some more.
const overrun = 10 * time.Second

// lastWait is for what is not stuck, when something before it was.
const lastWait = time.Second

var errQuit = errors.New("second signal: quit without finishing; unfinished jobs stay in the queue")

func (d *daemon) run(cfg *config.Config) error {
	var err error
	d.taken = time.Now()
	if d.state, err = openState(cfg, d.log); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reaper sync.WaitGroup
	defer d.leave(cancel, &reaper)
	for _, warning := range cfg.Warnings {
		d.log.Warn(warning)
	}
	if d.web, err = openWeb(cfg.HTTP, d.log); err != nil {
		return err
	}
	if d.opened != nil {
		d.opened(d.web.server.Addr())
	}
	outcomes, forgotten := new(httpapi.Outcomes), new(atomic.Int64)
	sup, err := supervisor.New(cfg, supervisor.Options{
		Log:       d.log,
		OpenQueue: func(u queueurl.URL) (queue.Queue, error) { return openQueue(u, d.log) },
		Sinks:     []worker.Sink{outcomes},
	})
	if err != nil {
		return err
	}
	d.asks = make(chan chan error)
	metrics := httpapi.NewMetrics(sup, httpapi.MetricsOptions{Version: buildVersion(), Reloads: d.lastReload, Forgotten: forgotten, UnusedApps: d.unused.Load})
	api := httpapi.New(sup, httpapi.Options{
		Log: d.log, Metrics: metrics, Forgotten: forgotten, Reload: d.askReload, Reloads: d.lastReload, Outcomes: outcomes,
	})
	if server := d.web.serve(api); server != nil {
		sup.Attach(server)
	}
	if server := d.state.serve(api); server != nil {
		sup.Attach(server)
	}
	d.log.Info("propeller started", "version", buildVersion(), "config", cfg.File, "apps", len(cfg.Apps), "queue", cfg.Queue, "pid", os.Getpid())
	if inheritsOrphans() {
		reaper.Go(func() { reap(ctx, d.log) })
	}
	return d.serve(cfg, sup)
}

// serve runs the tree until a signal ends it. A tree that ends by itself is an error: the
// apps would stay unserved and nobody would know.
func (d *daemon) serve(cfg *config.Config, t tree) error {
	d.statuses, d.pings, d.stopping = make(chan string), make(chan string, 1), make(chan stopMessage, 1)
	d.drain = cfg.ShutdownTimeout
	d.unused.Store(cfg.Metrics.UnusedApps)
	ctx, stop := context.WithCancel(context.Background())
	alive, end := context.WithCancel(context.Background()) // pings go on while the tree drains
	var background sync.WaitGroup
	background.Go(func() { d.reload(ctx, t) })
	background.Go(func() { d.renew(ctx, t) })
	background.Go(func() { d.watchdogPing(alive, t) })
	background.Go(func() { d.tell(alive) })
	ended := make(chan error, 1)
	background.Go(func() { ended <- t.Serve(ctx) })
	err := d.wait(stop, ended)
	stop()
	end()
	d.within("a goroutine", background.Wait)
	return err
}

// leave closes what outlives the tree.
func (d *daemon) leave(endReaper func(), reaper *sync.WaitGroup) {
	d.within("the reaper, or state_dir", func() {
		endReaper()
		reaper.Wait()
		d.web.close()
		d.state.close()
	})
}

// within waits for f, but not for ever: it may be stuck in a file system that
// does not answer, or on a lock. All such waits during the exit share one limit.
func (d *daemon) within(what string, f func()) {
	if d.limit.IsZero() {
		d.limit = time.Now().Add(overrun)
	}
	if !endsBefore(time.After(max(time.Until(d.limit), lastWait)), f) {
		d.log.Error("stuck; exiting without waiting for it", "what", what)
	}
}

// wait turns signals into actions until the tree has ended.
func (d *daemon) wait(stop context.CancelFunc, ended <-chan error) error {
	var late <-chan time.Time
	for {
		select {
		case sig := <-d.stops:
			if late != nil {
				d.log.Error(errQuit.Error())
				os.Exit(exitFailed)
			}
			d.mu.Lock()
			drain := d.drain
			d.mu.Unlock()
			d.log.Info("stopping", "signal", sig.String(), "within", drain.String())
			late = time.After(drain + overrun)
			stop()
			// The manager's limit is above the daemon's own, which says what is late.
			d.stopping <- stopMessage{drain + 2*overrun, "finishing what is in flight"} // the only one
		case status := <-d.statuses:
			select {
			case d.pings <- status:
			default: // the one before is not sent yet
			}
		case <-late:
			d.log.Error("not stopped in time; unfinished jobs stay in the queue")
			os.Exit(exitFailed)
		case err := <-ended:
			return d.end(err, late != nil)
		}
	}
}

// end is the daemon's result once the tree has ended with err.
func (d *daemon) end(err error, told bool) error {
	switch {
	case err != nil && told:
		err = fmt.Errorf("the supervision tree ended: %w", err)
	case err != nil:
		err = fmt.Errorf("the supervision tree gave up: %w", err)
	case !told:
		err = errors.New("the supervision tree gave up")
	default:
		d.log.Info("stopped")
		return nil
	}
	d.log.Error("exiting; unfinished jobs stay in the queue", "err", err)
	d.notify.stop(overrun, err.Error())
	return err
}

// renewEvery is how often the files of credentials that cannot be used are looked at.
const renewEvery = 5 * time.Second

// reload tells the service manager when the tree runs, and applies the configuration
// again at each SIGHUP.
func (d *daemon) reload(ctx context.Context, t tree) {
	select {
	case <-t.Started():
	case <-ctx.Done():
		return
	}
	d.notify.ready(d.status(t))
	debug.FreeOSMemory() // reading a long file takes many times what stays
	for {
		answer := make(chan error, 1) // which nobody reads after a signal
		select {
		case <-ctx.Done():
			return
		case <-d.hups:
		case answer = <-d.asks:
		}
		d.notify.reloading()
		var cfg *config.Config
		var err error
		if !endsBefore(ctx.Done(), func() { cfg, err = d.load() }) {
			return
		}
		if err == nil {
			err = t.Apply(cfg)
		}
		if ctx.Err() != nil {
			return
		}
		d.reloaded(cfg, err)
		answer <- err
		d.notify.ready(d.status(t))
		debug.FreeOSMemory()
	}
}

// renew checks from time to time whether apps without a usable credential can get one.
// A slow file does not delay a reload.
func (d *daemon) renew(ctx context.Context, t tree) {
	select {
	case <-t.Started():
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !endsBefore(ctx.Done(), t.Renew) {
				return
			}
		}
	}
}

// askReload has the configuration applied again and waits for the result, or for ctx.
func (d *daemon) askReload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case d.asks <- answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reloadRefused is the message wherever a refused reload shows.
const reloadRefused = "reload refused, nothing is changed"

// reloaded adopts what the daemon itself uses of a configuration that was applied, or
// logs why it was refused.
func (d *daemon) reloaded(cfg *config.Config, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.refused, d.taken = nil, time.Now()
		d.drain = cfg.ShutdownTimeout
		d.unused.Store(cfg.Metrics.UnusedApps)
		d.level.Set(cfg.Log.Level)
		d.state.moved(cfg.StateDir)
		d.web.changed(cfg.HTTP)
		for _, warning := range cfg.Warnings {
			d.log.Warn(warning)
		}
		d.log.Info("reloaded", "apps", len(cfg.Apps))
		return
	}
	d.refused = &httpapi.RefusedReload{At: time.Now().UTC(), Fault: err.Error()}
	var faults config.Faults
	if !errors.As(err, &faults) {
		d.log.Error(reloadRefused, "err", err)
		return
	}
	for _, f := range faults {
		d.log.Error(reloadRefused, "fault", f.Error())
	}
}

// lastReload is for the metrics and the API.
func (d *daemon) lastReload() (taken time.Time, refused *httpapi.RefusedReload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.taken, d.refused
}

// newLogger logs to w in the configured format. level can be changed later.
func newLogger(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	level.Set(c.Level)
	o := &slog.HandlerOptions{Level: level}
	if c.Format == config.FormatJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
