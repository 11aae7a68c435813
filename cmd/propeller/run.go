package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"propeller/config"
	"propeller/queue"
	"propeller/supervisor"
)

const runLong = `run starts the daemon: it works on the apps of the configuration file until
SIGTERM or SIGINT, then finishes what is in flight within shutdown_timeout. A
second signal quits at once. SIGHUP reads the file and its certificates again.

With --topic it runs one app without a file, from the other flags alone.`

func newRun() *cobra.Command {
	cmd := &cobra.Command{Short: "run the daemon", Long: runLong}
	source := configFlags(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		load, err := source()
		if err != nil {
			return err
		}
		signals := make(chan os.Signal, 4)
		signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
		defer signal.Stop(signals)
		cfg, err := load()
		if err != nil {
			return err
		}
		level := new(slog.LevelVar)
		d := &daemon{load: load, level: level, log: newLogger(cmd.ErrOrStderr(), cfg.Log, level), signals: signals}
		return d.run(cfg)
	}
	return cmd
}

// daemon is propeller run.
type daemon struct {
	load    func() (*config.Config, error)
	level   *slog.LevelVar
	log     *slog.Logger
	signals <-chan os.Signal

	reloads chan struct{} // cap 1: several SIGHUPs become one reload

	mu    sync.Mutex
	drain time.Duration // shutdown_timeout
}

// overrun is how long after shutdown_timeout the process ends no matter what:
// the workers' own time to part from the queue, and some more.
const overrun = 10 * time.Second

var errQuit = errors.New("second signal: quit without finishing; unfinished jobs stay in the queue")

func (d *daemon) run(cfg *config.Config) error {
	d.reloads = make(chan struct{}, 1)
	d.drain = cfg.ShutdownTimeout
	sup, err := supervisor.New(cfg, supervisor.Options{
		Log:       d.log,
		OpenQueue: func(urls []string) (queue.Queue, error) { return openQueue(urls, d.log) },
	})
	if err != nil {
		return err
	}
	d.log.Info("propeller started", "version", buildVersion(), "config", cfg.File, "apps", len(cfg.Apps), "queue", cfg.Queue, "pid", os.Getpid())
	ctx, cancel := context.WithCancel(context.Background())
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	background.Go(func() { d.reload(ctx, sup) })
	ended := make(chan error, 1)
	background.Go(func() { ended <- sup.Serve(ctx) })
	return d.wait(cancel, ended)
}

// wait turns signals into actions until the tree has ended.
func (d *daemon) wait(stop context.CancelFunc, ended <-chan error) error {
	var late <-chan time.Time
	for {
		select {
		case sig := <-d.signals:
			switch {
			case sig == syscall.SIGHUP:
				select {
				case d.reloads <- struct{}{}:
				default: // one is waiting already, and will read the newest file
				}
			case late != nil:
				d.log.Error(errQuit.Error())
				os.Exit(exitFailed)
			default:
				d.mu.Lock()
				drain := d.drain
				d.mu.Unlock()
				d.log.Info("stopping", "signal", sig.String(), "within", drain.String())
				late = time.After(drain + overrun)
				stop()
			}
		case <-late:
			d.log.Error("not stopped in time; unfinished jobs stay in the queue")
			os.Exit(exitFailed)
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("the supervision tree ended: %w", err)
			}
			d.log.Info("stopped")
			return nil
		}
	}
}

// reload applies the configuration anew at each SIGHUP.
func (d *daemon) reload(ctx context.Context, sup *supervisor.Supervisor) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.reloads:
		}
		cfg, err := d.load()
		if err == nil {
			err = sup.Apply(cfg)
		}
		var faults config.Faults
		switch {
		case errors.As(err, &faults):
			for _, f := range faults {
				d.log.Error("reload refused, nothing is changed", "fault", f.Error())
			}
		case err != nil && ctx.Err() == nil:
			d.log.Error("reload refused, nothing is changed", "err", err)
		case err == nil:
			d.level.Set(cfg.Log.Level)
			d.mu.Lock()
			d.drain = cfg.ShutdownTimeout
			d.mu.Unlock()
			d.log.Info("reloaded", "apps", len(cfg.Apps))
		}
	}
}
