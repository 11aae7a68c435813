package beanstalk

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queuetest"
)

const newBody = `{"token":"x","again":{"bury":"why"}}`

// buriedBodies returns the bodies of the buried jobs of "tube", sorted.
func buriedBodies(t *testing.T, q *client) []string {
	t.Helper()
	jobs, err := queuetest.Buried(ctxOf(t), q, "tube", 100)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, b := range jobs {
		out = append(out, string(b.Body))
	}
	slices.Sort(out)
	return out
}

// The copy has the original's priority, and nothing is left of the original.
func TestBuryReplaces(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	c := consumeTest(t, q, "tube")
	if _, err := q.Put(ctxOf(t), "tube", []byte("old"), queue.PutOptions{Priority: 42}); err != nil {
		t.Fatal(err)
	}
	if err := mustReceive(t, c, 1)[0].Bury(ctxOf(t), []byte(newBody)); err != nil {
		t.Fatal(err)
	}
	if _, err := srv.Dial().StatsJob(1); !errors.Is(err, gobeanstalk.ErrNotFound) {
		t.Fatalf("the old job: %v", err)
	}
	stats, err := srv.Dial().StatsJob(2)
	if err != nil || stats["state"] != "buried" || stats["pri"] != "42" || stats["tube"] != "tube" || stats["ttr"] != "120" {
		t.Fatalf("%v %v", stats, err)
	}
	if got := buriedBodies(t, q); !slices.Equal(got, []string{newBody}) {
		t.Fatalf("%q", got)
	}
	mustNone(t, c)
}

// With several servers the copy is on the original's server.
func TestBuryReplacesOnSameServer(t *testing.T) {
	t.Parallel()
	a, b := beanstalktest.Start(t), beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{a.Addr(), b.Addr()}})
	c := consumeTest(t, q, "tube")
	const n = 20
	for range n {
		mustPut(t, q, "tube", "x")
	}
	want := make(map[string]int)
	for _, j := range mustReceive(t, c, n) {
		addr, _, _ := strings.Cut(j.ID(), "/")
		want[addr]++
		if err := j.Bury(ctxOf(t), []byte(addr)); err != nil {
			t.Fatal(err)
		}
	}
	jobs, err := queuetest.Buried(ctxOf(t), q, "tube", 2*n)
	if err != nil || len(jobs) != n {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	for _, b := range jobs {
		if addr, _, _ := strings.Cut(b.ID, "/"); addr != string(b.Body) {
			t.Errorf("%s was on %s", b.ID, b.Body)
		}
	}
}

// cutter is a dialer whose connections break at a command, once: before the server gets it,
// or after the server has run it but before the answer is read.
type cutter struct {
	word string // with a space after it
	sent bool

	mu   sync.Mutex
	done bool
	cuts int
}

// cuts reports whether the connection breaks at this write.
func (k *cutter) cutsAt(p []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done || !bytes.HasPrefix(p, []byte(k.word)) && !bytes.Contains(p, []byte("\r\n"+k.word)) {
		return false
	}
	if k.word == "reserve-job " && bytes.Contains(p, []byte("reserve-job 0\r\n")) {
		return false // only a question
	}
	k.done = true
	k.cuts++
	return true
}

func (k *cutter) dial(ctx context.Context, addr string) (net.Conn, error) {
	nc, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: nc, k: k}, nil
}

type cutConn struct {
	net.Conn
	k *cutter

	mu   sync.Mutex
	deaf bool
}

func (c *cutConn) Write(p []byte) (int, error) {
	if !c.k.cutsAt(p) {
		return c.Conn.Write(p)
	}
	if !c.k.sent {
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	c.mu.Lock()
	c.deaf = true
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// Read waits for the answer, so that the command has run, and drops it.
func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf && err == nil {
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// Wherever the connection breaks, the job is buried once. Only a lost answer to the put leaves
// a second copy, which the server hands out later.
func TestBuryCut(t *testing.T) {
	t.Parallel()
	for _, binlog := range []bool{false, true} {
		for _, word := range []string{"stats-job ", "touch ", "put ", "reserve-job ", "bury ", "delete "} {
			for _, sent := range []bool{false, true} {
				name := word + map[bool]string{false: "not run", true: "answer lost"}[sent] + map[bool]string{true: ", binlog"}[binlog]
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					testBuryCut(t, &cutter{word: word, sent: sent}, binlog)
				})
			}
		}
	}
}

func testBuryCut(t *testing.T, k *cutter, binlog bool) {
	var opts []beanstalktest.Option
	if binlog {
		opts = append(opts, beanstalktest.WithBinlog())
	}
	srv := beanstalktest.Start(t, opts...)
	log, lines := newLog()
	other := openTest(t, Options{Addrs: []string{srv.Addr()}})
	mustPut(t, other, "tube", "old")
	q, err := open(Options{Addrs: []string{srv.Addr()}, Log: log}, k.dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	c := consumeTest(t, q, "tube")
	j := mustReceive(t, c, 1)[0]
	if err := j.Bury(ctxOf(t), []byte(newBody)); err != nil {
		t.Fatal(err)
	}
	if k.cuts != 1 {
		t.Fatalf("%d cuts", k.cuts)
	}
	want := queue.TubeStats{Buried: 1}
	lost := k.word == "put " && k.sent
	if lost {
		want.Delayed = 1
	}
	if st, err := other.TubeStats(ctxOf(t), "tube"); err != nil || st != want {
		t.Fatalf("%+v, %v; want %+v", st, err, want)
	}
	if got := buriedBodies(t, other); !slices.Equal(got, []string{newBody}) {
		t.Fatalf("%q", got)
	}
	if n := lines.count("there may be two buried copies"); n > 1 || lost && n == 0 || n == 1 && k.word != "put " {
		t.Fatalf("said %d times: %s", n, lines)
	}
	if !lost {
		return
	}
	// The copy whose answer was lost is received by a client that buries it.
	jobs := mustReceive(t, c, 1)
	if string(jobs[0].Body()) != newBody {
		t.Fatalf("%q", jobs[0].Body())
	}
	if err := jobs[0].Bury(ctxOf(t), nil); err != nil {
		t.Fatal(err)
	}
}

// The server is killed and started again between two commands.
func TestBuryOverRestart(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"put ", "reserve-job ", "bury ", "delete "} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			srv := beanstalktest.Start(t, beanstalktest.WithBinlog())
			k := &cutter{word: word, sent: true}
			restart := make(chan struct{})
			q, err := open(Options{Addrs: []string{srv.Addr()}}, func(ctx context.Context, addr string) (net.Conn, error) {
				k.mu.Lock()
				wait := k.done
				k.mu.Unlock()
				if wait {
					<-restart
				}
				return k.dial(ctx, addr)
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { q.Close() })
			c := consumeTest(t, q, "tube")
			other := openTest(t, Options{Addrs: []string{srv.Addr()}})
			mustPut(t, other, "tube", "old")
			j := mustReceive(t, c, 1)[0]
			c.Pause()
			buried := make(chan error, 1)
			go func() { buried <- j.Bury(ctxOf(t), []byte(newBody)) }()
			eventually(t, "cut", func() bool {
				k.mu.Lock()
				defer k.mu.Unlock()
				return k.cuts == 1
			})
			eventually(t, "run", func() bool { return c.Err() != nil }) // it was answered, so it is in the log
			srv.Restart()
			close(restart)
			if err := <-buried; err != nil {
				t.Fatal(err)
			}
			want := queue.TubeStats{Buried: 1}
			if word == "put " {
				want.Delayed = 1
			}
			if st, err := other.TubeStats(ctxOf(t), "tube"); err != nil || st != want {
				t.Fatalf("%+v, %v; want %+v", st, err, want)
			}
		})
	}
}

// A job that the server finds too large, or refuses for now, stays held and can be settled
// differently.
func TestBuryRefused(t *testing.T) {
	t.Parallel()
	settle := map[string]func(j queue.Job) error{
		"done":      func(j queue.Job) error { return j.Done(ctxOf(t)) },
		"retry":     func(j queue.Job) error { return j.Retry(ctxOf(t), 0) },
		"bury":      func(j queue.Job) error { return j.Bury(ctxOf(t), nil) },
		"bury anew": func(j queue.Job) error { return j.Bury(ctxOf(t), []byte("n")) },
	}
	left := map[string]queue.TubeStats{"done": {}, "retry": {Ready: 1}, "bury": {Buried: 1}, "bury anew": {Buried: 1}}
	for name, f := range settle {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := beanstalktest.Start(t, beanstalktest.WithArgs("-z", "10"))
			q := openTest(t, Options{Addrs: []string{srv.Addr()}, ttr: 5 * time.Second})
			c := consumeTest(t, q, "tube")
			mustPut(t, q, "tube", "x")
			j := mustReceive(t, c, 1)[0]
			c.Pause()
			for range 2 {
				if err := j.Bury(ctxOf(t), []byte(newBody)); !errors.Is(err, queue.ErrRejected) {
					t.Fatalf("%v, want ErrRejected", err)
				}
			}
			time.Sleep(6 * time.Second) // longer than its reservation
			if st, err := q.TubeStats(ctxOf(t), "tube"); err != nil || st != (queue.TubeStats{Reserved: 1}) {
				t.Fatalf("%+v, %v", st, err)
			}
			if err := f(j); err != nil {
				t.Fatal(err)
			}
			if st, err := q.TubeStats(ctxOf(t), "tube"); err != nil || st != left[name] {
				t.Fatalf("%+v, %v; want %+v", st, err, left[name])
			}
		})
	}
}

// A draining server takes no copy.
func TestBuryDraining(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "x")
	j := mustReceive(t, c, 1)[0]
	srv.Drain()
	eventually(t, "draining", func() bool {
		_, err := q.Put(ctxOf(t), "other", nil, queue.PutOptions{})
		return errors.Is(err, queue.ErrUnavailable)
	})
	if err := j.Bury(ctxOf(t), []byte(newBody)); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("%v, want ErrUnavailable", err)
	}
	if err := j.Bury(ctxOf(t), nil); err != nil { // this needs no put
		t.Fatal(err)
	}
}

// A server with a full disk buries nothing, whatever the body, and the job stays held until
// it can. A bury would make a real server lose the job until its restart.
func TestBuryOnFullDisk(t *testing.T) {
	t.Parallel()
	for name, body := range map[string][]byte{"as it is": nil, "with another body": []byte(newBody)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir() + "/log"
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			srv := beanstalktest.Start(t, beanstalktest.WithArgs("-b", dir, "-s", "8192"))
			q := openTest(t, Options{Addrs: []string{srv.Addr()}})
			c := consumeTest(t, q, "tube")
			mustPut(t, q, "tube", "x")
			j := mustReceive(t, c, 1)[0]
			// Without its folder, beanstalkd cannot create the log's next file.
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			for n := 1000; n >= 1; { // until not even the smallest job fits
				if _, err := q.Put(ctxOf(t), "fill", make([]byte, n), queue.PutOptions{}); err != nil {
					if !errors.Is(err, queue.ErrUnavailable) || errors.Is(err, queue.ErrUncertain) {
						t.Fatal(err)
					}
					n /= 2
				}
			}
			for range 3 {
				began := time.Now()
				if err := j.Bury(ctxOf(t), body); !errors.Is(err, queue.ErrUnavailable) {
					t.Fatalf("%v, want ErrUnavailable", err)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Fatalf("took %v", took)
				}
			}
			if st, err := q.TubeStats(ctxOf(t), "tube"); err != nil || st != (queue.TubeStats{Reserved: 1}) {
				t.Fatalf("%+v, %v", st, err)
			}
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
			if err := j.Bury(ctxOf(t), body); err != nil {
				t.Fatal(err)
			}
			if st, err := q.TubeStats(ctxOf(t), "tube"); err != nil || st != (queue.TubeStats{Buried: 1}) {
				t.Fatalf("%+v, %v", st, err)
			}
			if tubes, err := q.Tubes(ctxOf(t)); err != nil || slices.Contains(tubes, trialTube) {
				t.Fatalf("%q, %v", tubes, err)
			}
		})
	}
}

// The process dies at any command: the job still exists, and whoever receives it or its copy
// buries it. There are at most two copies.
func TestBuryCrash(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"put ", "reserve-job ", "bury ", "delete "} {
		for _, sent := range []bool{false, true} {
			t.Run(word+map[bool]string{false: "not run", true: "run"}[sent], func(t *testing.T) {
				t.Parallel()
				testBuryCrash(t, &cutter{word: word, sent: sent})
			})
		}
	}
}

func testBuryCrash(t *testing.T, k *cutter) {
	srv := beanstalktest.Start(t)
	other := openTest(t, Options{Addrs: []string{srv.Addr()}})
	mustPut(t, other, "tube", "old")
	q, err := open(Options{Addrs: []string{srv.Addr()}}, func(ctx context.Context, addr string) (net.Conn, error) {
		k.mu.Lock()
		dead := k.done
		k.mu.Unlock()
		if dead {
			return nil, errors.New("dead")
		}
		return k.dial(ctx, addr)
	})
	if err != nil {
		t.Fatal(err)
	}
	j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
	ctx, cancel := context.WithTimeout(ctxOf(t), time.Second)
	defer cancel()
	if err := j.Bury(ctx, []byte(newBody)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, want the context's end", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	c := consumeTest(t, other, "tube")
	for end := time.Now().Add(patience); ; {
		st, err := other.TubeStats(ctxOf(t), "tube")
		if err != nil {
			t.Fatal(err)
		}
		if all := st.Ready + st.Delayed + st.Reserved + st.Buried; all < 1 || all > 2 {
			t.Fatalf("%+v", st)
		} else if st.Buried == all {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", st)
		}
		job := mustReceive(t, c, 1)[0]
		with := []byte(newBody)
		if string(job.Body()) == newBody {
			with = nil
		}
		if err := job.Bury(ctxOf(t), with); err != nil {
			t.Fatal(err)
		}
	}
	for _, body := range buriedBodies(t, other) {
		if body != newBody {
			t.Errorf("%q", body)
		}
	}
}
