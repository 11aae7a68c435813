package feedback

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // they wait more than they work
	goleak.VerifyTestMain(m)
}

const (
	// patience bounds waits for what must happen; only a failing test reaches it.
	patience = 60 * time.Second

	testTube   = "com.example.app.feedback"
	testSecret = "0123456789abcdef-secret"
)

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until waits for cond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// openQueue opens a queue on srv that is closed with the test.
func openQueue(t *testing.T, srv *beanstalktest.Server) queue.Queue {
	t.Helper()
	q, err := beanstalk.Open(beanstalk.Options{Addrs: []string{srv.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// tubeStats are the numbers of the feedback tube.
func tubeStats(t *testing.T, q queue.Queue) queue.TubeStats {
	t.Helper()
	s, err := q.(queue.Admin).TubeStats(ctxOf(t), testTube)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testToken is the device token of record i.
func testToken(i int) string {
	return strings.Repeat("ab", 30) + strconv.FormatInt(0x1000+int64(i%7), 16)
}

// testRecord is record i of a test; its ref is i. Several have the same token.
func testRecord(i int) Record {
	return Record{
		Topic: "com.example.app", Token: testToken(i), Class: "token", Status: 410, Reason: "Unregistered",
		Since: 1750000000, Ref: strconv.Itoa(i), Job: strconv.Itoa(1000 + i),
		At: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
	}
}

// putRecords puts the records from up to below to, in order.
func putRecords(t *testing.T, q queue.Queue, from, to int) {
	t.Helper()
	write := Writer(q, testTube)
	for i := from; i < to; i++ {
		if err := write(ctxOf(t), testRecord(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// logs collects what is logged, from debug up.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logs) count(s string) int { return strings.Count(l.String(), s) }

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
