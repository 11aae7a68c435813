package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// wakes records what a watch wakes.
type wakes struct {
	mu sync.Mutex
	n  map[string]int
}

func (w *wakes) wake(tube string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == nil {
		w.n = make(map[string]int)
	}
	w.n[tube]++
}

func (w *wakes) count(tube string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n[tube]
}

func (w *wakes) await(t *testing.T, tubes ...string) {
	t.Helper()
	for _, tube := range tubes {
		eventually(t, fmt.Sprintf("%q wakes", tube), func() bool { return w.count(tube) > 0 })
		if n := w.count(tube); n != 1 {
			t.Fatalf("%q was woken %d times", tube, n)
		}
	}
}

// none checks that a tube sleeps on for some rounds.
func (w *wakes) none(t *testing.T, tube string) {
	t.Helper()
	time.Sleep(4 * watchEvery)
	if n := w.count(tube); n != 0 {
		t.Fatalf("%q was woken %d times, want it to sleep", tube, n)
	}
}

func watchTest(t *testing.T, q *client, tubes ...string) (*watch, *wakes) {
	t.Helper()
	var woken wakes
	w := q.Watch(woken.wake).(*watch)
	t.Cleanup(w.Close)
	w.Sleep(tubes...)
	return w, &woken
}

// well waits until the watch has looked at every server.
func well(t *testing.T, w *watch) {
	t.Helper()
	eventually(t, "the watch is well", func() bool { return w.Err() == nil })
}

// foreignPut is what another program does.
func foreignPut(t *testing.T, srv *beanstalktest.Server, tube string, delay, ttr time.Duration) (id uint64) {
	t.Helper()
	id, err := gobeanstalk.NewTube(srv.Dial(), tube).Put([]byte("x"), 5, delay, ttr)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// exists reports whether the server lists the tube.
func exists(t *testing.T, srv *beanstalktest.Server, tube string) bool {
	t.Helper()
	c, err := gobeanstalk.Dial("tcp", srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = gobeanstalk.NewTube(c, tube).Stats()
	return err == nil
}

// watched waits until so many connections watch the tube.
func watched(t *testing.T, srv *beanstalktest.Server, tube, by string) {
	t.Helper()
	c := srv.Dial()
	eventually(t, fmt.Sprintf("%q is watched by %s", tube, by), func() bool {
		st, err := gobeanstalk.NewTube(c, tube).Stats()
		return err == nil && st["current-watching"] == by
	})
}

// Whatever makes a job ready wakes its tube, once, and the job comes as if it had not been
// looked at: its first attempt, in its order.
func TestWatchWakes(t *testing.T) {
	t.Parallel()
	for name, ready := range map[string]func(t *testing.T, srv *beanstalktest.Server){
		"put before":  func(*testing.T, *beanstalktest.Server) {},
		"foreign put": func(t *testing.T, srv *beanstalktest.Server) { foreignPut(t, srv, "tube", 0, time.Minute) },
		"with a TTR of a second": func(t *testing.T, srv *beanstalktest.Server) {
			foreignPut(t, srv, "tube", time.Second, time.Second)
		},
		"delayed": func(t *testing.T, srv *beanstalktest.Server) {
			foreignPut(t, srv, "tube", 2*time.Second, time.Minute)
			watched(t, srv, "tube", "1") // which is to be swept, too
		},
		"put by one who used it before": func(t *testing.T, srv *beanstalktest.Server) {
			c := srv.Dial()
			if _, err := gobeanstalk.NewTube(c, "tube").Kick(0); err != nil { // sends the use
				t.Fatal(err)
			}
			watched(t, srv, "tube", "1")
			if _, err := gobeanstalk.NewTube(c, "tube").Put([]byte("x"), 5, 0, time.Minute); err != nil {
				t.Fatal(err)
			}
		},
		"kicked": func(t *testing.T, srv *beanstalktest.Server) {
			foreignPut(t, srv, "tube", time.Minute, time.Minute)
			c := srv.Dial()
			id, _, err := gobeanstalk.NewTube(c, "tube").PeekDelayed()
			if err == nil {
				_, err = c.ReserveJob(id)
			}
			if err == nil {
				err = c.Bury(id, 5)
			}
			watched(t, srv, "tube", "1")
			if err == nil {
				_, err = gobeanstalk.NewTube(c, "tube").Kick(1)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := beanstalktest.Start(t)
			q := openTest(t, Options{Addrs: []string{srv.Addr()}})
			if name == "put before" {
				foreignPut(t, srv, "tube", 0, time.Minute)
			}
			w, woken := watchTest(t, q, "tube", "idle")
			well(t, w)
			ready(t, srv)
			woken.await(t, "tube")
			watched(t, srv, "tube", "0")
			j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
			if st, err := j.Stat(ctxOf(t)); err != nil || st.Attempt != 1 || st.Priority != 5 {
				t.Errorf("%+v, %v; want attempt 1 and priority 5", st, err)
			}
			mustDone(t, j)
			if woken.none(t, "idle"); woken.count("tube") != 1 {
				t.Errorf("woken %d times", woken.count("tube"))
			}
		})
	}
}

// A put and a kick of this process need no round of the watch.
func TestWatchOwnPut(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	w, woken := watchTest(t, q, "a", "b", "c", "d")
	for _, loop := range w.loops {
		loop.stop() // no rounds
	}
	mustPut(t, q, "a", "x")
	if woken.count("a") != 1 {
		t.Error("a put did not wake its tube")
	}
	queue.PutAll(ctxOf(t), q, []queue.NewJob{{Tube: "b", Body: []byte("x")}, {Tube: "b", Body: []byte("y")}})
	if woken.count("b") != 1 {
		t.Error("PutAll did not wake its tube once")
	}
	for _, o := range []queue.PutOptions{{Delay: time.Minute}, {Buried: true}} {
		id, err := q.Put(ctxOf(t), "c", []byte("x"), o)
		if err != nil {
			t.Fatal(err)
		}
		if woken.count("c") != 0 {
			t.Fatalf("%+v woke its tube", o)
		}
		if o.Buried {
			if err := q.Kick(ctxOf(t), "c", id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if woken.count("c") != 1 {
		t.Error("a kick did not wake its tube")
	}
	if err := q.Kick(ctxOf(t), "d", "1"); !errors.Is(err, queue.ErrNotFound) || woken.count("d") != 0 {
		t.Errorf("a kick that found nothing: %v, woken %d", err, woken.count("d"))
	}
	w.Sleep("a")
	mustPut(t, q, "a", "x")
	if woken.count("a") != 2 {
		t.Error("a tube that sleeps again was not woken")
	}
}

// A put that may have been stored wakes its tube; one that was refused does not.
func TestWatchUncertainPut(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]int{hangUp: 1, "OUT_OF_MEMORY": 0} {
		f := &fake{script: answers(map[string]string{"put": answer})}
		q := openTest(t, Options{Addrs: []string{f.listen(t)}})
		_, woken := watchTest(t, q, "tube")
		_, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{})
		if n := woken.count("tube"); err == nil || n != want {
			t.Errorf("%q: %v, woken %d times, want %d", answer, err, n, want)
		}
	}
}

// Jobs of others wake nobody, and neither do tubes that were taken out.
func TestWatchForget(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	w, woken := watchTest(t, q, "swept", "absent", "other")
	foreignPut(t, srv, "swept", time.Minute, time.Minute)
	foreignPut(t, srv, "feedback", 0, time.Minute) // waits for a foreign consumer
	watched(t, srv, "swept", "1")
	w.Forget("swept", "absent")
	watched(t, srv, "swept", "0")
	foreignPut(t, srv, "swept", 0, time.Minute)
	foreignPut(t, srv, "absent", 0, time.Minute)
	for _, tube := range []string{"swept", "absent", "other", "feedback"} {
		woken.none(t, tube)
	}
	w.Forget("other")
	eventually(t, "the watch hangs up", func() bool {
		st, err := srv.Dial().Stats()
		return err == nil && st["cmd-list-tubes"] != "0" && w.sleepers.Len() == 0 && w.Err() == nil
	})
}

// Nobody can receive a job of a paused tube. It wakes when the pause is over.
func TestWatchPausedTube(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	pause := pauseTube(srv)
	foreignPut(t, srv, "tube", 0, time.Minute)
	pause(t, "tube", time.Hour)
	pausing := srv.Dial()
	if _, err := gobeanstalk.NewTube(pausing, "empty").Kick(0); err != nil { // sends the use
		t.Fatal(err)
	}
	pause(t, "empty", time.Hour)
	_, woken := watchTest(t, q, "tube", "empty")
	watched(t, srv, "tube", "1")
	watched(t, srv, "empty", "1")
	woken.none(t, "tube")
	stats, err := srv.Dial().StatsJob(1)
	if err != nil || stats["reserves"] != "0" {
		t.Errorf("a job of a paused tube was reserved: %v, %v", stats, err)
	}
	pausing.Close() // nobody uses the empty one any more; without it its pause would be lost
	woken.none(t, "empty")
	pause(t, "tube", time.Second)
	woken.await(t, "tube")
	if !exists(t, srv, "empty") {
		t.Error("an empty tube lost its pause")
	}
}

// The tube that every connection watches at first is a tube like any other.
func TestWatchDefaultTube(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	w, woken := watchTest(t, q, "a")
	foreignPut(t, srv, "a", time.Minute, time.Minute)
	foreignPut(t, srv, "default", 0, time.Minute)
	watched(t, srv, "a", "1")
	c := srv.Dial()
	eventually(t, "it is swept", func() bool {
		st, err := c.Stats()
		return err == nil && st["cmd-reserve-with-timeout"] >= "3" // of one digit
	})
	if st, err := srv.Dial().StatsJob(2); err != nil || st["reserves"] != "0" {
		t.Errorf("a job of a tube that nobody watches was reserved: %v, %v", st, err)
	}
	if err := srv.Dial().Delete(2); err != nil {
		t.Fatal(err)
	}
	w.Sleep("default")
	w.Forget("a")
	watched(t, srv, "a", "0")
	foreignPut(t, srv, "default", time.Second, time.Minute)
	woken.await(t, "default")
	w.Sleep("a", "default")
	foreignPut(t, srv, "default", 0, time.Minute)
	eventually(t, "it wakes again", func() bool { return woken.count("default") == 2 })
}

// Jobs keep their places: the one that was swept is not behind those that came later.
func TestWatchKeepsOrder(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	c := srv.Dial()
	tube := gobeanstalk.NewTube(c, "tube")
	const n = 100 // more than are held at once
	for i := range n {
		if _, err := tube.Put(fmt.Appendf(nil, "%d", i), uint32(i%2), 3*time.Second, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	w, woken := watchTest(t, q, "tube")
	crowd(t, srv, w)
	woken.await(t, "tube")
	eventually(t, "all are due", func() bool {
		st, err := q.TubeStats(ctxOf(t), "tube")
		return err == nil && st.Ready == n
	})
	consumer := consumeTest(t, q, "tube")
	for i := range n {
		want := fmt.Sprint(2*i%n + 2*i/n) // even ones first
		j := mustReceive(t, consumer, 1)[0]
		if string(j.Body()) != want {
			t.Fatalf("job %d is %q, want %q", i, j.Body(), want)
		}
		if st, err := j.Stat(ctxOf(t)); err != nil || st.Attempt != 1 {
			t.Fatalf("%+v, %v; want attempt 1", st, err)
		}
		mustDone(t, j)
	}
}

// A server that dies takes nothing with it but time: Err says so, and what came meanwhile
// wakes its tube once the server is back.
func TestWatchServerRestarted(t *testing.T) {
	t.Parallel()
	srv, other := beanstalktest.Start(t, beanstalktest.WithBinlog()), beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr(), other.Addr()}})
	w, woken := watchTest(t, q, "kept", "late", "other")
	foreignPut(t, srv, "kept", 2*time.Second, time.Minute)
	watched(t, srv, "kept", "1")
	well(t, w)
	srv.Kill()
	eventually(t, "the loss is noticed", func() bool { return errors.Is(w.loops[0].lastErr(), queue.ErrUnavailable) })
	if err := w.Err(); err != nil {
		t.Errorf("the other server answers: %v", err)
	}
	foreignPut(t, other, "other", 0, time.Minute)
	woken.await(t, "other")
	srv.Restart()
	foreignPut(t, srv, "late", 0, time.Minute)
	woken.await(t, "late", "kept")
	w.Sleep("late2")
	well(t, w)
	srv.Kill()
	other.Kill()
	eventually(t, "the loss of all shows", func() bool {
		err := w.Err()
		return errors.Is(err, queue.ErrUnavailable) && strings.Contains(err.Error(), srv.Addr()) && strings.Contains(err.Error(), other.Addr())
	})
}

// A server that does not answer is given up, and Close does not wait for it.
func TestWatchSilentServer(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}, timeout: 300 * time.Millisecond})
	w, woken := watchTest(t, q, "tube")
	well(t, w)
	srv.Freeze()
	eventually(t, "the silence shows", func() bool { return errors.Is(w.Err(), errWatchdog) })
	srv.Thaw()
	foreignPut(t, srv, "tube", 0, time.Minute)
	woken.await(t, "tube")

	slow := openTest(t, Options{Addrs: []string{srv.Addr()}})
	w, _ = watchTest(t, slow, "tube2")
	well(t, w)
	srv.Freeze()
	time.Sleep(2 * watchEvery) // it waits for an answer
	began := time.Now()
	w.Close()
	if took := time.Since(began); took > answerTime/2 {
		t.Errorf("Close took %v", took)
	}
	srv.Thaw()
}

// handOverConn ends before it would write a command of that kind for the first time.
type handOverConn struct {
	net.Conn
	before string
	cut    *sync.Once
}

func (c *handOverConn) Write(p []byte) (int, error) {
	if strings.HasPrefix(string(p), c.before) {
		c.cut.Do(func() { c.Conn.Close() })
	}
	return c.Conn.Write(p)
}

// Wherever the connection ends in a hand-over, the tube wakes all the same, and the job is there.
func TestWatchCutInHandOver(t *testing.T) {
	t.Parallel()
	for _, before := range []string{"stats-job ", "ignore tube", "release "} {
		t.Run(before, func(t *testing.T) {
			t.Parallel()
			srv := beanstalktest.Start(t)
			var cut sync.Once
			isCut := false
			q, err := open(Options{Addrs: []string{srv.Addr()}}, func(ctx context.Context, addr string) (net.Conn, error) {
				nc, err := dialTCP(ctx, addr)
				if err != nil {
					return nil, err
				}
				return &handOverConn{nc, before, &cut}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { q.Close() })
			w, woken := watchTest(t, q, "tube")
			foreignPut(t, srv, "tube", 3*time.Second, time.Minute)
			crowd(t, srv, w)
			woken.await(t, "tube")
			cut.Do(func() { isCut = true })
			if isCut {
				t.Fatal("the connection was not cut")
			}
			mustDone(t, mustReceive(t, consumeTest(t, q, "tube"), 1)...)
		})
	}
}

// Two daemons sweep the same tube: both wake, one gets the job, and neither keeps the tube alive
// for the other.
func TestWatchTwoDaemons(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	a, b := openTest(t, Options{Addrs: []string{srv.Addr()}}), openTest(t, Options{Addrs: []string{srv.Addr()}})
	_, wokenA := watchTest(t, a, "tube", "deleted")
	_, wokenB := watchTest(t, b, "tube", "deleted")
	foreignPut(t, srv, "tube", 3*time.Second, time.Minute)
	c := srv.Dial()
	id, err := gobeanstalk.NewTube(c, "deleted").Put([]byte("x"), 5, time.Hour, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	watched(t, srv, "tube", "2")
	watched(t, srv, "deleted", "2")
	if err := c.Delete(id); err != nil {
		t.Fatal(err)
	}
	c.Close()
	eventually(t, "the emptied tube is gone", func() bool { return !exists(t, srv, "deleted") })
	wokenA.await(t, "tube")
	wokenB.await(t, "tube")
	ca, cb := consumeTest(t, a, "tube"), consumeTest(t, b, "tube")
	got := make(chan queue.Job, 2)
	ctx, cancel := context.WithCancel(ctxOf(t))
	var wg sync.WaitGroup
	for _, c := range []queue.Consumer{ca, cb} {
		wg.Go(func() {
			if jobs, err := c.Receive(ctx, 1); err == nil {
				got <- jobs[0]
			}
		})
	}
	mustDone(t, <-got)
	time.Sleep(2 * watchEvery)
	cancel()
	wg.Wait()
	if len(got) > 0 {
		t.Error("both got the job")
	}
	wokenA.none(t, "deleted")
	wokenB.none(t, "deleted")
}

// A tube that is empty and that somebody else watches is asked about.
func TestWatchTubeOfOthers(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	other := openTest(t, Options{Addrs: []string{srv.Addr()}})
	consumeTest(t, other, "tube") // of another daemon, which is too busy to receive
	watched(t, srv, "tube", "1")
	_, woken := watchTest(t, q, "tube")
	woken.none(t, "tube")
	watched(t, srv, "tube", "1")
	foreignPut(t, srv, "tube", 0, time.Minute)
	woken.await(t, "tube")
}

// With thousands of tubes that have a delayed job, another that gets a job still wakes soon,
// and so do they when theirs are kicked.
func TestWatchManyDelayed(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	const n = 3000
	tubes := make([]string, n+1)
	for i := range tubes {
		tubes[i] = fmt.Sprintf("tube-%04d", i)
	}
	putDelayed(t, srv, tubes[:n], time.Hour)
	w, woken := watchTest(t, q, tubes...)
	began := time.Now()
	watched(t, srv, tubes[0], "1") // they are asked about in no order that matters, this one last
	t.Logf("%d tubes were classified within %v", n, time.Since(began))
	well(t, w)

	began = time.Now()
	foreignPut(t, srv, tubes[n], 0, time.Minute)
	woken.await(t, tubes[n])
	t.Logf("a tube that did not exist woke after %v", time.Since(began))
	began = time.Now()
	foreignPut(t, srv, tubes[n/2], 0, time.Minute)
	woken.await(t, tubes[n/2])
	t.Logf("a swept tube woke after %v", time.Since(began))

	var kicks []string
	due := tubes[:n/3]
	for _, tube := range due {
		kicks = append(kicks, "use "+tube, "kick 1")
	}
	began = time.Now()
	pipe(t, srv, kicks)
	woken.await(t, due...)
	t.Logf("%d were kicked and woke within %v", len(due), time.Since(began))
}
