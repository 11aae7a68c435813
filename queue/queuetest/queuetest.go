// Package queuetest is the conformance suite that every adapter of package
// queue passes. Where engines differ, the difference has a name in Engine.
//
// An adapter's test package should also run goleak in its TestMain: the suite
// closes all that it opens.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// Engine is an adapter under test, with the differences between engines, which
// docs/queues.md has in a table.
type Engine struct {
	// New starts an engine with no jobs and opens a queue on it. It is called
	// once per test, many at a time. What it starts must end with t, after the
	// queue, which the suite closes.
	New func(t *testing.T) Instance

	// MaxBody is the largest body in bytes that the engine takes.
	MaxBody int

	WholeSecondDelays bool // delays are rounded up to whole seconds
	Priorities        bool // urgent jobs are served first
	NewIDs            bool // a job that is buried with another body gets another id
	Overshoot         int  // jobs that may be reserved beyond what Receive asked for: one per server, if several
}

// Instance is one engine with a queue on it. The functions may be nil when the
// engine cannot do it; the tests that need them are then not part of the suite.
type Instance struct {
	Queue queue.Queue

	// Lease is how long a job put by Queue stays reserved without a sign of
	// life. Short ones make the suite quick: the lease is outlasted once.
	Lease time.Duration

	// Down ends the engine as a crash would. Up starts it again, at the same
	// address, with the jobs it had.
	Down, Up func(t *testing.T)

	// Other opens another queue on the same engine, as another process does.
	Other func(t *testing.T) queue.Queue

	// PutFleeting puts a job whose lease ends, when it has been received, in
	// spite of the adapter. The function returned waits for that and lets a
	// stranger hold the job.
	PutFleeting func(t *testing.T, tube string, body []byte) (steal func())

	// PauseTube pauses a tube for d, as an operator does; 0 ends the pause. Somebody must
	// have consumed the tube before.
	PauseTube func(t *testing.T, tube string, d time.Duration)
}

// patience bounds every wait for something that should happen. It is only
// reached by a test that fails.
const patience = 60 * time.Second

// Run runs the suite.
func Run(t *testing.T, e Engine) {
	tests := []struct {
		name string
		run  func(*testing.T, Engine)
	}{
		{"PutReceiveDone", testPutReceiveDone},
		{"Bodies", testBodies},
		{"TooBig", testTooBig},
		{"BadTubes", testBadTubes},
		{"Delay", testDelay},
		{"PutAll", testPutAll},
		{"Priority", testPriority},
		{"RetryAtOnce", testRetryAtOnce},
		{"RetryLater", testRetryLater},
		{"BuryStaysAway", testBury},
		{"BuryReplaces", testBuryReplaces},
		{"BuryAsItIs", testBuryAsItIs},
		{"BuryAgain", testBuryAgain},
		{"BuryTooBig", testBuryTooBig},
		{"BuryTooBigIsHeld", testBuryTooBigHeld},
		{"BuryRace", testBuryRace},
		{"BuryOverOutage", testBuryOverOutage},
		{"SettleOnce", testSettleOnce},
		{"NeverMoreThanN", testNeverMoreThanN},
		{"ReceiveEndsWithContext", testReceiveContext},
		{"PauseGivesBack", testPause},
		{"CloseGivesBack", testCloseGivesBack},
		{"CloseWaitsForSettles", testCloseWaits},
		{"LeaseKept", testLeaseKept},
		{"LostReservation", testLostReservation},
		{"ManyConsumers", testManyConsumers},
		{"RestartMidBurst", testRestartMidBurst},
		{"DoneOverOutage", testDoneOverOutage},
		{"RetryDuringOutage", testRetryDuringOutage},
		{"PutWhileDown", testPutWhileDown},
		{"TubeStats", testTubeStats},
		{"TubePaused", testTubePaused},
		{"Tubes", testTubes},
		{"List", testList},
		{"ListEnds", testListEnds},
		{"PutBuried", testPutBuried},
		{"BuriedList", testBuriedList},
		{"BuriedPeek", testBuriedPeek},
		{"BuriedNotFound", testBuriedNotFound},
		{"BuriedKick", testBuriedKick},
		{"BuriedDelete", testBuriedDelete},
		{"BuriedListedOften", testBuriedListedOften},
		{"BuriedRace", testBuriedRace},
		{"BuriedOverOutage", testBuriedOverOutage},
		{"WatchPut", testWatchPut},
		{"WatchForeignPut", testWatchForeign},
		{"WatchJobsBefore", testWatchBefore},
		{"WatchDelayed", testWatchDelayed},
		{"WatchForget", testWatchForget},
		{"WatchMany", testWatchMany},
		{"WatchRace", testWatchRace},
		{"WatchOverOutage", testWatchOutage},
		{"WatchClose", testWatchClose},
		{"WatchEmpty", testEmpty},
		{"AllStats", testAllStats},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, e)
		})
	}
}

// start starts an instance for one test.
func start(t *testing.T, e Engine) Instance {
	t.Helper()
	in := e.New(t)
	t.Cleanup(func() {
		if err := in.Queue.Close(); err != nil {
			t.Errorf("queue close: %v", err)
		}
	})
	return in
}

// ctxOf ends with the patience of the suite.
func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func put(t *testing.T, q queue.Queue, tube, body string, o queue.PutOptions) string {
	t.Helper()
	id, err := q.Put(ctxOf(t), tube, []byte(body), o)
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	if id == "" {
		t.Fatal("put returned no id")
	}
	return id
}

// consume starts a consumer that is closed with the test.
func consume(t *testing.T, q queue.Queue, tube string) queue.Consumer {
	t.Helper()
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatalf("consume: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(ctxOf(t)); err != nil {
			t.Errorf("consumer close: %v", err)
		}
	})
	return c
}

// receive collects exactly n jobs, which must come.
func receive(t *testing.T, c queue.Consumer, n int) []queue.Job {
	t.Helper()
	var all []queue.Job
	for len(all) < n {
		jobs, err := c.Receive(ctxOf(t), n-len(all))
		if err != nil {
			t.Fatalf("receive: %v (after %d of %d jobs)", err, len(all), n)
		}
		if len(jobs) < 1 || len(jobs) > n-len(all) {
			t.Fatalf("receive of %d returned %d jobs", n-len(all), len(jobs))
		}
		all = append(all, jobs...)
	}
	return all
}

func receiveOne(t *testing.T, c queue.Consumer) queue.Job {
	t.Helper()
	return receive(t, c, 1)[0]
}

// none checks that no job comes for a while. It cannot fail by being slow.
func none(t *testing.T, c queue.Consumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	jobs, err := c.Receive(ctx, 1)
	if err == nil {
		t.Fatalf("received job %s (%q), want none", jobs[0].ID(), jobs[0].Body())
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("receive: %v, want the context's end", err)
	}
}

func done(t *testing.T, jobs ...queue.Job) {
	t.Helper()
	for _, j := range jobs {
		if err := j.Done(ctxOf(t)); err != nil {
			t.Fatalf("done: %v", err)
		}
	}
}

func attempt(t *testing.T, j queue.Job, want int) {
	t.Helper()
	st, err := j.Stat(ctxOf(t))
	if err != nil {
		t.Fatalf("stat: %v", err)
	}
	if st.Attempt != want {
		t.Fatalf("attempt %d, want %d", st.Attempt, want)
	}
	if st.Age < 0 || st.Age > patience {
		t.Fatalf("age %v", st.Age)
	}
}

func bodies(jobs []queue.Job) []string {
	var out []string
	for _, j := range jobs {
		out = append(out, string(j.Body()))
	}
	slices.Sort(out)
	return out
}

// ledger counts the bodies that were finished.
type ledger struct {
	mu   sync.Mutex
	seen map[string]int
	ends map[string][]string // what Done said, and when
	lost map[string]bool     // Done said that the reservation was lost
	want int                 // bodies
}

func newLedger(want int) *ledger {
	return &ledger{
		seen: make(map[string]int), ends: make(map[string][]string), lost: make(map[string]bool), want: want,
	}
}

func (l *ledger) add(body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[string(body)]++
}

// wait waits for all bodies, and waitFor for k of them. A busy machine may take long for
// many: the patience is for each.
func (l *ledger) wait(t *testing.T) {
	t.Helper()
	l.waitFor(t, l.want)
}

func (l *ledger) waitFor(t *testing.T, k int) {
	t.Helper()
	last := 0
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		seen := len(l.seen)
		l.mu.Unlock()
		switch {
		case seen >= k:
			return
		case seen > last:
			last, end = seen, time.Now().Add(patience)
		case time.Now().After(end):
			t.Fatalf("%d of %d jobs done", seen, k)
		}
	}
}

// end enters what Done said of a job.
func (l *ledger) end(body []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[string(body)] = append(l.ends[string(body)], fmt.Sprintf("%s %v", time.Now().Format("15:04:05.000"), err))
	if errors.Is(err, queue.ErrLost) {
		l.lost[string(body)] = true
	}
}

// repeats tells of jobs that were run more than once though no reservation was
// said to be lost; "" when there are none.
func (l *ledger) repeats() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, text := 0, ""
	for body, k := range l.seen {
		if k < 2 || l.lost[body] {
			continue
		}
		if n++; n <= 10 {
			text += fmt.Sprintf("\n%q: %d times, done: %q", body, k, l.ends[body])
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d jobs were run more than once:%s", n, text)
}

// work receives up to n at a time and finishes each job, until ctx ends. Jobs
// are entered in the ledger when they have been finished.
func work(ctx context.Context, c queue.Consumer, n int, l *ledger) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		jobs, err := c.Receive(ctx, n)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, j := range jobs {
			wg.Go(func() {
				if j.Done(ctx) == nil {
					l.add(j.Body())
				}
			})
		}
	}
}

// putMany puts n jobs. Each has the suite's patience: a busy machine may take longer for all.
func putMany(t *testing.T, q queue.Queue, tube string, n int) {
	t.Helper()
	put := func(i int) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := q.Put(ctx, tube, fmt.Appendf(nil, "job %d", i), queue.PutOptions{})
		return err
	}
	errs := make(chan error, n)
	var wg sync.WaitGroup
	const putters = 16
	for w := range putters {
		wg.Go(func() {
			for i := w; i < n; i += putters {
				if err := put(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		t.Fatalf("put: %v", err)
	}
}
