package beanstalk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queuetest"
)

// lies are answers that no command gets from an honest server.
var lies = map[string]string{
	"negative":             "OK -2",
	"more than 64 bits":    "OK 99999999999999999999",
	"no memory has it":     "OK 9000000000000000000",
	"much":                 "OK 99999999",
	"job negative":         "RESERVED 1 -2",
	"job of 90 GB":         "RESERVED 1 99999999999",
	"job of 9 EB":          "RESERVED 1 9000000000000000000",
	"found 9 EB":           "FOUND 1 9000000000000000000",
	"found without size":   "FOUND 9000000000000000000",
	"id for a size":        "INSERTED 9000000000000000000",
	"id for a small size":  "INSERTED -3",
	"kicked":               "KICKED 9000000000000000000",
	"other word":           "JOB 1 9000000000000000000",
	"spaces":               "OK  9000000000000000000 ",
	"line without end":     strings.Repeat("x", 1<<20),
	"long line":            strings.Repeat("x", 1000),
	"garbage":              "\x00\xff\x1b[2J 9000000000000000000",
	"empty":                "",
	"half a job":           "RESERVED 1 1000\r\n{",
	"half of statistics":   "OK 1000\r\n---\n",
	"statistics not YAML":  "OK 8\r\n: : : :\n",
	"statistics elsewhere": yaml("state: buried", "tube: tube", "pri: -1", "reserves: 99999999999", "age: 1e9", "pause-time-left: 99999999999", "current-jobs-buried: 99999999999"),
}

// A server that lies about sizes, or answers nonsense, costs its connection,
// with a reason, and nothing else. When an honest one has its port, all goes on.
func TestLyingServer(t *testing.T) {
	t.Parallel()
	for name, lie := range lies {
		for _, from := range []string{"stats", "reserve-with-timeout"} { // from the handshake, or only later
			t.Run(name+"/"+from, func(t *testing.T) {
				t.Parallel()
				srv := beanstalktest.Start(t)
				log, lines := newLog()
				q := openTest(t, Options{Addrs: []string{srv.Addr()}, timeout: 300 * time.Millisecond, Log: log})
				c := consumeTest(t, q, "tube")
				mustPut(t, q, "tube", "before")
				mustDone(t, mustReceive(t, c, 1)...)
				srv.Kill()

				liar := &fake{script: func(cmd []string) (string, bool) {
					return lie, cmd[0] != "watch" && (from == "stats" || cmd[0] != "stats")
				}}
				_, stop := liar.listenOn(t, srv.Addr())
				go func() { _, _ = c.Receive(ctxOf(t), 1) }() // what it gets is at worst the liar's
				eventually(t, "it is asked", func() bool { return liar.count(from) > 1 })
				callAll(t, q)
				eventually(t, "it says why", func() bool { return lines.count("queue server lost") > 0 })
				stop()

				srv.Restart()
				eventually(t, "a put works", func() bool {
					_, err := q.Put(ctxOf(t), "tube2", []byte("after"), queue.PutOptions{})
					return err == nil
				})
				c2 := consumeTest(t, q, "tube2")
				if j := mustReceive(t, c2, 1)[0]; string(j.Body()) != "after" {
					t.Errorf("job %q", j.Body())
				}
				eventually(t, "the first consumer is well", func() bool { return c.Err() == nil })
				if n := lines.count("panic"); n > 0 {
					t.Errorf("go-beanstalk saw it:\n%s", lines)
				}
			})
		}
	}
}

// callAll asks all there is to be asked.
func callAll(t *testing.T, q *client) {
	ctx, cancel := context.WithTimeout(ctxOf(t), 2*time.Second)
	defer cancel()
	_, err := q.Put(ctx, "tube", []byte("x"), queue.PutOptions{})
	if err == nil {
		t.Error("the put of a job that nobody stored: no error")
	}
	_, _ = q.TubeStats(ctx, "tube")
	_, _ = q.Tubes(ctx)
	_, _ = queuetest.Buried(ctx, q, "tube", 10)
	_, _ = q.Peek(ctx, "tube", "1")
	_ = q.Kick(ctx, "tube", "1")
	_ = q.List(ctx, "tube", queue.Buried, func([]queue.StoredJob) error { return nil })
}

// A size is refused before anything is allocated for it, and the reason is told.
func TestLieIsTheReason(t *testing.T) {
	t.Parallel()
	f := &fake{script: answers(map[string]string{"reserve-with-timeout": "RESERVED 1 9000000000000000000"})}
	log, lines := newLog()
	q := openTest(t, Options{Addrs: []string{f.listen(t)}, Log: log})
	c := consumeTest(t, q, "tube")
	go func() { _, _ = c.Receive(ctxOf(t), 1) }()
	const want = "RESERVED 1 9000000000000000000"
	eventually(t, "the health says why", func() bool { err := c.Err(); return err != nil && strings.Contains(err.Error(), want) })
	eventually(t, "the log says why", func() bool { return lines.count(want) > 0 })
}

// A panic within go-beanstalk ends the session, with a reason, and not the process.
func TestPanicLosesTheSession(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	log, lines := newLog()
	q := openTest(t, Options{Addrs: []string{srv.Addr()}, Log: log})
	s, err := q.servers[0].connect(ctxOf(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = s.do(func(*gobeanstalk.Conn) error { panic("a size below zero") })
	if !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), "a size below zero") {
		t.Errorf("%v", err)
	}
	if err := s.do(func(*gobeanstalk.Conn) error { return nil }); !isBroken(err) {
		t.Errorf("the session lives on: %v", err)
	}
	if lines.count("lies_test.go") == 0 {
		t.Errorf("no stack in the log:\n%s", lines)
	}
}

// A job larger than is read is buried as it is: not in memory, not lost, not in
// the others' way, and not moved elsewhere by its placeholder.
func TestJobTooLarge(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	srv := beanstalktest.Start(t, beanstalktest.WithArgs("-z", strconv.Itoa(size)))
	log, lines := newLog()
	q := openTest(t, Options{Addrs: []string{srv.Addr()}, Log: log})
	large := bytes.Repeat([]byte("x"), size)
	id, err := q.Put(ctxOf(t), "tube", large, queue.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, q, "tube", "small")
	c := consumeTest(t, q, "tube")
	if j := mustReceive(t, c, 1)[0]; string(j.Body()) != "small" {
		t.Fatalf("%d bytes", len(j.Body()))
	}
	eventually(t, "it is buried", func() bool { return lines.count("a job that is too large was buried") == 1 })
	list, err := queuetest.Buried(ctxOf(t), q, "tube", 10)
	if err != nil || len(list) != 1 || list[0].ID != id || !strings.Contains(string(list[0].Body), strconv.Itoa(size)) {
		t.Errorf("listed: %d jobs, %v", len(list), err)
	}
	faults := 0
	err = q.List(ctxOf(t), "tube", queue.Buried, func(jobs []queue.StoredJob) error {
		if faults++; !errors.Is(jobs[0].Fault, queue.ErrRejected) {
			t.Errorf("%.60q has no fault", jobs[0].Body)
		}
		return nil
	})
	if err != nil || faults != 1 {
		t.Errorf("%d jobs, %v", faults, err)
	}
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	body, err := srv.Dial().Peek(n)
	if err != nil || !bytes.Equal(body, large) {
		t.Errorf("the job itself: %d bytes, %v", len(body), err)
	}
}

// scripted is a connection that reads a text, in pieces as small as can be.
type scripted struct {
	net.Conn
	r interface{ Read([]byte) (int, error) }
}

func (s scripted) Read(p []byte) (int, error) { return s.r.Read(p) }

// What is honest passes as it was, wherever the network cuts it.
func TestRepliesPass(t *testing.T) {
	t.Parallel()
	const text = "RESERVED 7 2\r\nhi\r\nNOT_FOUND\r\nOK 4\r\n---\n\r\nFOUND 8 0\r\n\r\nTIMED_OUT\r\n"
	body := strings.Repeat("y\n", 100_000)
	all := text + fmt.Sprintf("RESERVED 9 %d\r\n%s\r\n", len(body), body) + text
	for name, r := range map[string]interface{ Read([]byte) (int, error) }{
		"whole": strings.NewReader(all), "bytes": iotest.OneByteReader(strings.NewReader(all)), "halves": iotest.HalfReader(strings.NewReader(all)),
	} {
		var got bytes.Buffer
		in := newReplies(scripted{r: r})
		p := make([]byte, 4096)
		for {
			n, err := in.Read(p)
			got.Write(p[:n])
			if err != nil {
				break
			}
		}
		if got.String() != all {
			t.Errorf("%s: %d bytes, want %d", name, got.Len(), len(all))
		}
	}
}
