package move

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queuetest"
)

// Every engine's jobs arrive at every other's as they were, as far as both keep it.
func TestMove(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		for _, to := range engines {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				t.Parallel()
				testMove(t, from, to)
			})
		}
	}
}

func testMove(t *testing.T, from, to engine) {
	src, dst := openTest(t, from.url(t)), openTest(t, to.url(t))
	bury(t, src, "buried", queue.PutOptions{Priority: 7})
	bury(t, src, "buried too", queue.PutOptions{})
	putMany(t, src, "ready ", 300, queue.PutOptions{Priority: 5})
	put(t, src, "urgent", queue.PutOptions{})
	put(t, src, "binary \x00\xff\r\n", queue.PutOptions{})
	put(t, src, "", queue.PutOptions{})
	putMany(t, src, "later ", 20, queue.PutOptions{Delay: time.Hour, Priority: 9})
	put(t, src, "much later", queue.PutOptions{Delay: 30 * 24 * time.Hour})
	soon := time.Now().Add(2 * time.Second)
	put(t, src, "soon", queue.PutOptions{Delay: 2 * time.Second})

	m := &Mover{From: src, To: dst, Refused: func(_, id string, why error) { t.Errorf("%s is refused: %v", id, why) }}
	mustMove(t, m)
	mustBeEmpty(t, src)
	if m.Moved() != 300+3+21+1+2 || m.Buried.Load() != 2 {
		t.Errorf("%d moved: %d ready, %d delayed, %d buried", m.Moved(), m.Ready.Load(), m.Delayed.Load(), m.Buried.Load())
	}

	eventually(t, "what was due soon is ready", func() bool {
		st, err := dst.TubeStats(ctxOf(t), tube)
		return err == nil && st.Delayed == 21
	})
	if time.Now().Before(soon) {
		t.Error("what was due soon is ready too early")
	}
	all := content(t, dst)
	if len(all) != 327 {
		t.Errorf("%d jobs arrived", len(all))
	}
	for body, j := range all {
		want := arrived{}
		switch {
		case strings.HasPrefix(body, "ready"):
			want.Priority = 5
		case strings.HasPrefix(body, "later"):
			want.Priority, want.Delay = 9, time.Hour
		case body == "much later":
			want.Delay = 30 * 24 * time.Hour
		case strings.HasPrefix(body, "buried"):
			want.Buried = true
			if want.Priority = 0; body == "buried" {
				want.Priority = 7
			}
		}
		if !from.priority || !to.priority {
			want.Priority = 0
		}
		early := want.Delay - j.Delay
		if j.Buried != want.Buried || j.Priority != want.Priority || early < -3*time.Second || early > patient {
			t.Errorf("%q arrived as %+v, want %+v", body, j, want)
		}
	}
}

// A job's age goes along where the engine has a place for it: ttl counts on.
func TestAge(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			src, dst := openTest(t, from.url(t)), openTest(t, engines[2].url(t))
			put(t, src, "ready", queue.PutOptions{})
			put(t, src, "later", queue.PutOptions{Delay: time.Hour})
			bury(t, src, "buried", queue.PutOptions{})
			time.Sleep(1100 * time.Millisecond) // beanstalkd counts in seconds
			mustMove(t, &Mover{From: src, To: dst})
			for body, j := range content(t, dst) {
				if j.Age < time.Second || j.Age > patient {
					t.Errorf("%s is %v old", body, j.Age)
				}
			}
		})
	}
}

// What the other queue does not take stays, as it was, and stops nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			src := openTest(t, from.url(t))
			dst := openTest(t, beanstalktest.Start(t, beanstalktest.WithArgs("-z", "100")).URL())
			large := string(bytes.Repeat([]byte("x"), 101))
			for i := range 3 {
				bury(t, src, fmt.Sprint("buried", i, large), queue.PutOptions{Priority: 3})
				bury(t, src, fmt.Sprint("buried", i), queue.PutOptions{})
			}
			for i := range 3 {
				put(t, src, fmt.Sprint("later", i, large), queue.PutOptions{Delay: time.Hour, Priority: 4})
				put(t, src, fmt.Sprint("later", i), queue.PutOptions{Delay: 2 * time.Hour})
				put(t, src, fmt.Sprint("ready", i, large), queue.PutOptions{Priority: 5})
				put(t, src, fmt.Sprint("ready", i), queue.PutOptions{})
			}
			var mu sync.Mutex
			var heard []string
			m := &Mover{From: src, To: dst, Refused: func(name, id string, why error) {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, id)
				if name != tube || !strings.Contains(why.Error(), "101 bytes") && !strings.Contains(why.Error(), "bytes are more than") {
					t.Errorf("%s %s: %v", name, id, why)
				}
			}}
			mustMove(t, m)
			slices.Sort(heard)
			if len(heard) != 9 || len(slices.Compact(heard)) != 9 || m.Moved() != 9 {
				t.Errorf("refused %q; moved %d", heard, m.Moved())
			}
			if got := content(t, dst); len(got) != 9 || strings.Contains(strings.Join(bodies(got), " "), "x") {
				t.Errorf("arrived: %q", bodies(got))
			}
			left := content(t, src)
			if len(left) != 9 {
				t.Errorf("stayed: %q", bodies(left))
			}
			for body, j := range left {
				want := map[bool]uint32{}
				want[true] = map[string]uint32{"b": 3, "l": 4, "r": 5}[body[:1]]
				if j.Buried != strings.HasPrefix(body, "buried") || (j.Delay > time.Minute) != strings.HasPrefix(body, "later") || j.Priority != want[from.priority] {
					t.Errorf("%.8s stayed as %v %v, priority %d", body, j.Buried, j.Delay, j.Priority)
				}
			}
		})
	}
}

// No more than some bodies of refused jobs are held. Those beyond come again
// later, and the run ends.
func TestRefusedBeyondBound(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			src := openTest(t, from.url(t))
			dst := openTest(t, beanstalktest.Start(t, beanstalktest.WithArgs("-z", "100")).URL())
			const large, small, size = 20, 5, 110
			putMany(t, src, strings.Repeat("x", size-2)+"-", large, queue.PutOptions{})
			putMany(t, src, "small", small, queue.PutOptions{})
			var refused atomic.Int64
			m := &Mover{From: src, To: dst, maxHeld: 4 * size, Refused: func(string, string, error) { refused.Add(1) }}
			mustMove(t, m)
			if n := refused.Load(); n != large || m.Moved() != small {
				t.Errorf("refused %d, moved %d", n, m.Moved())
			}
			st, err := src.TubeStats(ctxOf(t), tube)
			if err != nil || st.Ready+st.Delayed+st.Reserved != large || st.Delayed < large-4 {
				t.Errorf("left: %+v, %v", st, err)
			}
			if got := content(t, dst); len(got) != small {
				t.Errorf("arrived: %q", bodies(got))
			}
		})
	}
}

// A run that is told to stop leaves each job in one of the two.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			src, dst := openTest(t, from.url(t)), openTest(t, engines[0].url(t))
			const each = 200
			putMany(t, src, "later ", each, queue.PutOptions{Delay: time.Hour})
			putMany(t, src, "ready ", each, queue.PutOptions{})
			for _, after := range []int64{each / 2, each} {
				ctx, stop := context.WithCancel(ctxOf(t))
				m := &Mover{From: src, To: stopAfter{dst, after, new(atomic.Int64), stop}}
				if err := m.Tube(ctx, tube); !errors.Is(err, context.Canceled) {
					t.Fatalf("%v", err)
				}
				all := make(map[string]int)
				for _, q := range []Queue{src, dst} {
					for body := range content(t, q) {
						all[body]++
					}
				}
				for body, n := range all {
					if n != 1 {
						t.Errorf("%s is there %d times", body, n)
					}
				}
				if len(all) < each { // content takes the ready ones out
					t.Errorf("%d left of %d", len(all), each)
				}
				putMany(t, src, fmt.Sprint(after, " ready "), each, queue.PutOptions{})
			}
		})
	}
}

// stopAfter calls stop when so many jobs have come.
type stopAfter struct {
	queue.Queue
	after int64
	n     *atomic.Int64
	stop  func()
}

func (s stopAfter) Put(ctx context.Context, tube string, body []byte, o queue.PutOptions) (string, error) {
	if s.n.Add(1) == s.after {
		s.stop()
	}
	return s.Queue.Put(ctx, tube, body, o)
}

// An error of the other queue ends the run; what was reserved goes back.
func TestFails(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			src := openTest(t, from.url(t))
			for _, o := range []queue.PutOptions{{}, {Delay: time.Hour}} {
				putMany(t, src, fmt.Sprint(o.Delay, " "), 100, o)
				m := &Mover{From: src, To: failing{src}}
				if err := m.Tube(ctxOf(t), tube); !errors.Is(err, errStop) {
					t.Fatalf("%v", err)
				}
				if got := content(t, src); len(got) != 100 {
					t.Errorf("%d jobs are left", len(got))
				}
			}
		})
	}
}

type failing struct{ queue.Queue }

func (failing) Put(context.Context, string, []byte, queue.PutOptions) (string, error) {
	return "", errStop
}

// Jobs in somebody's hands are not taken away.
func TestHeld(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			src, dst := openTest(t, from.url(t)), openTest(t, engines[0].url(t))
			put(t, src, "held", queue.PutOptions{})
			c, err := src.Consume(tube)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(ctxOf(t))
			jobs, err := c.Receive(ctxOf(t), 1)
			if err != nil {
				t.Fatal(err)
			}
			// A daemon that has room asks for more.
			ctx, stop := context.WithCancel(ctxOf(t))
			var asking sync.WaitGroup
			defer asking.Wait()
			defer stop()
			asking.Go(func() { _, _ = c.Receive(ctx, 1) })

			m := &Mover{From: src, To: dst, patience: 2 * time.Second}
			err = m.Tube(ctxOf(t), tube)
			if held, ok := errors.AsType[*LeftError](err); !ok || held.Jobs != 1 || held.Tube != tube || m.Moved() != 0 || m.Waits() != `1 job of tube "com.example.app", 1 of them reserved by others` {
				t.Errorf("%v; waits for %q", err, m.Waits())
			}
			if err := jobs[0].Done(ctxOf(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A tube that an operator has paused serves nothing: that is said.
func TestPaused(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	src, dst := openTest(t, srv.URL()), openTest(t, engines[0].url(t))
	put(t, src, "x", queue.PutOptions{})
	if err := gobeanstalk.NewTube(srv.Dial(), tube).Pause(time.Hour); err != nil {
		t.Fatal(err)
	}
	m := &Mover{From: src, To: dst, patience: time.Second}
	if err := m.Tube(ctxOf(t), tube); err == nil || !strings.Contains(err.Error(), "has 1 job and is paused") || !strings.Contains(m.Waits(), "1 job of tube") {
		t.Errorf("%v; waits for %q", err, m.Waits())
	}
}

// A job that waits for another try waits on, where the engine can tell for how
// long, and else is ready.
func TestRetriesThatWait(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			src, dst := openTest(t, from.url(t)), openTest(t, engines[0].url(t))
			put(t, src, "again", queue.PutOptions{})
			c, err := src.Consume(tube)
			if err != nil {
				t.Fatal(err)
			}
			jobs, err := c.Receive(ctxOf(t), 1)
			if err == nil {
				err = jobs[0].Retry(ctxOf(t), time.Hour)
			}
			if err = errors.Join(err, c.Close(ctxOf(t))); err != nil {
				t.Fatal(err)
			}
			mustMove(t, &Mover{From: src, To: dst})
			mustBeEmpty(t, src)
			got, ok := content(t, dst)["again"]
			if waits := got.Delay > time.Minute; !ok || waits != from.priority { // beanstalkd has both
				t.Errorf("arrived: %v, %+v", ok, got)
			}
		})
	}
}

// A kicked job would be buried again in a queue that does not know of the kick: it arrives
// with the body that Kicked returns.
func TestKicked(t *testing.T) {
	t.Parallel()
	for _, from := range engines {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			src, dst := openTest(t, from.url(t)), openTest(t, engines[0].url(t))
			bury(t, src, "kicked", queue.PutOptions{})
			put(t, src, "plain", queue.PutOptions{})
			jobs, err := queuetest.Buried(ctxOf(t), src, tube, 1)
			if err == nil {
				err = src.Kick(ctxOf(t), tube, jobs[0].ID)
			}
			if err != nil {
				t.Fatal(err)
			}
			mustMove(t, &Mover{From: src, To: dst, Kicked: func(body []byte) []byte { return append(body, " and free"...) }})
			if got := bodies(content(t, dst)); !slices.Equal(got, []string{"kicked and free", "plain"}) {
				t.Errorf("%q", got)
			}
		})
	}
}
