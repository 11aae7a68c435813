package worker_test

import (
	"context"
	"io"
	"log/slog"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker"
	"propeller/worker/feedback"
	wjob "propeller/worker/job"
)

// This file has everything in the model that depends on the exact shape of the worker's
// Config and of the interfaces that the worker uses.

// shared is what the workers of one app share. A reload makes a new one.
type shared struct {
	app      *worker.App
	lane     *lane
	standing *standing
}

// standing is what the lanes of one credential share.
type standing struct {
	lanes  *worker.Lanes
	probed time.Time // the last push while it was broken or guarded, under model.mu
}

func newStanding() *standing { return &standing{lanes: worker.NewLanes()} }

// newShared makes the parts of a new app of a lane.
func (m *model) newShared(l *lane, with *standing) *shared {
	s := &shared{lane: l, standing: with}
	live := new(worker.Live)
	live.Drain.Store(int64(drainTime))
	var out io.Writer = io.Discard
	level := slog.LevelError + 10
	if m.plan.log != nil {
		out, level = m.plan.log, slog.LevelDebug
	}
	s.app = worker.NewApp(worker.Config{
		App: modelTopic, Rules: wjob.Rules{Topic: modelTopic, TTL: m.plan.ttl, Expiration: m.plan.expiration},
		Tube: l.tube, InFlight: m.plan.inFlight,
		Retry: worker.Retry{Min: m.plan.retryMin, Max: 15 * time.Minute, GiveUpAfter: m.plan.giveUp},
		Queue: portQueue{m}, Dial: m.portDial(s), Live: live, Feedback: m.portFeedback, Buried: func(string, wjob.Burial) {}, Wall: m.wall,
		Log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})),
	}, l.totals, with.lanes)
	return s
}

// hasClock reports whether Config has a hook for the wall clock: see model.setClock.
const hasClock = true

// portClock sets that clock.
func (m *model) portClock() func(by time.Duration) {
	return func(by time.Duration) { m.wallBy.Add(int64(by)) }
}

// wall is the wall clock.
func (m *model) wall() time.Time { return time.Now().Add(time.Duration(m.wallBy.Load())) }

// possibleDuplicates is how many of them the workers have counted.
func (m *model) possibleDuplicates() (n int) {
	for _, l := range m.lanes {
		n += int(l.totals.Counters.PossibleDuplicates.Load())
	}
	return n
}

// stopped says whether the app is broken or guarded, which only certain answers end, and
// since when.
func (s *shared) stopped() (broken, paused bool, since time.Time) {
	b := s.app.Breaker()
	return b.Broken, b.Guarded, b.Since
}

const modelTopic = "com.example.model"

// drainTime is how long a worker may take to finish when it is stopped.
const drainTime = 10 * time.Second

func (m *model) newWorker(s *shared, index int) *worker.Worker { return s.app.NewWorker(index) }

// errRestarted is the cause of a context that ends for a restart.
var errRestarted = worker.ErrRestarted

// portQueue is the model's queue as a queue.Queue.
type portQueue struct{ *model }

func (q portQueue) Put(ctx context.Context, tube string, body []byte, o queue.PutOptions) (string, error) {
	return q.putRest(ctx, q.laneOf(tube), body, o.Delay)
}
func (q portQueue) Consume(tube string) (queue.Consumer, error) {
	return portConsumer{q.consume(q.laneOf(tube))}, nil
}
func (q portQueue) Close() error { return nil }

// portConsumer is a consumer as a queue.Consumer.
type portConsumer struct{ *consumer }

func (c portConsumer) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	leases, err := c.receive(ctx, n)
	jobs := make([]queue.Job, len(leases))
	for i, l := range leases {
		jobs[i] = portJob{l}
	}
	return jobs, err
}
func (c portConsumer) Pause()                          { c.pause() }
func (c portConsumer) Err() error                      { return c.err() }
func (c portConsumer) Close(ctx context.Context) error { return c.close(ctx) }

// portJob is a reservation as a queue.Job.
type portJob struct{ *lease }

func (j portJob) ID() string   { return j.lease.job.name() }
func (j portJob) Body() []byte { return j.lease.job.body }
func (j portJob) Stat(ctx context.Context) (queue.Stat, error) {
	s, err := j.stat(ctx)
	return queue.Stat{Attempt: s.attempt, Age: s.age, Kicked: s.kicked, Priority: s.priority}, err
}
func (j portJob) Done(ctx context.Context) error { return j.settle(ctx, settleDone, 0, nil) }
func (j portJob) Retry(ctx context.Context, after time.Duration) error {
	return j.settle(ctx, settleRetry, after, nil)
}
func (j portJob) Bury(ctx context.Context, body []byte) error {
	return j.settle(ctx, settleBury, 0, body) // nil: the body stays
}
func (j portJob) Touch(ctx context.Context) error { return j.touch(ctx) }

func (m *model) portFeedback(ctx context.Context, r feedback.Record) error {
	return m.record(ctx, note{ref: r.Ref, token: r.Token, class: r.Class})
}

func (m *model) portDial(s *shared) worker.Dial {
	return func(ctx context.Context, onChange func()) (worker.Conn, error) {
		c, err := m.dial(ctx, s, onChange)
		if err != nil {
			return nil, err
		}
		return portConn{c}, nil
	}
}

// portConn is the model's connection as a worker.Conn.
type portConn struct{ *conn }

func (c portConn) Send(n *apnsconn.Notification, done func(apnsconn.Outcome)) {
	c.send(n.Token, n.Payload, done)
}
