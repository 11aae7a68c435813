package bench

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"propeller/apnsconn"
	"propeller/config"
	"propeller/internal/apnslean"
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
		app.Name, app.Tube = app.Topic, app.Topic
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

// LeastPayload is the size of the payload that jobs make with an empty body.
const LeastPayload = len(`{"aps":{"alert":{"title":"Propeller","body":""}},"put":1700000000000000}`)

// jobMaker makes jobs whose pushes have that payload and tokens of their own.
type jobMaker struct {
	text string // body of the alert
	run  string // 16 hex digits that all tokens of this run begin with
}

func newJobMaker(payload int, run string) jobMaker {
	return jobMaker{strings.Repeat("x", payload-LeastPayload), run}
}

// Job is job number i with so many tokens.
func (m jobMaker) Job(i, tokens int, put time.Time) []byte {
	list := make([]string, tokens)
	for t := range list {
		list[t] = fmt.Sprintf("%q", fmt.Sprintf("%s%032x%016x", m.run, i, t))
	}
	to := `"token":` + list[0]
	if tokens > 1 {
		to = `"tokens":[` + strings.Join(list, ",") + "]"
	}
	return fmt.Appendf(nil, `{%s,"title":"Propeller","body":%q,"data":{%s}}`, to, m.text, apnslean.Stamp(put))
}

// RandomHex is n random bytes as hex digits.
func RandomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// putters is how many puts are under way at once. Each waits for the queue's
// answer; more do not make it faster.
const putters = 128

// Put puts jobs from through to-1: rate per second, each at its time even if those
// before it are late, or, if rate is 0, as fast as the queue takes them.
func (r *Rig) Put(ctx context.Context, from, to, rate int, tokens func(i int) int) error {
	puts, ending := errgroup.WithContext(ctx)
	begun := time.Now()
	var next atomic.Int64
	next.Store(int64(from))
	for range min(putters, to-from) {
		puts.Go(func() error {
			for ending.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= to {
					break
				}
				if rate > 0 {
					due := begun.Add(time.Duration(i-from) * time.Second / time.Duration(rate))
					_ = Pause(ending, time.Until(due)) // the put sees that it has ended
				}
				if _, err := r.Queue.Put(ending, r.Topic, r.Job(i, tokens(i), time.Now()), queue.PutOptions{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := puts.Wait()
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case err != nil:
		return fmt.Errorf("put: %w", err)
	}
	return nil
}

// Pause waits, unless the run is interrupted.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return errInterrupted
	case <-time.After(d):
		return nil
	}
}

// Engine is a queue that can be asked for its jobs, as all can.
type Engine interface {
	queue.Queue
	queue.Admin
}

// shared is a queue whose user must not close it.
type shared struct{ Engine }

func (shared) Close() error { return nil }

// drainTime bounds how long a run removes jobs that it has left behind.
const drainTime = 20 * time.Second

// drain removes what an interrupted run has left in its tube.
func drain(q Engine, tube string) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	c, err := q.Consume(tube)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for {
		left, err := q.TubeStats(ctx, tube)
		if err != nil {
			return fmt.Errorf("tube %q: jobs may be left in it: %w", tube, err)
		}
		if left.Ready+left.Delayed+left.Reserved == 0 {
			return nil
		}
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		jobs, _ := c.Receive(short, 1000) // an error says that there are none for now
		cancel()
		for _, j := range jobs {
			if err := j.Done(ctx); err != nil && !errors.Is(err, queue.ErrLost) {
				return fmt.Errorf("tube %q: jobs are left in it: %w", tube, err)
			}
		}
	}
}
