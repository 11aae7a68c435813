package beanstalk

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/queue"
)

// playedJob is a fake server with job 7. answer gives its answers; "" means the usual one.
func playedJob(answer func(cmd []string) string) *fake {
	reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
	return &fake{script: func(cmd []string) (string, bool) {
		if a := answer(cmd); a != "" {
			return a, true
		}
		switch cmd[0] {
		case "stats-job":
			return yaml("tube: tube", "pri: 3", "reserves: 1", "buries: 0", "kicks: 0", "age: 1"), true
		case "touch":
			return "TOUCHED", true
		case "put":
			return "INSERTED 8", true
		case "delete":
			return "DELETED", true
		}
		return reserve(cmd)
	}}
}

// A server before 1.12 cannot reserve the copy in order to bury it.
func TestBuryOnOldServer(t *testing.T) {
	t.Parallel()
	f := playedJob(func(cmd []string) string {
		switch cmd[0] {
		case "reserve-job":
			return "UNKNOWN_COMMAND"
		case "bury":
			return "BURIED"
		}
		return ""
	})
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	if err := mustReceive(t, consumeTest(t, q, "tube"), 1)[0].Bury(ctxOf(t), []byte(newBody)); err != nil {
		t.Fatal(err)
	}
	if f.saw("put") || f.saw("delete") || f.count("bury") != 1 {
		t.Fatal(f.seen)
	}
}

// When answers to the put get lost again and again, the burial gives up and the job stays
// held.
func TestBuryAnswersLost(t *testing.T) {
	t.Parallel()
	reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
	f := playedJob(func(cmd []string) string {
		switch cmd[0] {
		case "put":
			return hangUp
		case "reserve-job":
			if cmd[1] == "7" {
				return "RESERVED 7 2\r\nhi"
			}
		case "stats":
			return yaml("id: cafe", "binlog-current-index: 1")
		case "reserve-with-timeout":
			a, _ := reserve(cmd)
			return a
		}
		return ""
	})
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
	if err := j.Bury(ctxOf(t), []byte(newBody)); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("%v, want ErrUnavailable", err)
	}
	if n := f.count("put"); n != maxLost || f.saw("delete") {
		t.Fatalf("%d puts; %q", n, f.seen)
	}
	mustDone(t, j)
}

// The server stores the copy, cannot write its log, and answers BURIED. The connection and
// all other jobs stay usable.
func TestBuryAnsweredBuried(t *testing.T) {
	t.Parallel()
	f := playedJob(func(cmd []string) string {
		if cmd[0] == "put" {
			return "BURIED 8"
		}
		return ""
	})
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
	if err := j.Bury(ctxOf(t), []byte(newBody)); !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), "check its disk") {
		t.Fatalf("%v, want ErrUnavailable", err)
	}
	if f.saw("delete") {
		t.Fatal("deleted, and what is there may be gone with the server")
	}
	mustDone(t, j)
	if n := f.count("stats"); n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
}

// The server's log has room for the copy, but not for burying it.
func TestBuryCopyInternalError(t *testing.T) {
	t.Parallel()
	f := playedJob(func(cmd []string) string {
		switch {
		case cmd[0] == "reserve-job" && cmd[1] == "8":
			return "RESERVED 8 2\r\nxx"
		case cmd[0] == "bury":
			return "INTERNAL_ERROR"
		}
		return ""
	})
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
	if err := j.Bury(ctxOf(t), []byte(newBody)); !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("%v, want ErrUnavailable", err)
	}
	if f.saw("delete") {
		t.Fatal("deleted, and nothing is buried")
	}
	mustDone(t, j)
	if n := f.count("stats"); n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
}

// Another client reserves the copy before it can be buried, and has to bury it then. A job
// that already belongs to another client gets no copy.
func TestBurySomebodyElses(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]error{"reserve-job": nil, "bury": nil, "touch": queue.ErrLost} {
		f := playedJob(func(cmd []string) string {
			switch {
			case cmd[0] == word:
				return "NOT_FOUND"
			case cmd[0] == "reserve-job" && cmd[1] == "8":
				return "RESERVED 8 2\r\nxx"
			case cmd[0] == "bury":
				return "BURIED"
			}
			return ""
		})
		q := openTest(t, Options{Addrs: []string{f.listen(t)}})
		j := mustReceive(t, consumeTest(t, q, "tube"), 1)[0]
		if err := j.Bury(ctxOf(t), []byte(newBody)); !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", word, err, want)
		}
		if f.saw("put") != (want == nil) || f.saw("delete") != (want == nil) {
			t.Fatalf("%s: %q", word, f.seen)
		}
	}
}

// A job lost its connection and is reserved by another consumer of this process, whose answer
// arrives just after the burial has not found the job.
func TestBuryMeetsReserve(t *testing.T) {
	t.Parallel()
	first, second := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi"), sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
	reserving, asked := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(reserving) })
	f := playedJob(func(cmd []string) string {
		switch cmd[0] {
		case "reserve-with-timeout":
			if a, ok := first(cmd); ok {
				return a
			}
			once()
			<-asked
			if a, ok := second(cmd); ok {
				time.Sleep(maxBinding / 10)
				return a
			}
			return "TIMED_OUT"
		case "reserve-job":
			if cmd[1] == "7" {
				<-reserving
				close(asked)
			}
		case "bury":
			return "BURIED"
		}
		return ""
	})
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	a, b := consumeTest(t, q, "tube"), consumeTest(t, q, "tube")
	j := mustReceive(t, a, 1)[0]
	a.Pause()
	ctx, cancel := context.WithCancel(ctxOf(t))
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = b.Receive(ctx, 1) })
	a.cut()
	if err := j.Bury(ctxOf(t), nil); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
}
