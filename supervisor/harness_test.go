package supervisor

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
	"go.uber.org/goleak"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/jetstream/jetstreamtest"
	"propeller/queue/queueurl"
)

func TestMain(m *testing.M) {
	if jetstreamtest.Main() || beDaemon() {
		return
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // they wait more than they work
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of these tests: far above what a busy machine
// needs, so that only something stuck reaches it.
const patience = 2 * time.Minute

// world is a real beanstalkd, an APNs stand-in over real TLS, and between them
// the tree.
type world struct {
	t    *testing.T
	dir  string
	bs   *beanstalktest.Server
	more *beanstalktest.Server // a second queue server, if there is one
	apns *apnstest.Server
	log  *logBuffer
	sup  *Supervisor
	stop context.CancelFunc
	done chan error

	// What a test may set before start.
	queue  string                      // its URL, if not that of bs
	sleeps sleepTimes                  // if after is not 0
	files  int                         // that apps may open; 0: as many as usual
	period time.Duration               // of the watchdog, shorter than a configuration may say
	wrap   func(adminQueue) adminQueue // puts something between the tree and its queue
}

// adminQueue is all that a queue can do.
type adminQueue interface {
	queue.Queue
	queue.Admin
}

func newWorld(t *testing.T, o apnstest.Options, bo ...beanstalktest.Option) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), log: new(logBuffer)}
	w.bs = beanstalktest.Start(t, bo...)
	w.apns = apnstest.NewServer(o)
	t.Cleanup(w.apns.Close)
	w.write("ca.pem", w.apns.CACertPEM())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", w.log.String())
		}
	})
	return w
}

func (w *world) write(name string, data []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), data, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// cert writes a client certificate for topic, signed by the stand-in.
func (w *world) cert(topic string) {
	w.t.Helper()
	w.write(topic+".pem", w.apns.ClientCertPEM(topic))
}

// config reads a configuration of the apps given, as YAML under apps:.
func (w *world) config(apps string) *config.Config {
	w.t.Helper()
	urls := cmp.Or(w.queue, w.bs.URL())
	if w.more != nil {
		urls = "[" + urls + ", " + w.more.URL() + "]"
	}
	text := fmt.Sprintf("queue: %s\nshutdown_timeout: 20s\nlog: {pushes: all, level: debug}\ndefaults:\n  server: %s\n  ca_file: ca.pem\n  retry: {min: 1s, max: 2s}\napps:\n%s", urls, w.apns.URL, apps)
	cfg, err := config.Parse("test.yaml", []byte(text), config.Options{Dir: w.dir, Lenient: true})
	if err != nil {
		w.t.Fatalf("config:\n%v\n%s", err, text)
	}
	if w.period > 0 {
		cfg.Watchdog = w.period
	}
	return cfg
}

// app is an entry of apps:, with a certificate made for it.
func (w *world) app(topic string, keys ...string) string {
	w.cert(topic)
	return "  - {topic: " + topic + ", cert: " + topic + ".pem" + strings.Join(append([]string{""}, keys...), ", ") + "}\n"
}

// start runs the apps until the test ends.
func (w *world) start(apps string) {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	sup, err := New(w.config(apps), Options{Log: log, OpenQueue: func(u queueurl.URL) (queue.Queue, error) {
		q, err := openFleetQueue(u, log)
		if err != nil || w.wrap == nil {
			return q, err
		}
		return w.wrap(q.(adminQueue)), nil
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.sleeps.after != 0 {
		sup.sleep.sleepTimes = w.sleeps
	}
	if w.files != 0 {
		sup.sleep.limit = w.files
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.sup, w.stop, w.done = sup, cancel, make(chan error, 1)
	go func() { w.done <- sup.Serve(ctx) }()
	w.t.Cleanup(w.halt)
}

// halt stops the tree and waits for it; it may be called twice.
func (w *world) halt() {
	w.t.Helper()
	if w.stop == nil {
		return
	}
	w.stop()
	w.stop = nil
	select {
	case err := <-w.done:
		if err != nil {
			w.t.Errorf("Serve: %v", err)
		}
	case <-time.After(patience):
		w.t.Error("the tree did not stop")
	}
}

// put puts jobs in a tube through a plain client, not ours.
func (w *world) put(tube string, bodies ...string) {
	w.t.Helper()
	c := w.bs.Dial()
	defer c.Close()
	tb := gobeanstalk.NewTube(c, tube)
	for _, b := range bodies {
		if _, err := tb.Put([]byte(b), 1024, 0, time.Minute); err != nil {
			w.t.Fatalf("put: %v", err)
		}
	}
}

// putMany puts n jobs with tokens of their own, quickly.
func (w *world) putMany(tube string, n int) {
	w.t.Helper()
	c := w.bs.Dial()
	defer c.Close()
	tb := gobeanstalk.NewTube(c, tube)
	var wg sync.WaitGroup
	for part := range 16 {
		wg.Go(func() {
			for i := part; i < n; i += 16 {
				if _, err := tb.Put([]byte(jobBody(i)), 1024, 0, time.Minute); err != nil {
					w.t.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func token(i int) string { return fmt.Sprintf("%064x", i) }

func jobBody(i int) string { return fmt.Sprintf(`{"token":%q,"title":"push %d"}`, token(i), i) }

// until waits until cond holds.
func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("still not: %s", what)
		}
	}
}

// tube reads numbers of a tube's statistics, of one moment, and adds them up; 0
// for a tube that is gone.
func (w *world) tube(name string, keys ...string) int {
	w.t.Helper()
	c := w.bs.Dial()
	defer c.Close()
	stats, err := gobeanstalk.NewTube(c, name).Stats()
	if err != nil {
		return 0
	}
	sum := 0
	for _, key := range keys {
		var n int
		if _, err := fmt.Sscan(stats[key], &n); err != nil {
			w.t.Fatalf("tube %s: %s %q", name, key, stats[key])
		}
		sum += n
	}
	return sum
}

// empty waits until nothing is left of a tube's jobs.
func (w *world) empty(tube string) {
	w.t.Helper()
	w.until("tube "+tube+" empty", func() bool {
		return w.tube(tube, "current-jobs-ready", "current-jobs-reserved", "current-jobs-delayed") == 0
	})
}

// received counts the requests that the stand-in answered with 200, by token.
func (w *world) received() map[string]int {
	got := make(map[string]int)
	for _, r := range w.apns.Requests() {
		if r.Answer.Status == 200 && !r.Answer.Silence {
			got[r.Token]++
		}
	}
	return got
}

// eachOnce fails unless pushes 0…n-1 were delivered, each once.
func (w *world) eachOnce(n int) {
	w.t.Helper()
	got := w.received()
	for i := range n {
		if got[token(i)] != 1 {
			w.t.Fatalf("push %d delivered %d times; %d of %d tokens seen", i, got[token(i)], len(got), n)
		}
	}
	if len(got) != n {
		w.t.Errorf("%d tokens, want %d", len(got), n)
	}
}

func (w *world) status(topic string) AppStatus {
	w.t.Helper()
	for _, a := range w.sup.Status() {
		if a.Topic == topic {
			return a
		}
	}
	return AppStatus{}
}

func (w *world) ended(topic string, c apnsconn.Class) int64 {
	return w.status(topic).Counters.Ended(c)
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*logBuffer)(nil)

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 20_000 // of the end: enough to see why
	b := l.b.Bytes()
	return string(b[max(0, len(b)-most):])
}

func (l *logBuffer) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.b.Bytes(), []byte(s))
}
