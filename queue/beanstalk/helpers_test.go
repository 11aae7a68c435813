package beanstalk

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// patience bounds waits for what must happen; only a failing test reaches it.
const patience = 60 * time.Second

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// openTest opens a queue that is closed with the test, after its consumers.
func openTest(t *testing.T, o Options) *client {
	t.Helper()
	q, err := open(o, dialTCP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func consumeTest(t *testing.T, q *client, tube string) *consumer {
	t.Helper()
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c.(*consumer)
}

func mustPut(t *testing.T, q queue.Queue, tube, body string) string {
	t.Helper()
	id, err := q.Put(ctxOf(t), tube, []byte(body), queue.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustReceive(t *testing.T, c queue.Consumer, n int) []queue.Job {
	t.Helper()
	var all []queue.Job
	for len(all) < n {
		jobs, err := c.Receive(ctxOf(t), n-len(all))
		if err != nil {
			t.Fatalf("receive: %v (have %d of %d)", err, len(all), n)
		}
		all = append(all, jobs...)
	}
	return all
}

func mustDone(t *testing.T, jobs ...queue.Job) {
	t.Helper()
	for _, j := range jobs {
		if err := j.Done(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// mustNone checks that no job comes for a while.
func mustNone(t *testing.T, c queue.Consumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if jobs, err := c.Receive(ctx, 1); err == nil {
		t.Fatalf("received %s %q, want none", jobs[0].ID(), jobs[0].Body())
	}
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// cut breaks the connection of c's first loop as a network would.
func (c *consumer) cut() {
	loop := c.loops[0]
	loop.srv.mu.Lock()
	s := loop.sess
	loop.srv.mu.Unlock()
	s.nc.Close()
}

// logLines collects a log.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLog() (*slog.Logger, *logLines) {
	var l logLines
	return slog.New(slog.NewTextHandler(io.Writer(&l), nil)), &l
}
