package worker

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/queue"
	"propeller/worker/job"
)

// fastConn takes every push, in batches, as the real one does.
type fastConn struct {
	onChange func()
	mu       sync.Mutex
	work     sync.Cond
	pending  []func(apnsconn.Outcome)
	closed   bool
	done     chan struct{}
}

func newFastConn(onChange func()) *fastConn {
	c := &fastConn{onChange: onChange, done: make(chan struct{})}
	c.work.L = &c.mu
	go c.run()
	return c
}

func (c *fastConn) run() {
	defer close(c.done)
	var batch []func(apnsconn.Outcome)
	for {
		c.mu.Lock()
		for len(c.pending) == 0 && !c.closed {
			c.work.Wait()
		}
		if c.closed {
			c.mu.Unlock()
			return
		}
		batch, c.pending = c.pending, batch[:0]
		c.mu.Unlock()
		for _, done := range batch {
			done(apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200})
		}
		c.onChange()
	}
}

func (c *fastConn) Send(_ *apnsconn.Notification, done func(apnsconn.Outcome)) {
	c.mu.Lock()
	c.pending = append(c.pending, done)
	c.mu.Unlock()
	c.work.Signal()
}
func (c *fastConn) Free() int                   { return 1000 }
func (c *fastConn) Streams() (int, int)         { return 0, 1000 }
func (c *fastConn) Usable() bool                { return true }
func (c *fastConn) Drain(context.Context) error { return c.Close() }
func (c *fastConn) Done() <-chan struct{}       { return c.done }
func (c *fastConn) Err() error                  { return apnsconn.ErrClosed }
func (c *fastConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.work.Signal()
	<-c.done
	return nil
}

// endless has as many jobs of one body as are wanted.
type endless struct {
	body []byte
	left atomic.Int64
	done atomic.Int64
	all  chan struct{}
}

func (e *endless) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	var out []queue.Job
	for len(out) < n && e.left.Add(-1) >= 0 {
		out = append(out, e)
	}
	if len(out) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return out, nil
}
func (e *endless) Pause()                                     {}
func (e *endless) Err() error                                 { return nil }
func (e *endless) Close(context.Context) error                { return nil }
func (e *endless) ID() string                                 { return "12345" }
func (e *endless) Body() []byte                               { return e.body }
func (e *endless) Stat(context.Context) (queue.Stat, error)   { return queue.Stat{}, nil }
func (e *endless) Retry(context.Context, time.Duration) error { return nil }
func (e *endless) Bury(context.Context, []byte) error         { return nil }
func (e *endless) Touch(context.Context) error                { return nil }
func (e *endless) Done(context.Context) error {
	if e.done.Add(-1) == 0 {
		close(e.all)
	}
	return nil
}

type endlessQueue struct {
	queue.Queue
	*endless
}

func (q endlessQueue) Consume(string) (queue.Consumer, error) { return q.endless, nil }
func (q endlessQueue) Close() error                           { return nil }

func manyTokens(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = hex.EncodeToString(fmt.Appendf(nil, "%032d", i))
	}
	return tokens
}

func fanOutText(tokens []string, extra string) string {
	return `{"tokens":["` + strings.Join(tokens, `","`) + `"],"title":"t"` + extra + `}`
}

// BenchmarkPush is the cost of one push in the worker, without queue and network.
func BenchmarkPush(b *testing.B) {
	benchmarkPush(b, func(_ context.Context, onChange func()) (Conn, error) { return newFastConn(onChange), nil })
}

// BenchmarkPushOnTheWire is the same over TLS and HTTP/2 to the stand-in for
// APNs, whose cost is in it.
func BenchmarkPushOnTheWire(b *testing.B) {
	s := apnstest.NewServer(apnstest.Options{AllowAnonymous: true, Record: -1})
	defer s.Close()
	benchmarkPush(b, func(ctx context.Context, onChange func()) (Conn, error) {
		return apnsconn.Dial(ctx, apnsconn.Config{Addr: s.Addr, RootCAs: s.CertPool(), InFlight: 1000, OnChange: onChange})
	})
}

func benchmarkPush(b *testing.B, dial Dial) {
	for _, tt := range []struct {
		name   string
		body   string
		perJob int
	}{{"single", jobText(""), 1}, {"fanout-500", fanOutText(manyTokens(500), ""), 500}} {
		b.Run(tt.name, func(b *testing.B) {
			jobs := (b.N + tt.perJob - 1) / tt.perJob
			e := &endless{body: []byte(tt.body), all: make(chan struct{})}
			e.left.Store(int64(jobs))
			e.done.Store(int64(jobs))
			live := new(Live)
			live.Drain.Store(int64(time.Minute))
			w := NewApp(Config{
				Rules: job.Rules{Topic: topic}, Tube: "t", InFlight: 1000, Queue: endlessQueue{nil, e},
				Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Live: live, Dial: dial,
			}, new(Totals), nil).NewWorker(0)
			ctx, cancel := context.WithCancel(context.Background())
			served := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { served <- w.Serve(ctx) }()
			<-e.all
			b.StopTimer()
			cancel()
			if err := <-served; err != nil {
				b.Error(err)
			}
		})
	}
}
