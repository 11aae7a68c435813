package bench

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"propeller/apnsconn"
	"propeller/config"
	"propeller/queue"
	"propeller/queue/queueurl"
	"propeller/supervisor"
)

// Rig is the daemon's tree on a queue.
type Rig struct {
	jobMaker
	Queue Engine
	Topic string // of the first app, and its tube: a name that nobody else uses
	Tree  *supervisor.Supervisor

	held, samples int // jobs that the workers held: the sum of the samples, and their number

	temporary bool
	stop      context.CancelFunc
	ended     chan error
}

// Setup is how a Rig is to be.
type Setup struct {
	Addr string // of the APNs side, host:port
	Cert string // that it is trusted by, PEM

	Apps, Workers, InFlight, Payload int

	Temporary bool // the queue ends with the run, and the jobs in it

	Log *slog.Logger
}

// NewRig makes a rig; nothing runs yet. Close does not close the queue.
func NewRig(q Engine, s Setup) (*Rig, error) {
	r := &Rig{jobMaker: newJobMaker(s.Payload, RandomHex(8)), Queue: q, Topic: "propeller-bench-" + RandomHex(6), temporary: s.Temporary}
	var err error
	r.Tree, err = supervisor.New(r.config(s), supervisor.Options{
		Log: s.Log, OpenQueue: func(queueurl.URL) (queue.Queue, error) { return shared{q}, nil },
	})
	return r, err
}

func (r *Rig) config(s Setup) *config.Config {
	cfg := config.Default()
	cfg.ShutdownTimeout = 10 * time.Second
	cfg.Log.Pushes = config.PushesNone
	app := cfg.Apps[0]
	app.Server, app.Addr, app.RootCAs = "https://"+s.Addr, s.Addr, x509.NewCertPool()
	app.RootCAs.AppendCertsFromPEM([]byte(s.Cert))
	app.Workers, app.InFlight = s.Workers, s.InFlight
	app.Retry = config.Retry{Min: time.Second, Max: time.Minute, GiveUpAfter: time.Hour}
	cfg.Apps = nil
	for i := range s.Apps {
		app.Topic = r.Topic
		if i > 0 {
			app.Topic += fmt.Sprintf(".%d", i)
		}
		app.Tube = app.Topic
		cfg.Apps = append(cfg.Apps, app)
	}
	return &cfg
}

// Start runs the tree until halt.
func (r *Rig) Start() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.ended = stop, make(chan error, 1)
	go func() { r.ended <- r.Tree.Serve(ctx) }()
}

// halt ends the tree, which gives back what it holds.
func (r *Rig) halt() error {
	if r.stop == nil {
		return nil
	}
	r.stop()
	r.stop = nil
	return <-r.ended
}

// Close ends the tree and leaves no job behind.
func (r *Rig) Close() error {
	err := r.halt()
	if !r.temporary {
		err = errors.Join(err, drain(r.Queue, r.Topic))
	}
	return err
}

// patience is how long a run waits without any push ending.
const patience = time.Minute

// Progress is how the pushes have ended so far.
type Progress struct{ Delivered, Dead, Other int64 }

// Progress says so, and takes a sample of how many jobs the workers hold.
func (r *Rig) Progress() Progress {
	st := r.Tree.Status()[0]
	p := Progress{Delivered: st.Counters.Ended(apnsconn.Delivered), Dead: st.Counters.Ended(apnsconn.Token)}
	for c := range apnsconn.Unknown + 1 {
		p.Other += st.Counters.Ended(c)
	}
	p.Other -= p.Delivered + p.Dead
	for _, w := range st.Workers {
		r.held += w.Reserved
	}
	r.samples++
	return p
}

var errInterrupted = errors.New("interrupted")

// Wait waits until so many pushes, since the rig began, have ended for good.
func (r *Rig) Wait(ctx context.Context, pushes int64) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var last Progress
	moved := time.Now()
	for {
		now := r.Progress()
		switch {
		case now.Delivered+now.Dead >= pushes:
			return nil
		case now != last:
			last, moved = now, time.Now()
		case time.Since(moved) > patience:
			return r.stalled(now, pushes)
		}
		select {
		case <-ctx.Done():
			return errInterrupted
		case err := <-r.ended:
			r.stop = nil
			return fmt.Errorf("the tree ended by itself: %w", err)
		case <-tick.C:
		}
	}
}

func (r *Rig) stalled(p Progress, pushes int64) error {
	st := r.Tree.Status()[0]
	why := st.Health.String()
	for _, w := range st.Workers {
		why = cmp.Or(w.Waiting, why)
	}
	return fmt.Errorf("no push has ended for %v: %d of %d delivered, %d otherwise: %s", patience, p.Delivered, pushes, p.Dead+p.Other, why)
}
