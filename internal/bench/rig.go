package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"propeller/apnsconn"
	"propeller/config"
	"propeller/internal/apnslean"
	"propeller/queue"
	"propeller/queue/queueurl"
	"propeller/supervisor"
)

// benchRig is a queue, an APNs side, and the daemon's tree between them.
type benchRig struct {
	plan *benchPlan
	q    *benchQueue
	apns *benchAPNs
	name string // of topic and tube, made up anew; that of the first app
	jobs jobMaker
	held gauge

	timed *timedQueue // times jobs where the stand-in does not; else nil
	sup   *supervisor.Supervisor
	stop  context.CancelFunc
	ended chan error
}

// newBenchRig opens all of it; nothing runs yet. The tree has so many apps.
func newBenchRig(ctx context.Context, p *benchPlan, o apnslean.Options, apps int) (*benchRig, error) {
	r := &benchRig{plan: p, name: "propeller-bench-" + randomHex(6), jobs: newJobMaker(p.payload, randomHex(8))}
	var err error
	if r.apns, err = p.openBenchAPNs(o); err != nil {
		return nil, err
	}
	if r.q, err = openBenchQueue(ctx, p.queue, p.log); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if err := r.checkTube(ctx); err != nil {
		return nil, errors.Join(err, r.close())
	}
	open := r.q.forTree()
	if r.apns.cmd == nil {
		r.timed = &timedQueue{engine: open}
		open = r.timed
	}
	r.sup, err = supervisor.New(r.config(apps), supervisor.Options{
		Log: p.log, OpenQueue: func(queueurl.URL) (queue.Queue, error) { return open, nil },
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// reachTime bounds the first contact with the queue.
const reachTime = 10 * time.Second

// checkTube makes sure that the queue answers and the tube is the run's alone.
func (r *benchRig) checkTube(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	st, err := r.q.TubeStats(ctx, r.name)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if st != (queue.TubeStats{}) {
		return fmt.Errorf("tube %q: has jobs already, which are not touched: try again", r.name)
	}
	return nil
}

func (r *benchRig) config(apps int) *config.Config {
	cfg := config.Default()
	cfg.ShutdownTimeout = 10 * time.Second
	cfg.Log.Pushes = config.PushesNone
	app := cfg.Apps[0]
	app.Server, app.Addr, app.RootCAs = "https://"+r.apns.addr, r.apns.addr, r.apns.roots
	app.Workers, app.InFlight = r.plan.workers, r.plan.inFlight
	app.Retry = config.Retry{Min: time.Second, Max: time.Minute, GiveUpAfter: time.Hour}
	cfg.Apps = nil
	for i := range apps {
		app.Topic = r.name
		if i > 0 {
			app.Topic += fmt.Sprintf(".%d", i)
		}
		app.Tube = app.Topic
		cfg.Apps = append(cfg.Apps, app)
	}
	return &cfg
}

// start runs the tree until halt.
func (r *benchRig) start() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.ended = stop, make(chan error, 1)
	go func() { r.ended <- r.sup.Serve(ctx) }()
}

// halt ends the tree, which gives back what it holds.
func (r *benchRig) halt() error {
	if r.stop == nil {
		return nil
	}
	r.stop()
	r.stop = nil
	return <-r.ended
}

// close ends everything and leaves nothing behind.
func (r *benchRig) close() error {
	err := r.halt()
	if r.q != nil {
		if !r.q.own {
			err = errors.Join(err, drain(r.q, r.name))
		}
		err = errors.Join(err, r.q.end())
	}
	return errors.Join(err, r.apns.close())
}

// gauge is the mean of samples.
type gauge struct {
	sum float64
	n   int
}

func (g *gauge) add(v float64) { g.sum, g.n = g.sum+v, g.n+1 }

func (g *gauge) mean() float64 {
	if g.n == 0 {
		return 0
	}
	return g.sum / float64(g.n)
}

// patience is how long a run waits without any push ending.
const benchPatience = time.Minute

// progress is how the pushes have ended so far.
type progress struct{ delivered, dead, other int64 }

func (r *benchRig) progress() progress {
	st := r.sup.Status()[0]
	p := progress{delivered: st.Counters.Ended(apnsconn.Delivered), dead: st.Counters.Ended(apnsconn.Token)}
	for c := range apnsconn.Unknown + 1 {
		p.other += st.Counters.Ended(c)
	}
	p.other -= p.delivered + p.dead
	held := 0
	for _, w := range st.Workers {
		held += w.Held
	}
	r.held.add(float64(held))
	return p
}

// wait waits until so many pushes, since the rig began, have ended for good.
func (r *benchRig) wait(ctx context.Context, pushes int64) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var last progress
	moved := time.Now()
	for {
		now := r.progress()
		switch {
		case now.delivered+now.dead >= pushes:
			return nil
		case now != last:
			last, moved = now, time.Now()
		case time.Since(moved) > benchPatience:
			return r.stalled(now, pushes)
		}
		select {
		case <-ctx.Done():
			return errors.New("interrupted")
		case err := <-r.ended:
			r.stop = nil
			return fmt.Errorf("the tree ended by itself: %w", err)
		case <-tick.C:
		}
	}
}

// settled waits until no worker holds a job: a push has ended a moment before its
// job is deleted.
func (r *benchRig) settled(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(benchPatience)
	for {
		held := 0
		for _, w := range r.sup.Status()[0].Workers {
			held += w.Held
		}
		if held == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("interrupted")
		case <-late:
			return fmt.Errorf("%s not deleted in %v", count(held, "job"), benchPatience)
		case <-tick.C:
		}
	}
}

func (r *benchRig) stalled(p progress, pushes int64) error {
	st := r.sup.Status()[0]
	why := ""
	if !st.Health.State.Works() {
		why = st.Health.String()
	}
	for _, w := range st.Workers {
		if why == "" {
			why = w.Waiting
		}
	}
	return fmt.Errorf("no push has ended for %v: %d of %d delivered, %d otherwise: %s", benchPatience, p.delivered, pushes, p.dead+p.other, cmp.Or(why, "no reason known"))
}
