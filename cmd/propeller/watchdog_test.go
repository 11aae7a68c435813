package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"propeller/config"
	"propeller/httpapi"
	"propeller/supervisor"
	"propeller/worker"
)

// fakeTree is a tree whose end and locks the test has in its hands.
type fakeTree struct {
	serving chan struct{}
	failed  chan error
	lock    chan struct{} // held by Status; no Mutex, on which a bubble's clock would not run

	renewing atomic.Pointer[chan struct{}] // not nil: Renew waits for it
}

func newFakeTree() *fakeTree {
	return &fakeTree{serving: make(chan struct{}), failed: make(chan error, 1), lock: make(chan struct{}, 1)}
}

func (f *fakeTree) Serve(ctx context.Context) error {
	close(f.serving)
	select {
	case <-ctx.Done():
		return nil
	case err := <-f.failed:
		return err
	}
}

func (f *fakeTree) Started() <-chan struct{} { return f.serving }

func (f *fakeTree) Apply(*config.Config) error { return nil }

func (f *fakeTree) Renew() {
	if until := f.renewing.Load(); until != nil {
		<-*until
	}
}

func (f *fakeTree) Status() []supervisor.AppStatus {
	f.lock <- struct{}{}
	defer func() { <-f.lock }()
	return make([]supervisor.AppStatus, 2)
}

// bubble is a daemon on a fake tree inside a synctest bubble, which fails the
// test if a goroutine of the daemon is left at the end.
type bubble struct {
	*daemon
	tree   *fakeTree
	hup    chan os.Signal
	stops  chan os.Signal
	log    strings.Builder
	sent   []string // under notify.mu
	result chan error
}

func newBubble(watchdog time.Duration) *bubble {
	b := &bubble{tree: newFakeTree(), result: make(chan error, 1)}
	b.hup, b.stops = makeSignals()
	log := slog.New(slog.NewTextHandler(&b.log, nil))
	b.daemon = &daemon{
		load:  func() (*config.Config, error) { return &config.Config{ShutdownTimeout: time.Minute}, nil },
		level: new(slog.LevelVar), log: log, hups: b.hup, stops: b.stops,
		notify: &notifier{watchdog: watchdog, log: log, send: func(s string) error { b.sent = append(b.sent, s); return nil }},
	}
	go func() { b.result <- b.serve(&config.Config{ShutdownTimeout: time.Minute}, b.tree) }()
	return b
}

// took is what has been sent since it was called last.
func (b *bubble) took() []string {
	b.notify.mu.Lock()
	defer b.notify.mu.Unlock()
	out := b.sent
	b.sent = nil
	return out
}

func (b *bubble) pings() int {
	return strings.Count(strings.Join(b.took(), "\n"), "WATCHDOG=1")
}

// after lets d go by.
func after(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

// A tree that ends though nobody asked it to is a failure, with its reason or
// without.
func TestTreeGivesUp(t *testing.T) {
	for _, reason := range []error{errors.New("no more"), nil} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(0)
			synctest.Wait()
			b.took()
			b.tree.failed <- reason
			err := <-b.result
			want := "the supervision tree gave up"
			if reason != nil {
				want += ": no more"
			}
			if err == nil || err.Error() != want || reason != nil && !errors.Is(err, reason) {
				t.Fatalf("%v, want %s", err, want)
			}
			if !strings.Contains(b.log.String(), "level=ERROR") || !strings.Contains(b.log.String(), want) {
				t.Errorf("log %q", b.log.String())
			}
			if sent := b.took(); len(sent) != 1 || !strings.HasPrefix(sent[0], "STOPPING=1\n") || !strings.HasSuffix(sent[0], "STATUS="+want) {
				t.Errorf("sent %q", sent)
			}
		})
	}
}

func TestTreeEndsAsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(0)
		synctest.Wait()
		b.stops <- syscall.SIGTERM
		if err := <-b.result; err != nil {
			t.Error(err)
		}
	})
}

// READY=1 is not sent before the tree runs.
func TestReadyWhenTheTreeRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		d := &daemon{log: slog.New(slog.DiscardHandler), notify: &notifier{send: func(s string) error { sent = append(sent, s); return nil }}}
		tree := newFakeTree()
		ctx, stop := context.WithCancel(t.Context())
		go d.reload(ctx, tree)
		after(time.Hour)
		if len(sent) > 0 {
			t.Fatalf("sent %q before", sent)
		}
		close(tree.serving)
		synctest.Wait()
		if len(sent) != 1 || sent[0] != "READY=1\nSTATUS=2 apps" {
			t.Errorf("sent %q", sent)
		}
		stop()
		synctest.Wait()
	})
}

// Two pings within each period of the watchdog, and none as soon as a lock in
// the tree is stuck; signals are heeded all the same.
func TestStuckLockEndsThePings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(30 * time.Second)
		after(5 * time.Minute)
		if n := b.pings(); n != 20 {
			t.Errorf("%d pings in 5 minutes, want 20", n)
		}
		b.tree.lock <- struct{}{}
		after(5 * time.Minute)
		if n := b.pings(); n != 0 {
			t.Errorf("%d pings with a stuck lock", n)
		}
		b.stops <- syscall.SIGTERM
		if err := <-b.result; err != nil {
			t.Error(err)
		}
		if !strings.Contains(b.log.String(), "stuck; exiting") {
			t.Errorf("log %q", b.log.String())
		}
		<-b.tree.lock
	})
}

// Nor is there a ping when the main loop does not turn.
func TestStuckLoopEndsThePings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{log: slog.New(slog.DiscardHandler), statuses: make(chan string)}
		sent := 0
		d.notify = &notifier{watchdog: time.Second, send: func(string) error { sent++; return nil }}
		ctx, stop := context.WithCancel(t.Context())
		go d.watchdogPing(ctx, newFakeTree()) // and nobody who receives from statuses
		after(time.Hour)
		if sent > 0 {
			t.Errorf("%d messages", sent)
		}
		stop()
		synctest.Wait()
	})
}

// Without a watchdog only changes of the status are sent.
func TestStatusWithoutWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(0)
		after(time.Hour)
		if sent := b.took(); len(sent) != 1 || sent[0] != "READY=1\nSTATUS=2 apps" {
			t.Errorf("sent %q", sent)
		}
		b.mu.Lock()
		b.refused = &httpapi.RefusedReload{Fault: "changed"}
		b.mu.Unlock()
		after(statusEvery)
		if sent := b.took(); len(sent) != 1 || sent[0] != "STATUS=2 apps; reload refused, nothing is changed: changed" {
			t.Errorf("sent %q", sent)
		}
		b.stops <- syscall.SIGTERM
		<-b.result
	})
}

func TestStatusLine(t *testing.T) {
	t.Parallel()
	app := func(topic string, state supervisor.State, reason string) supervisor.AppStatus {
		return supervisor.AppStatus{Name: topic, Topic: topic, Health: supervisor.Health{State: state, Reason: reason}}
	}
	var many []supervisor.AppStatus
	for i := range 8 {
		many = append(many, app(fmt.Sprint("t", i), supervisor.Broken, "r"))
	}
	tests := []struct {
		apps []supervisor.AppStatus
		want string
	}{
		{nil, "0 apps"},
		{[]supervisor.AppStatus{app("a", supervisor.Running, "")}, "1 app"},
		{[]supervisor.AppStatus{app("a", supervisor.NoQueue, "q"), app("b", supervisor.Paused, "by order"), app("c", supervisor.Broken, "403 X")},
			"3 apps; 1 broken: c (403 X); 1 no queue: a (q)"},
		{[]supervisor.AppStatus{app("a", supervisor.Failing, "f"), app("b", supervisor.Unreachable, "u"), app("c", supervisor.Stalled, "worker 0: x"), app("d", supervisor.Guarded, "wrong environment?")},
			"4 apps; 1 guarded: d (wrong environment?); 1 stalled: c (worker 0: x); 1 unreachable: b (u); 1 failing: a (f)"},
		{[]supervisor.AppStatus{{Name: "a", Topic: "a", Health: supervisor.Health{State: supervisor.Running}, CredentialFault: "cert: expired", Workers: make([]worker.Status, 1)}, {Name: "b", Topic: "b", Health: supervisor.Health{State: supervisor.Broken, Reason: "key: gone"}, CredentialFault: "key: gone"}},
			"2 apps; 1 broken: b (key: gone); 1 with a new credential that cannot be used: a (cert: expired)"},
		{many, "8 apps; 8 broken: t0 (r), t1 (r), t2 (r), t3 (r), t4 (r) and 3 more"},
	}
	for _, test := range tests {
		if got := statusLine(test.apps); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// What is stuck at the end, in the file system of state_dir say, ends with the
// process, and all such waits together take no longer than one.
func TestStuckEndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		logger := slog.New(slog.NewTextHandler(&log, nil))
		d := &daemon{log: logger, web: new(web), state: &state{log: logger}}
		var background, reaper sync.WaitGroup
		reaper.Add(1)
		background.Add(1)
		begun := time.Now()
		d.within("a goroutine", background.Wait)
		d.leave(func() {}, &reaper)
		if took := time.Since(begun); took > overrun+lastWait {
			t.Errorf("took %v", took)
		}
		if n := strings.Count(log.String(), "stuck; exiting"); n != 2 {
			t.Errorf("%d said to be stuck: %s", n, log.String())
		}
		background.Done()
		reaper.Done()
		synctest.Wait()
	})
}
