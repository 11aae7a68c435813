package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"propeller/config"
	"propeller/internal/move"
	"propeller/internal/text"
	"propeller/queue"
	"propeller/queue/queueurl"
	"propeller/worker/job"
)

const moveLong = `move moves jobs from one queue to another, of the same or another kind: the jobs
of the apps in the configuration file, of one app with --app, of one tube with
--tube, or of every tube with --all. Delayed jobs keep their time, and buried
jobs stay buried, with their reasons.

With --to-app it moves one app's jobs to another app of the same topic instead,
within the configuration's queue; their feedback records stay. The daemon may run:
pause the first app, whose workers otherwise send what they receive meanwhile.

Before moving to another queue stop the daemons that use the two. No job is ever lost: each is put
into the other queue before it is deleted from the first. After a crash a few
jobs may be in both. Ctrl-C stops between two jobs; run move again to continue.`

// moveFlags are the flags of jobs move.
type moveFlags struct {
	appFlags
	from, to, config, tube, toApp string
	all                           bool
}

func newMove() *cobra.Command {
	var o moveFlags
	cmd := &cobra.Command{Use: "move", Short: "move jobs from one queue to another", Long: moveLong, Args: noArgs}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "`URL` of the queue to take jobs from")
	f.StringVar(&o.to, "to", "", "`URL` of the queue to put them into")
	f.StringVarP(&o.config, "config", "c", defaultFile, "configuration `file`, for the apps")
	o.add(cmd, false, "an app, for its jobs only")
	f.StringVar(&o.toApp, "to-app", "", "`name` of the app to give the jobs to, instead of --from and --to")
	f.StringVar(&o.tube, "tube", "", "the jobs of this tube only (`name`)")
	f.BoolVar(&o.all, "all", false, "the jobs of every tube, other programs' too")
	cmd.MarkFlagsMutuallyExclusive("app", "topic", "tube", "all")
	for _, other := range []string{"from", "to", "tube", "all"} {
		cmd.MarkFlagsMutuallyExclusive("to-app", other)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.Changed("to-app") {
			return o.toOther(cmd)
		}
		for flag, value := range map[string]string{"from": o.from, "to": o.to} {
			if value == "" {
				return usageError{fmt.Errorf("--%s is required, or --to-app", flag)}
			}
		}
		from, to, err := o.queues()
		if err != nil {
			return err
		}
		choice, err := o.choice(f.Changed("config"))
		if err != nil {
			return err
		}
		ctx, stop := untilInterrupted()
		defer stop()
		return carry(ctx, cmd, from, to, choice)
	}
	return cmd
}

func untilInterrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

// queues are the two URLs, checked.
func (o *moveFlags) queues() (from, to queueurl.URL, err error) {
	if from, err = config.ParseQueue(o.from, config.Options{}); err != nil {
		return from, to, fmt.Errorf("--from: %w", err)
	}
	if to, err = config.ParseQueue(o.to, config.Options{}); err != nil {
		return from, to, fmt.Errorf("--to: %w", err)
	}
	if from.Meets(to) {
		return from, to, errors.New("--from and --to share a server: jobs would go round and round")
	}
	if from.Dir != "" && missing(from.Dir) {
		return from, to, fmt.Errorf("--from: folder %q: no such folder", from.Dir)
	}
	return from, to, nil
}

// moveChoice is which tubes to move.
type moveChoice struct {
	tubes []string // nil: all
	apps  bool     // those of the configuration's apps: others are worth a word
}

func (o *moveFlags) choice(named bool) (moveChoice, error) {
	var cfg *config.Config
	if named || !missing(o.config) {
		var err error
		if cfg, err = config.Load(o.config, config.Options{WithoutCredentials: true}); err != nil {
			return moveChoice{}, err
		}
	}
	var c moveChoice
	switch {
	case o.all:
	case o.tube != "":
		c.tubes = []string{o.tube}
	case cfg == nil && o.said() == "":
		return c, usageError{errors.New("no propeller.yaml in this folder: say which jobs by -c FILE, --app, --tube or --all")}
	default:
		c.tubes, c.apps = tubesOf(cfg, o.appFlags), o.said() == ""
	}
	return c, nil
}

// tubesOf are the tubes of one app, of the apps of a topic, or of all: those of jobs, and
// those of feedback records.
func tubesOf(cfg *config.Config, which appFlags) []string {
	var tubes []string
	add := func(tube, feedback string) { tubes = append(tubes, tube, cmp.Or(feedback, tube+".feedback")) }
	if cfg != nil {
		for _, a := range cfg.Apps {
			if which.said() == "" || a.Name == which.app || a.Topic == which.topic {
				add(a.Tube, a.Feedback.Tube)
			}
		}
	}
	if len(tubes) == 0 { // an app that is no longer in the file
		add(which.said(), "")
	}
	return tubes
}

// carry moves the chosen jobs.
func carry(ctx context.Context, cmd *cobra.Command, from, to queueurl.URL, choice moveChoice) error {
	src, err := openMover(from)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer src.Close()
	dst, err := openMover(to)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	defer dst.Close()
	return newCarrier(cmd, src, dst, "").carry(ctx, choice)
}

func newCarrier(cmd *cobra.Command, src, dst move.Queue, toTube string) *carrier {
	r := &carrier{out: cmd.ErrOrStderr()}
	r.mover = &move.Mover{From: src, To: dst, ToTube: toTube, Kicked: job.Kicked, Refused: r.refused}
	return r
}

func (r *carrier) carry(ctx context.Context, choice moveChoice) error {
	if err := r.run(ctx, choice); err != nil {
		return advise(err)
	}
	return nil
}

func openMover(u queueurl.URL) (move.Queue, error) {
	q, err := visitQueue(u, stopHolder)
	if err != nil {
		return nil, err
	}
	m, ok := q.(move.Queue)
	if !ok {
		return nil, errors.Join(errors.New("jobs cannot be moved from or to this queue"), q.Close())
	}
	return m, nil
}

// carrier is one run of jobs move.
type carrier struct {
	mover *move.Mover

	mu   sync.Mutex
	out  io.Writer
	stay []string // a line for each job that was refused
}

func (r *carrier) run(ctx context.Context, choice moveChoice) error {
	there, err := r.mover.From.Tubes(ctx)
	if err != nil {
		return err
	}
	progress, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { r.progress(progress) })
	began := time.Now()
	errs := r.tubes(ctx, there, choice)
	stop()
	watch.Wait()
	r.say(r.stay...)
	r.say(fmt.Sprintf("%s in %v", r.counted(), time.Since(began).Round(100*time.Millisecond)))
	if ctx.Err() != nil {
		return errors.New("stopped; run it again to continue")
	}
	if n := len(r.stay); n > 0 {
		errs = append(errs, fmt.Errorf("%s could not be moved: the other queue does not take them", text.Plural(n, "job")))
	}
	return errors.Join(errs...)
}

// tubes moves one tube after the other.
func (r *carrier) tubes(ctx context.Context, there []string, choice moveChoice) (errs []error) {
	for _, tube := range there {
		switch {
		case ctx.Err() != nil:
			return errs
		case choice.tubes != nil && !slices.Contains(choice.tubes, tube):
			if choice.apps {
				r.say(fmt.Sprintf("skipping tube %q: no app in the configuration uses it (--tube or --all moves it)", tube))
			}
		case queue.CheckTube(tube) != nil:
			errs = append(errs, fmt.Errorf("tube %q cannot be moved: not every queue allows such a name", tube))
		default:
			errs = append(errs, r.mover.Tube(ctx, tube))
		}
	}
	return errs
}

func (r *carrier) counted() string {
	m := r.mover
	return fmt.Sprintf("moved %s: %d ready, %d delayed, %d buried", text.Plural(int(m.Moved()), "job"), m.Ready.Load(), m.Delayed.Load(), m.Buried.Load())
}

// progressEvery is how often progress is shown.
const progressEvery = 3 * time.Second

func (r *carrier) progress(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			line := r.counted()
			if waits := oneLine(r.mover.Waits()); waits != "" {
				line += "; waiting for " + waits
			}
			r.say(line)
		}
	}
}

func (r *carrier) say(lines ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range lines {
		fmt.Fprintln(r.out, line)
	}
}

func (r *carrier) refused(tube, id string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stay = append(r.stay, fmt.Sprintf("job %s of %q was not moved: %v", id, tube, why))
}
