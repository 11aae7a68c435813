package jetstream

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/queueurl"
)

// patience bounds waits for what must happen; only a failing test reaches it.
const patience = 60 * time.Second

// embeddedIn is the URL of an embedded queue with an option, if one is given.
func embeddedIn(dir string, option ...string) queueurl.URL {
	u := queueurl.URL{Scheme: "embedded", Dir: dir}
	if len(option) == 2 {
		u.Options = map[string]string{option[0]: option[1]}
	}
	return u
}

// serversAt is the URL of a cluster.
func serversAt(addrs ...string) queueurl.URL { return queueurl.URL{Scheme: "nats", Servers: addrs} }

// with is o with some options, which are keys and values; "" removes one.
func (o Options) with(options ...string) Options {
	o.Options = maps.Clone(o.Options)
	if o.Options == nil {
		o.Options = map[string]string{}
	}
	for i := 0; i < len(options); i += 2 {
		o.Options[options[i]] = options[i+1]
	}
	return o
}

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// openTest opens a queue that is closed with the test, after its consumers.
func openTest(t testing.TB, o Options) *client {
	t.Helper()
	q, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return q
}

// openReady is openTest for servers that run. It waits until the queue is there:
// a busy machine may not make the streams in the time of one request, and until
// they are made puts are refused.
func openReady(t testing.TB, o Options) *client {
	t.Helper()
	q := openTest(t, o)
	awaitReady(t, q)
	return q
}

func awaitReady(t testing.TB, q *client) {
	t.Helper()
	eventually(t, "the queue is there", func() bool {
		_, err := q.link.get(ctxOf(t), untilTried)
		return err == nil
	})
}

func openEmbedded(t testing.TB) *client {
	t.Helper()
	return openTest(t, Options{URL: embeddedIn(t.TempDir())})
}

// closeNow ends a queue before its test ends.
func closeNow(t testing.TB, q *client) {
	t.Helper()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
}

// endNow is closeNow for a consumer.
func endNow(t testing.TB, c queue.Consumer) {
	t.Helper()
	if err := c.Close(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
}

func consumeTest(t testing.TB, q queue.Queue, tube string) *consumer {
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

func mustPut(t testing.TB, q queue.Queue, tube, body string) string {
	t.Helper()
	id, err := q.Put(ctxOf(t), tube, []byte(body), queue.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustReceive(t testing.TB, c queue.Consumer, n int) []queue.Job {
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

func mustDone(t testing.TB, jobs ...queue.Job) {
	t.Helper()
	for _, j := range jobs {
		if err := j.Done(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// mustNone checks that no job comes for a while.
func mustNone(t testing.TB, c queue.Consumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if jobs, err := c.Receive(ctx, 1); err == nil {
		t.Fatalf("received %s %q, want none", jobs[0].ID(), jobs[0].Body())
	}
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
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

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLog() (*slog.Logger, *logLines) {
	var l logLines
	return slog.New(slog.NewTextHandler(&l, nil)), &l
}
