package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thejerf/suture/v4"

	"propeller/apnsconn/apnstest"
	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

func newServer(t *testing.T) *beanstalktest.Server { return beanstalktest.Start(t) }

// flaky fails or panics each time it is served, until it has done so often enough.
type flaky struct {
	left   atomic.Int64
	panics bool
	secret string
	steady chan struct{}
}

func (f *flaky) String() string { return "app x worker 0" }

func (f *flaky) Serve(ctx context.Context) error {
	if f.left.Add(-1) >= 0 {
		if f.panics {
			panic("boom")
		}
		return errors.New("unforeseen")
	}
	close(f.steady)
	<-ctx.Done()
	return nil
}

// suture restarts what nobody foresaw, every event is logged, and no event
// prints a service's fields.
func TestTreeRestartsAndLogs(t *testing.T) {
	for _, panics := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			out := new(logBuffer)
			sup := suture.New("app x", suture.Spec{EventHook: eventHook(slog.New(slog.NewTextHandler(out, nil)))})
			f := &flaky{panics: panics, secret: "p8-secret", steady: make(chan struct{})}
			f.left.Store(8) // more than suture restarts without a pause
			sup.Add(&joinable{service: f})
			ctx, cancel := context.WithCancel(context.Background())
			done := sup.ServeBackground(ctx)
			begun := time.Now()
			<-f.steady
			if d := time.Since(begun); d < 15*time.Second {
				t.Errorf("eight failures within %v: restarts were not paused", d)
			}
			cancel()
			<-done
			want := []string{"app x worker 0", "restarts are paused", "restarts resume", "unforeseen"}
			if panics {
				want[3] = "boom"
			}
			for _, s := range want {
				if !out.contains(s) {
					t.Errorf("the log lacks %q", s)
				}
			}
			if out.contains("p8-secret") {
				t.Error("the log shows a service's fields")
			}
		})
	}
}

func TestEventHookKnowsEveryEvent(t *testing.T) {
	var b bytes.Buffer
	hook := eventHook(slog.New(slog.NewTextHandler(&b, nil)))
	for _, e := range []suture.Event{
		suture.EventServicePanic{ServiceName: "svc"}, suture.EventServiceTerminate{ServiceName: "svc", Err: nil},
		suture.EventBackoff{SupervisorName: "svc"}, suture.EventResume{SupervisorName: "svc"}, suture.EventStopTimeout{ServiceName: "svc"},
	} {
		b.Reset()
		hook(e)
		if s := b.String(); !strings.Contains(s, "svc") || strings.Contains(s, "unknown kind") {
			t.Errorf("%T: %q", e, s)
		}
	}
}

// joinable.wait returns only when the service has stopped.
func TestJoinableWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped atomic.Bool
		m := &joinable{service: slow{&stopped}}
		sup := suture.New("s", suture.Spec{})
		token := sup.Add(m)
		ctx, cancel := context.WithCancel(context.Background())
		done := sup.ServeBackground(ctx)
		synctest.Wait()
		if err := sup.Remove(token); err != nil {
			t.Fatal(err)
		}
		m.wait()
		if !stopped.Load() {
			t.Error("wait returned before the service had stopped")
		}
		cancel()
		<-done
	})
}

type slow struct{ stopped *atomic.Bool }

func (slow) String() string { return "slow" }
func (s slow) Serve(ctx context.Context) error {
	<-ctx.Done()
	time.Sleep(5 * time.Second)
	s.stopped.Store(true)
	return nil
}

// meetingQueue is a queue whose consumers close only when all of them are closing.
type meetingQueue struct {
	adminQueue
	made    *atomic.Int64
	missing *atomic.Int64
	all     chan struct{}
}

func (q meetingQueue) Consume(tube string) (queue.Consumer, error) {
	c, err := q.adminQueue.Consume(tube)
	q.made.Add(1)
	return meetingConsumer{c, q}, err
}

type meetingConsumer struct {
	queue.Consumer
	q meetingQueue
}

func (c meetingConsumer) Close(ctx context.Context) error {
	if c.q.missing.Add(-1) == 0 {
		close(c.q.all)
	}
	select {
	case <-c.q.all:
		return c.Consumer.Close(ctx)
	case <-ctx.Done():
		return errors.Join(ctx.Err(), c.Consumer.Close(context.Background()))
	}
}

// The apps stop at the same time, not one after the other.
func TestAllAppsStopAtOnce(t *testing.T) {
	const n = 30
	w := newWorld(t, apnstest.Options{})
	q := meetingQueue{made: new(atomic.Int64), missing: new(atomic.Int64), all: make(chan struct{})}
	q.missing.Store(n)
	w.wrap = func(real adminQueue) adminQueue {
		q.adminQueue = real
		return q
	}
	var apps strings.Builder
	for i := range n {
		fmt.Fprintf(&apps, "  - {topic: com.example.mock%d, server: mock}\n", i)
	}
	w.start(apps.String())
	w.until("all workers have their consumers", func() bool { return q.made.Load() == n })
	w.halt()
	select {
	case <-q.all:
	default:
		t.Errorf("%d of %d apps did not stop while the others did", q.missing.Load(), n)
	}
}
