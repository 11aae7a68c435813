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

const runLong = `run starts the daemon: it works on the apps of the configuration file until
SIGTERM or SIGINT, then finishes what is in flight within shutdown_timeout. A
second signal quits at once. SIGHUP reads the file and its certificates again.
An app whose certificate or key cannot be used is broken until it can; with
--strict such a fault refuses the start or the reload, as other faults do.
It tells systemd how it fares, and reaps orphans as process 1 of a container.

With --topic it runs one app without a file, from the other flags alone.`

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
		// Whoever read the log may go, Ctrl-C taking both, and the drain goes on.
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

// loadUnless loads the configuration, and nothing more if the process is told to end
// meanwhile: a disk that does not answer, or much to decrypt, must not hold it. Then
// there is no configuration, and no error.
func loadUnless(stops <-chan os.Signal, load func() (*config.Config, error)) (*config.Config, error) {
	var cfg *config.Config
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		cfg, err = load()
	}()
	select {
	case <-done:
		return cfg, err
	case <-stops:
		return nil, nil // the process ends, and its goroutines with it
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
	opened func(web net.Addr) // told where http listens; nil: nobody is
	state  *state
	web    *web
	asks   chan chan error // for reloads by HTTP, each answered with how it went; nil: none

	statuses chan string      // to the main loop
	pings    chan string      // cap 1: from there to the service manager
	stopping chan stopMessage // cap 1
	limit    time.Time        // when the process ends though something is stuck; zero before its end

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
	api := httpapi.New(sup, httpapi.Options{
		Log: d.log, Metrics: httpapi.NewMetrics(sup, buildVersion(), d.lastReload, forgotten), Forgotten: forgotten, Reload: d.askReload, Reloads: d.lastReload, Outcomes: outcomes,
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

// serve runs the tree until a signal ends it. That it ends by itself is an
// error: apps would stay unserved and nobody would know.
func (d *daemon) serve(cfg *config.Config, t tree) error {
	d.statuses, d.pings, d.stopping = make(chan string), make(chan string, 1), make(chan stopMessage, 1)
	d.drain = cfg.ShutdownTimeout
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

// leave ends what outlives the tree.
func (d *daemon) leave(endReaper func(), reaper *sync.WaitGroup) {
	d.within("the reaper, or state_dir", func() {
		endReaper()
		reaper.Wait()
		d.web.close()
		d.state.close()
	})
}

// within waits for f, but not for ever: it may be stuck in a file system that
// does not answer, or on a lock. All such waits of the end share one limit.
func (d *daemon) within(what string, f func()) {
	if d.limit.IsZero() {
		d.limit = time.Now().Add(overrun)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(max(time.Until(d.limit), lastWait)):
		d.log.Error("something is stuck; ending without it", "what", what)
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
	d.log.Error("ending; unfinished jobs stay in the queue", "err", err)
	d.notify.stop(overrun, err.Error())
	return err
}

// renewEvery is how often the files of credentials that cannot be used are looked at.
const renewEvery = 5 * time.Second

// reload says when the tree runs, and applies the configuration anew at each
// SIGHUP.
func (d *daemon) reload(ctx context.Context, t tree) {
	select {
	case <-t.Started():
	case <-ctx.Done():
		return
	}
	d.notify.ready(d.status(t))
	for {
		answer := make(chan error, 1) // a signal has nobody who reads it
		select {
		case <-ctx.Done():
			return
		case <-d.hups:
		case answer = <-d.asks:
		}
		d.notify.reloading()
		var cfg *config.Config
		var err error
		if !unless(ctx, func() { cfg, err = d.load() }) {
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
	}
}

// renew looks from time to time whether apps without a good credential can have one.
// A file that takes its time holds no reload.
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
			if !unless(ctx, t.Renew) {
				return
			}
		}
	}
}

// unless does f, which reads files, and reports whether it has ended before ctx. What
// has not is left behind: the process ends.
func unless(ctx context.Context, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// askReload has the configuration applied anew and waits for how that ended, or
// for ctx.
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

// reloadRefused is told wherever a reload was.
const reloadRefused = "reload refused, nothing is changed"

// reloaded takes over what the daemon itself needs of a configuration that has
// been applied, or logs why none was.
func (d *daemon) reloaded(cfg *config.Config, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.refused, d.taken = nil, time.Now()
		d.drain = cfg.ShutdownTimeout
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

// lastReload is for the metrics, and for whoever looks.
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
