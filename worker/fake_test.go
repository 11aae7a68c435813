package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker/feedback"
	"propeller/worker/job"
)

// The tests here run in synctest bubbles, which hold no sockets: queue and
// connection are played. The real ones are in supervisor's and cmd's tests.

const topic = "com.example.app"

const tok = `"token":"` + testToken + `"`

const testToken = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"

type fakeQueue struct {
	mu      sync.Mutex
	ready   []*fakeJob
	arrived chan struct{}
	paused  int
	asked   []int
	closed  bool
	lastID  int

	done, buried, retried []*fakeJob
	puts                  []fakePut
	refuse                func(body string) error // of puts
	statTakes             time.Duration           // each Stat
	stats                 int                     // how often it was asked about a job
	log                   []string                // what happened in what order: "put", "done 1", "bury 2", "retry 3", and what tests add
}

// fakePut is a job put by the worker.
type fakePut struct {
	tube, body string
	delay      time.Duration
	priority   uint32
}

// fakePriority is the priority of every job of a fakeQueue.
const fakePriority = 77

// note adds to the queue's log. q.mu is held.
func (q *fakeQueue) note(format string, args ...any) {
	q.log = append(q.log, fmt.Sprintf(format, args...))
}

func newFakeQueue(bodies ...string) *fakeQueue {
	q := &fakeQueue{arrived: make(chan struct{}, 1)}
	for _, b := range bodies {
		q.add(b)
	}
	return q
}

func (q *fakeQueue) add(body string) *fakeJob {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lastID++
	j := &fakeJob{q: q, id: fmt.Sprint(q.lastID), body: body, put: time.Now()}
	q.ready = append(q.ready, j)
	q.notify()
	return j
}

func (q *fakeQueue) notify() {
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

func (q *fakeQueue) Put(ctx context.Context, tube string, body []byte, o queue.PutOptions) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if !o.Settling {
		return "", errors.New("a full queue would not take what settling needs")
	}
	q.mu.Lock()
	refuse := q.refuse
	q.mu.Unlock()
	if refuse != nil {
		if err := refuse(string(body)); err != nil {
			return "", err
		}
	}
	q.mu.Lock()
	q.puts = append(q.puts, fakePut{tube, string(body), o.Delay, o.Priority})
	q.note("put")
	q.mu.Unlock()
	if o.Delay > 0 {
		time.AfterFunc(o.Delay, func() { q.add(string(body)) })
		return "?", nil
	}
	return q.add(string(body)).id, nil
}
func (q *fakeQueue) Close() error { return nil }

func (q *fakeQueue) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	for {
		q.mu.Lock()
		q.asked = append(q.asked, n)
		var out []queue.Job
		for len(q.ready) > 0 && len(out) < n {
			j := q.ready[0]
			q.ready = q.ready[1:]
			j.attempts++
			out = append(out, j)
		}
		q.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.arrived:
		}
	}
}

func (q *fakeQueue) counts() (done, buried, retried, ready int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.done), len(q.buried), len(q.retried), len(q.ready)
}

// consumerOf gives a fakeQueue the consumer's Close.
type consumerOf struct{ *fakeQueue }

func (c consumerOf) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused++
}
func (c consumerOf) Err() error { return nil }
func (c consumerOf) Close(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

// played is a queue.Queue over a fakeQueue.
type played struct{ *fakeQueue }

func (p played) Consume(string) (queue.Consumer, error) { return consumerOf(p), nil }

type fakeJob struct {
	q        *fakeQueue
	id, body string
	put      time.Time
	attempts int
	after    time.Duration
	panics   bool
	kicked   bool
	repeats  bool // it may have been finished before
}

func (j *fakeJob) Repeats() bool { return j.repeats }
func (j *fakeJob) ID() string    { return j.id }
func (j *fakeJob) Body() []byte {
	if j.panics {
		panic("poison")
	}
	return []byte(j.body)
}
func (j *fakeJob) Stat(context.Context) (queue.Stat, error) {
	if j.q.statTakes > 0 {
		time.Sleep(j.q.statTakes)
	}
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	j.q.stats++
	return queue.Stat{Attempt: j.attempts, Age: time.Since(j.put), Priority: fakePriority, Kicked: j.kicked}, nil
}
func (j *fakeJob) Done(ctx context.Context) error {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	j.q.done = append(j.q.done, j)
	j.q.note("done %s", j.id)
	return ctx.Err()
}
func (j *fakeJob) Retry(_ context.Context, after time.Duration) error {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	j.after = after
	j.q.note("retry %s", j.id)
	j.q.retried = append(j.q.retried, j)
	back := func() { j.q.ready = append([]*fakeJob{j}, j.q.ready...); j.q.notify() }
	if after == 0 {
		back()
		return nil
	}
	time.AfterFunc(after, func() {
		j.q.mu.Lock()
		defer j.q.mu.Unlock()
		back()
	})
	return nil
}
func (j *fakeJob) Bury(_ context.Context, body []byte) error {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	if body != nil {
		j.body = string(body)
	}
	j.q.note("bury %s", j.id)
	j.q.buried = append(j.q.buried, j)
	return nil
}
func (j *fakeJob) Touch(context.Context) error { return nil }

// fakeConn answers each push by its script, from a goroutine of its own.
type fakeConn struct {
	answer   func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration)
	onChange func()

	mu    sync.Mutex
	sent  []*apnsconn.Notification
	gone  bool // by Drain: takes no more
	open  int
	most  int // that were open at once
	limit int
	ended chan struct{}
	err   error
	wg    sync.WaitGroup
}

func (c *fakeConn) Send(n *apnsconn.Notification, done func(apnsconn.Outcome)) {
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		done(apnsconn.Outcome{Class: apnsconn.NotSent, Err: apnsconn.ErrClosed})
		return
	}
	defer c.mu.Unlock()
	c.sent = append(c.sent, n)
	c.open++
	c.most = max(c.most, c.open)
	o, after := c.answer(n)
	c.wg.Go(func() {
		// No timer where none is needed: one that is due at once is run by the
		// select itself, and in a bubble under the race detector that has
		// crashed Go 1.26.8's runtime (maybeRunChan).
		if after > 0 {
			t := time.NewTimer(after)
			defer t.Stop()
			select {
			case <-t.C:
			case <-c.ended:
				o = apnsconn.Outcome{Class: apnsconn.Unknown, Err: c.err}
			}
		}
		c.mu.Lock()
		c.open--
		c.mu.Unlock()
		done(o)
		c.onChange()
	})
}
func (c *fakeConn) Streams() (open, limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, c.limit
}
func (c *fakeConn) Free() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return 0
	}
	return c.limit - c.open
}
func (c *fakeConn) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.gone && !c.over()
}
func (c *fakeConn) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}
func (c *fakeConn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over() {
		c.err = err
		close(c.ended)
	}
}

// Drain refuses further pushes, as *apnsconn.Conn's does, and ends when those
// under way have ended.
func (c *fakeConn) Drain(context.Context) error {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	c.wg.Wait()
	return c.Close()
}
func (c *fakeConn) Close() error          { c.end(apnsconn.ErrClosed); c.wg.Wait(); return nil }
func (c *fakeConn) Done() <-chan struct{} { return c.ended }
func (c *fakeConn) Err() error            { return c.err }

func (c *fakeConn) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sent)
}

// recorded is a place for records.
type recorded struct {
	q       *fakeQueue
	mu      sync.Mutex
	records []feedback.Record
	entries []recordedBurial
	fail    error
}

func (f *recorded) put(_ context.Context, r feedback.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.records = append(f.records, r)
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	f.q.note("record %s", r.Class)
	return nil
}

type recordedBurial struct {
	ID string
	job.Burial
}

// buried is a Config's.
func (f *recorded) buried(id string, b job.Burial) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = append(f.entries, recordedBurial{id, b})
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	f.q.note("told %s", id)
}

func (f *recorded) setFail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *recorded) all() []feedback.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.records)
}

// bench is a worker between a played queue and played connections.
type bench struct {
	*Worker
	q       *fakeQueue
	rec     *recorded
	cfg     Config
	app     *App
	mu      sync.Mutex
	conns   []*fakeConn
	dials   []time.Time
	refuse  error // of the next dials
	limit   int   // streams of the next connections
	answer  func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration)
	stop    func()
	restart func()
	served  chan error
}

func delivered(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
	return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 50 * time.Millisecond
}

func newBench(t *testing.T, q *fakeQueue) *bench {
	t.Helper()
	b := &bench{q: q, rec: &recorded{q: q}, answer: delivered, limit: 1000, served: make(chan error, 1)}
	live := new(Live)
	live.Drain.Store(int64(10 * time.Second))
	b.cfg = Config{
		App: topic, Rules: job.Rules{Topic: topic}, Tube: topic, InFlight: 100,
		Retry: Retry{Min: time.Minute, Max: 15 * time.Minute, GiveUpAfter: 24 * time.Hour},
		Queue: played{q}, Live: live, Feedback: b.rec.put, Buried: b.rec.buried,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Dial: b.dial,
	}
	b.app = NewApp(b.cfg, new(Totals), nil)
	b.logPushes("failures")
	return b
}

// logPushes sets log.pushes.
func (b *bench) logPushes(which string) {
	b.cfg.Live.LogDelivered.Store(which == "all")
	b.cfg.Live.LogFailures.Store(which != "none")
}

// newWorker makes a worker of the app with what cfg is by now.
func (b *bench) newWorker() *Worker {
	wall, live := b.app.cfg.Wall, b.app.cfg.LiveActivities
	if b.app.cfg = b.cfg; b.cfg.Wall == nil {
		b.app.cfg.Wall = wall
	}
	b.app.cfg.LiveActivities = live
	return b.app.NewWorker(0)
}

func (b *bench) dial(_ context.Context, onChange func()) (Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dials = append(b.dials, time.Now())
	if b.refuse != nil {
		return nil, b.refuse
	}
	c := &fakeConn{onChange: onChange, answer: func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return b.answer(n) }, limit: b.limit, ended: make(chan struct{})}
	b.conns = append(b.conns, c)
	return c, nil
}

func (b *bench) start() {
	b.Worker = b.newWorker()
	ctx, cancel := context.WithCancelCause(context.Background())
	b.stop, b.restart = func() { cancel(nil) }, func() { cancel(ErrRestarted) }
	go func() { b.served <- b.Serve(ctx) }()
}

// halt stops the worker and returns when it has.
func (b *bench) halt(t *testing.T) {
	t.Helper()
	b.stop()
	if err := <-b.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// sent is how many pushes the first connection carried.
func (b *bench) sent() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.conns) == 0 {
		return 0
	}
	return b.conns[0].count()
}

func (b *bench) dialTimes() []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dials
}

func (b *bench) setRefuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = err
}

func newTextLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// bubble runs f with time that passes only when all wait.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func jobText(extra string) string { return `{"token":"` + testToken + `","title":"t"` + extra + `}` }
