package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker/feedback"
)

type cons struct {
	consumerOf
	recv  func(ctx context.Context, n int) ([]queue.Job, error)
	close func(ctx context.Context) error
	pause func()
}

func (c cons) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	if c.recv != nil {
		return c.recv(ctx, n)
	}
	return c.consumerOf.Receive(ctx, n)
}
func (c cons) Close(ctx context.Context) error {
	if c.close != nil {
		return c.close(ctx)
	}
	return c.consumerOf.Close(ctx)
}
func (c cons) Pause() {
	if c.pause != nil {
		c.pause()
	}
	c.consumerOf.Pause()
}

func closing(q *fakeQueue) pq {
	return pq{played{q}, func() queue.Consumer {
		ctx, cancel := context.WithCancel(context.Background())
		return cons{consumerOf: consumerOf{q}, close: func(context.Context) error { cancel(); return nil },
			recv: func(c context.Context, n int) ([]queue.Job, error) {
				c2, stop := context.WithCancel(c)
				defer stop()
				defer context.AfterFunc(ctx, stop)()
				return q.Receive(c2, n)
			}}
	}}
}

type pq struct {
	played
	c func() queue.Consumer
}

func (p pq) Consume(string) (queue.Consumer, error) { return p.c(), nil }

// pass lets time pass, with everything that follows from it.
func pass(ms time.Duration) { time.Sleep(ms); synctest.Wait() }

// A Receive that panics ends the worker, and suture starts it again.
func TestReceivePanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		b.cfg.Queue = pq{played{q}, func() queue.Consumer {
			return cons{consumerOf: consumerOf{q}, recv: func(context.Context, int) ([]queue.Job, error) { panic("boom") }}
		}}
		b.start()
		time.Sleep(time.Minute)
		select {
		case <-b.served:
			return
		default:
		}
		t.Errorf("Serve goes on for ever: %+v", b.Status().Cause)
		r := b.cur.Load()
		r.box.post(func() { r.receiving = false })
		<-b.served
	})
}

func listOf(extra string, n int) string {
	var toks []string
	for i := range n {
		toks = append(toks, fmt.Sprintf(`"%064x"`, i+1))
	}
	return `{"tokens":[` + strings.Join(toks, ",") + `],"title":"t"` + extra + `}`
}

// A push in doubt that is given up while the guard still holds its answer is counted once.
func TestDoubtedGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(listOf(`,"ttl":50`, 2))
		b := newBench(t, q)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if strings.HasSuffix(n.Token, "2") {
				return apnsconn.Outcome{Class: apnsconn.Token, Status: 400, Reason: "BadDeviceToken"}, 100 * time.Millisecond
			}
			return delivered(n)
		}
		b.start()
		pass(2 * time.Second)
		pass(2 * time.Minute)
		s := b.Status()
		if s.PendingAnswers != 0 {
			t.Errorf("guarded %d", s.PendingAnswers)
		}
		b.halt(t)
	})
}

// However long the queue takes to settle, every slot is freed exactly once.
func TestSlotsDoNotDrift(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		b.cfg.InFlight = 2
		q.statTakes = 5 * time.Second
		b.cfg.Queue = pq{played{q}, func() queue.Consumer { return slowCons{consumerOf{q}} }}
		for range 2 {
			q.add(jobText(""))
		}
		for range 2 {
			q.add(jobText(`,"ttl":3600`))
		}
		b.start()
		pass(5 * time.Minute)
		s := b.Status()
		if s.Reserved == 0 && (s.InFlight != 0 || s.Lingering != 0) {
			t.Errorf("drift: in flight %d lingering %d", s.InFlight, s.Lingering)
		}
		b.halt(t)
	})
}

type slowCons struct{ consumerOf }

func (c slowCons) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	jobs, err := c.consumerOf.Receive(ctx, n)
	for i := range jobs {
		jobs[i] = slowDone{jobs[i]}
	}
	return jobs, err
}

type slowDone struct{ queue.Job }

func (j slowDone) Done(ctx context.Context) error {
	time.Sleep(map[string]time.Duration{"1": 100, "2": 100, "3": 150, "4": 200}[j.ID()] * time.Second)
	return j.Job.Done(ctx)
}

type badSink struct{ on Action }

func (s badSink) Pushed(e *Event) {
	if e.Action == s.on {
		panic("sink")
	}
}

// A sink that panics disturbs no job.
func TestSinkPanics(t *testing.T) {
	for _, a := range []Action{Tried, Deleted, Buried, Resent, Retried} {
		t.Run(string(a), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(jobText(""))
				b := newBench(t, q)
				b.cfg.Sinks = []Sink{badSink{a}}
				b.cfg.Queue = closing(q)
				if a != Deleted {
					b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
						return apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 500}, 0
					}
				}
				b.Worker = b.newWorker()
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan any, 1)
				go func() {
					defer func() { done <- recover() }()
					b.Serve(ctx)
				}()
				pass(10 * time.Second)
				select {
				case v := <-done:
					t.Errorf("Serve panicked: %.60v; queue log %v, sent %d, dup %d", v, q.log, b.sent(), b.app.Counters.PossibleDuplicates.Load())
				default:
				}
				cancel()
				pass(time.Minute)
			})
		})
	}
}

// A worker that ends by a panic leaves no answer with the guard.
func TestGuardForgetsALostWorker(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Token, Status: 400, Reason: "BadDeviceToken"}, 0
		}
		b.cfg.Queue = closing(q)
		b.Worker = b.newWorker()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan any, 1)
		go func() {
			defer func() { done <- recover() }()
			b.Serve(ctx)
		}()
		pass(time.Second)
		r := b.cur.Load()
		r.box.post(func() { panic("any") })
		<-done
		if b.app.guard.pending != 0 {
			t.Errorf("guard holds %d for ever", b.app.guard.pending)
		}
	})
}

// The consumer is paused at the end, even if Pause came before a Receive had begun.
func TestPauseComesLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		var paused atomic.Bool
		b.cfg.Queue = pq{played{q}, func() queue.Consumer {
			return cons{consumerOf: consumerOf{q}, pause: func() { paused.Store(true) }, recv: func(ctx context.Context, n int) ([]queue.Job, error) {
				time.Sleep(time.Millisecond) // the goroutine starts late
				paused.Store(false)          // as the adapters do first
				<-ctx.Done()
				return nil, ctx.Err()
			}}
		}}
		b.start()
		synctest.Wait()
		b.app.Pause("x")
		pass(10 * time.Minute)
		if !paused.Load() {
			t.Error("the app is held and the consumer is not paused")
		}
		b.halt(t)
	})
}

// Pushes that a stop takes back from its own connection do not make APNs unreachable.
func TestStopIsNoStandstill(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		var buf syncBuf
		b.cfg.Log = newTextLog(&buf)
		b.cfg.Dial = func(ctx context.Context, f func()) (Conn, error) {
			return &notSentConn{ended: make(chan struct{})}, nil
		}
		b.start()
		pass(5 * time.Second)
		b.halt(t)
		if strings.Contains(buf.String(), "takes no pushes") {
			t.Error(buf.String())
		}
	})
}

type syncBuf struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuf) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *syncBuf) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// notSentConn sends nothing until it is closed, and then gives all pushes back unsent.
type notSentConn struct {
	mu    sync.Mutex
	open  []func(apnsconn.Outcome)
	ended chan struct{}
}

func (c *notSentConn) Send(n *apnsconn.Notification, done func(apnsconn.Outcome)) {
	c.mu.Lock()
	c.open = append(c.open, done)
	c.mu.Unlock()
}
func (c *notSentConn) Free() int                   { return 1 }
func (c *notSentConn) Streams() (int, int)         { return 0, 1 }
func (c *notSentConn) Drain(context.Context) error { <-c.ended; return nil }
func (c *notSentConn) Usable() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}
func (c *notSentConn) Close() error {
	for _, d := range c.open {
		d(apnsconn.Outcome{Class: apnsconn.NotSent, Err: apnsconn.ErrClosed})
	}
	close(c.ended)
	return nil
}
func (c *notSentConn) Done() <-chan struct{} { return c.ended }
func (c *notSentConn) Err() error            { return apnsconn.ErrClosed }

// Records that make a settler panic twice do not end the process.
func TestFeedbackPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(`{"x":1}`)
		b := newBench(t, q)
		b.cfg.Feedback = func(context.Context, feedback.Record) error { panic("feedback") }
		b.start()
		pass(time.Minute)
		b.halt(t)
	})
}

type fifthPanics struct {
	Conn
	n int
}

func (c *fifthPanics) Send(n *apnsconn.Notification, done func(apnsconn.Outcome)) {
	if c.n++; c.n == 5 {
		panic("send")
	}
	c.Conn.Send(n, done)
}

// A list is settled once after one of its Sends panicked.
func TestSendPanicsThenStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(listOf("", 60))
		b := newBench(t, q)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if strings.HasSuffix(n.Token, "01") {
				return delivered(n)
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Hour
		}
		b.cfg.Dial = func(ctx context.Context, f func()) (Conn, error) {
			c, err := b.dial(ctx, f)
			return &fifthPanics{Conn: c}, err
		}
		b.start()
		pass(time.Second)
		r := b.cur.Load()
		var tk *task
		r.box.post(func() {
			for t := range r.lists {
				tk = t
			}
		})
		synctest.Wait()
		b.stop()
		pass(20 * time.Second)
		if tk.open != 0 {
			t.Errorf("open %d", tk.open)
		}
	})
}

// evSink remembers the events it got.
type evSink struct {
	mu sync.Mutex
	ev []string
}

func (s *evSink) Pushed(e *Event) {
	s.mu.Lock()
	s.ev = append(s.ev, fmt.Sprintf("%s %s n=%d", e.Action, e.Class, e.N))
	s.mu.Unlock()
}

// A job that goes back untried has an event.
func TestGoingBackIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.setRefuse(errors.New("no route"))
		s := new(evSink)
		b.cfg.Sinks = []Sink{s}
		b.start()
		pass(500 * time.Millisecond)
		b.app.Pause("x")
		pass(time.Hour)
		if len(s.ev) < 2 {
			t.Error("the job went back an hour ago, and the last that was told of it is that it is being tried")
		}
		b.halt(t)
	})
}
