package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/queue"
)

// The clock of these tests is synctest's: nothing waits.

// Reconnecting starts quickly, slows down, and goes on for ever.
func TestRedialBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration // written by the leader only
		began := time.Now()
		q, err := open(Options{Addrs: []string{"a:1"}}, func(context.Context, string) (net.Conn, error) {
			at = append(at, time.Since(began))
			return nil, errors.New("refused")
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := q.Consume("tube")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if err := c.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		q.Close()
		pause := minRedial
		for i := 1; i < len(at); i++ {
			gap := at[i] - at[i-1]
			if least, most := pause-pause/5, min(pause+pause/5, maxRedial); gap < least || gap > most {
				t.Fatalf("gap %d is %v, want %v to %v", i, gap, least, most)
			}
			pause = min(2*pause, maxRedial)
		}
		if n := len(at); n < 120 || n > 160 { // one every 4 to 5 s
			t.Fatalf("%d dials in 10 minutes", n)
		}
	})
}

// pipeTo dials a fake server inside the bubble. dials counts, if not nil.
func pipeTo(f *fake, dials *atomic.Int32) dialFunc {
	return func(context.Context, string) (net.Conn, error) {
		if dials != nil {
			dials.Add(1)
		}
		ours, theirs := net.Pipe()
		f.wg.Go(func() { f.serve(theirs) })
		return ours, nil
	}
}

// The watchdog gives every command its time, a waiting reserve its wait on top,
// and not much more.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		silentOn string
		after    time.Duration
	}{
		"watch":   {"watch", 10 * time.Second},
		"stats":   {"stats", 10 * time.Second},
		"reserve": {"reserve-with-timeout", 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{script: answers(map[string]string{tt.silentOn: silence})}
				var dials atomic.Int32
				q, err := open(Options{Addrs: []string{"a:1"}}, pipeTo(f, &dials))
				if err != nil {
					t.Fatal(err)
				}
				c, err := q.Consume("tube")
				if err != nil {
					t.Fatal(err)
				}
				go func() { _, _ = c.Receive(context.Background(), 1) }() // ended by Close
				time.Sleep(tt.after - time.Second/10)
				if dials.Load() != 1 {
					t.Fatalf("given up before %v", tt.after)
				}
				time.Sleep(2*watchTick + time.Second/10) // a tick, and the wait before the redial
				if n := dials.Load(); n != 2 {
					t.Fatalf("%d connections, want the second by now; err %v", n, c.Err())
				}
				if err := c.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				q.Close()
				f.wg.Wait()
			})
		})
	}
}

// Held jobs are touched in time, for as long as they are held.
func TestTouchRhythm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
		var at []time.Time
		f := &fake{}
		f.script = func(cmd []string) (string, bool) {
			if cmd[0] == "touch" {
				at = append(at, time.Now())
				return "TOUCHED", true
			}
			if cmd[0] == "delete" {
				return "DELETED", true
			}
			return reserve(cmd)
		}
		q, err := open(Options{Addrs: []string{"a:1"}}, pipeTo(f, nil))
		if err != nil {
			t.Fatal(err)
		}
		c, err := q.Consume("tube")
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := c.Receive(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		last := time.Now()
		time.Sleep(time.Minute)
		if err := jobs[0].Done(context.Background()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := c.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		q.Close()
		f.wg.Wait()
		if len(at) < 15 || len(at) > 20 {
			t.Fatalf("%d touches in the minute that the job was held", len(at))
		}
		for _, now := range at {
			if gap := now.Sub(last); gap > touchEvery {
				t.Fatalf("%v between touches", gap)
			}
			last = now
		}
	})
}

// After a restart with a binlog, a job with the same id, tube and body is still
// another one when it is younger than our reservation.
func TestAgeTellsJobsApart(t *testing.T) {
	t.Parallel()
	for age, want := range map[string]error{"age: 5": queue.ErrLost, "age: 12": nil} {
		synctest.Test(t, func(t *testing.T) {
			reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
			del := sequence("delete", hangUp, "DELETED")
			ids := sequence("stats", yaml("id: one", "binlog-current-index: 1"), yaml("id: two", "binlog-current-index: 1"))
			f := &fake{}
			f.script = func(cmd []string) (string, bool) {
				switch cmd[0] {
				case "touch":
					return "TOUCHED", true
				case "stats-job":
					return yaml("tube: tube", "pri: 1", "reserves: 1", "buries: 0", "kicks: 0", age), true
				case "peek":
					return "FOUND 7 2\r\nhi", true
				}
				for _, script := range []func([]string) (string, bool){reserve, del, ids} {
					if a, ok := script(cmd); ok {
						return a, ok
					}
				}
				return "", false
			}
			q, err := open(Options{Addrs: []string{"a:1"}}, pipeTo(f, nil))
			if err != nil {
				t.Fatal(err)
			}
			c, err := q.Consume("tube")
			if err != nil {
				t.Fatal(err)
			}
			jobs, err := c.Receive(context.Background(), 1)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if err := jobs[0].Done(context.Background()); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", age, err, want)
			}
			if err := c.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			q.Close()
			f.wg.Wait()
		})
	}
}

// After an outage, jobs that are lost are settled at once: nothing can show that one of our
// connections has them after all. New jobs are reserved behind that.
func TestLostJobsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	const n = 100
	for name, ids := range map[string][]string{
		"restarted without a binlog": {"one", "two"},
		"reserved by somebody else":  {"one", "one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var jobs []string
				for i := range n {
					jobs = append(jobs, fmt.Sprintf("RESERVED %d 2\r\nhi", i+1))
				}
				reserve := sequence("reserve-with-timeout", jobs...)
				id := sequence("stats", yaml("id: "+ids[0]), yaml("id: "+ids[1]))
				f := &fake{}
				f.script = func(cmd []string) (string, bool) {
					if a, ok := id(cmd); ok {
						return a, ok
					}
					return reserve(cmd)
				}
				q, err := open(Options{Addrs: []string{"a:1"}}, pipeTo(f, nil))
				if err != nil {
					t.Fatal(err)
				}
				qc, err := q.Consume("tube")
				if err != nil {
					t.Fatal(err)
				}
				c := qc.(*consumer)
				held := mustReceive(t, c, n)
				ctx, cancel := context.WithCancel(context.Background())
				var receiving, settling sync.WaitGroup
				receiving.Go(func() { _, _ = c.Receive(ctx, 1) }) // reserves go on all the time
				c.cut()
				synctest.Wait() // it is known
				if c.Err() == nil {
					t.Error("the connection is well")
				}
				for _, j := range held[:n/2] {
					settling.Go(func() {
						if err := j.Done(ctx); !errors.Is(err, queue.ErrLost) {
							t.Errorf("job %s: %v, want ErrLost", j.ID(), err)
						}
					})
				}
				before := time.Now()
				settling.Wait()
				if took := time.Since(before); took > 2*minRedial {
					t.Errorf("what was settled during the outage took %v", took)
				}
				before = time.Now()
				for _, j := range held[n/2:] { // one after the other, as the webhook does
					if err := j.Done(ctx); !errors.Is(err, queue.ErrLost) {
						t.Errorf("job %s: %v, want ErrLost", j.ID(), err)
					}
				}
				if took := time.Since(before); took > maxBinding {
					t.Errorf("what was settled afterwards took %v", took)
				}
				cancel()
				receiving.Wait()
				if err := c.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				q.Close()
				f.wg.Wait()
			})
		})
	}
}
