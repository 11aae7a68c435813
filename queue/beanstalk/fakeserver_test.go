package beanstalk

import (
	"errors"
	"strings"
	"testing"
	"time"

	"propeller/queue"
)

// putTo puts a job by way of fake servers and returns the error.
func putTo(t *testing.T, fakes ...*fake) error {
	t.Helper()
	var addrs []string
	for _, f := range fakes {
		addrs = append(addrs, f.listen(t))
	}
	q := openTest(t, Options{Addrs: addrs, timeout: 2 * time.Second})
	_, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{})
	return err
}

// Hazard: BURIED as the answer to a put is unknown to go-beanstalk. The job is
// stored, so it must not be put again.
func TestPutAnsweredBuried(t *testing.T) {
	t.Parallel()
	a := &fake{script: answers(map[string]string{"put": "BURIED 23"})}
	b := &fake{script: answers(map[string]string{"put": "BURIED 23"})}
	err := putTo(t, a, b)
	if !errors.Is(err, queue.ErrUnavailable) || !errors.Is(err, queue.ErrUncertain) ||
		!strings.Contains(err.Error(), "job 23") || !strings.Contains(err.Error(), "buried") {
		t.Fatalf("%v", err)
	}
	if n := a.count("put") + b.count("put"); n != 1 {
		t.Fatalf("%d puts, want 1", n)
	}
}

// The same for a connection that ends before the answer.
func TestPutAnsweredByHangUp(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"hang up": hangUp, "silence": silence, "internal error": "INTERNAL_ERROR"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &fake{script: answers(map[string]string{"put": answer})}
			b := &fake{script: answers(map[string]string{"put": answer})}
			err := putTo(t, a, b)
			if !errors.Is(err, queue.ErrUnavailable) || !errors.Is(err, queue.ErrUncertain) {
				t.Fatalf("%v", err)
			}
			if n := a.count("put") + b.count("put"); n != 1 {
				t.Fatalf("%d puts, want 1", n)
			}
		})
	}
}

// A refusal that leaves no doubt goes on to the next server.
func TestPutRefusedGoesElsewhere(t *testing.T) {
	t.Parallel()
	for _, refusal := range []string{"OUT_OF_MEMORY", "DRAINING"} {
		t.Run(refusal, func(t *testing.T) {
			t.Parallel()
			bad := &fake{script: answers(map[string]string{"put": refusal})}
			good := &fake{script: answers(nil)}
			addrs := []string{bad.listen(t), good.listen(t)}
			q := openTest(t, Options{Addrs: addrs})
			for range 50 {
				id := mustPut(t, q, "tube", "x")
				if id != addrs[1]+"/1" {
					t.Fatalf("id %q", id)
				}
			}
			if n := bad.count("put"); n > 1 {
				t.Fatalf("%d puts at a server that refuses, want 1 and then none for a while", n)
			}
		})
	}
}

// With nowhere else to go it is an error that says what to do, until the server
// takes jobs again.
func TestPutRefused(t *testing.T) {
	t.Parallel()
	for refusal, want := range map[string]struct {
		kind error
		text string
	}{
		"OUT_OF_MEMORY": {queue.ErrFull, "is out of memory or disk, finish or delete jobs or give it more"},
		"DRAINING":      {queue.ErrUnavailable, "is draining, restart it to end that"},
	} {
		t.Run(refusal, func(t *testing.T) {
			t.Parallel()
			f := &fake{script: sequence("put", refusal, "INSERTED 7")}
			q := openTest(t, Options{Addrs: []string{f.listen(t)}})
			_, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{})
			if !errors.Is(err, want.kind) || !errors.Is(err, queue.ErrUnavailable) || errors.Is(err, queue.ErrUncertain) || !strings.Contains(err.Error(), want.text) {
				t.Errorf("put: %v", err)
			}
			eventually(t, "it takes jobs again", func() bool {
				_, err := q.Put(ctxOf(t), "tube", []byte("x"), queue.PutOptions{})
				return err == nil
			})
		})
	}
}

// Hazard: go-beanstalk takes the refusal of a use for the answer to the put
// behind it, which then lands in another tube, unseen.
func TestUseRefused(t *testing.T) {
	t.Parallel()
	for _, refusal := range []string{"OUT_OF_MEMORY", "BAD_FORMAT", "INTERNAL_ERROR"} {
		t.Run(refusal, func(t *testing.T) {
			t.Parallel()
			f := &fake{script: answers(map[string]string{"use": refusal})}
			if err := putTo(t, f); !errors.Is(err, queue.ErrUnavailable) || errors.Is(err, queue.ErrUncertain) {
				t.Fatalf("%v", err)
			}
			if f.saw("put") {
				t.Fatal("a put was sent although its tube had been refused")
			}
		})
	}
}

// Hazard: an answer that belongs to another command. The connection is dropped
// and a new one works.
func TestReservePoisonDropsConnection(t *testing.T) {
	t.Parallel()
	for _, poison := range []string{
		"OUT_OF_MEMORY", "INTERNAL_ERROR", "BAD_FORMAT", "UNKNOWN_COMMAND", "NOT_IGNORED", "NOT_FOUND", "DELETED",
		"RESERVED x y", "HTTP/1.1 400 Bad Request", "", hangUp,
	} {
		t.Run(poison, func(t *testing.T) {
			t.Parallel()
			f := &fake{script: sequence("reserve-with-timeout", poison, "RESERVED 7 2\r\nhi")}
			q := openTest(t, Options{Addrs: []string{f.listen(t)}})
			c := consumeTest(t, q, "tube")
			if j := mustReceive(t, c, 1)[0]; string(j.Body()) != "hi" || j.ID() != "7" {
				t.Fatalf("%s %q", j.ID(), j.Body())
			}
			if n := f.count("stats"); n != 2 {
				t.Fatalf("%d connections, want 2", n)
			}
		})
	}
}

// Hazard: a watch that the server refuses shifts every answer after it.
func TestWatchRefused(t *testing.T) {
	t.Parallel()
	f := &fake{script: sequence("watch", "OUT_OF_MEMORY", "HTTP/1.1 400 Bad Request", hangUp)}
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	c := consumeTest(t, q, "tube")
	if err := c.Err(); err == nil { // refused, or not yet connected
		t.Fatal("no error before the first connection")
	}
	eventually(t, "connected", func() bool { return c.Err() == nil })
	if n := f.count("watch"); n != 4 {
		t.Fatalf("%d watches, want 4", n)
	}
}

// A delete whose answer is not about the delete is not taken for done.
func TestDeletePoison(t *testing.T) {
	t.Parallel()
	f := &fake{}
	reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
	del := sequence("delete", "TIMED_OUT", "DELETED")
	f.script = func(cmd []string) (string, bool) {
		if a, ok := reserve(cmd); ok {
			return a, ok
		}
		return del(cmd)
	}
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	c := consumeTest(t, q, "tube")
	mustDone(t, mustReceive(t, c, 1)...)
	if n := f.count("delete"); n != 2 {
		t.Fatalf("%d deletes, want one per connection", n)
	}
}

// With a full disk beanstalkd answers INTERNAL_ERROR to a bury and keeps the
// job reserved by nobody: it cannot be reached until a restart.
func TestBuryInternalError(t *testing.T) {
	t.Parallel()
	f := &fake{}
	reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
	f.script = func(cmd []string) (string, bool) {
		switch cmd[0] {
		case "bury":
			return "INTERNAL_ERROR", true
		case "stats-job":
			return yaml("pri: 1", "reserves: 1", "buries: 0", "kicks: 0", "age: 1"), true
		}
		return reserve(cmd)
	}
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	c := consumeTest(t, q, "tube")
	if err := mustReceive(t, c, 1)[0].Bury(ctxOf(t), nil); !errors.Is(err, queue.ErrLost) {
		t.Fatalf("%v, want ErrLost", err)
	}
}

// beanstalkd 1.13 quotes strings in its statistics; 1.12 does not.
func TestPriorityKeptWithBothQuotings(t *testing.T) {
	t.Parallel()
	for _, pri := range []string{"pri: 77", `pri: "77"`} {
		f := &fake{}
		reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
		released := make(chan string, 1)
		f.script = func(cmd []string) (string, bool) {
			switch cmd[0] {
			case "stats":
				return yaml(`id: "cafe"`, `version: "1.13"`), true
			case "stats-job":
				return yaml(`tube: "tube"`, pri, "reserves: 1", "buries: 0", "kicks: 0", "age: 1"), true
			case "release":
				released <- strings.Join(cmd, " ")
				return "RELEASED", true
			}
			return reserve(cmd)
		}
		q := openTest(t, Options{Addrs: []string{f.listen(t)}})
		c := consumeTest(t, q, "tube")
		if err := mustReceive(t, c, 1)[0].Retry(ctxOf(t), 1500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if got := <-released; got != "release 7 77 2" {
			t.Fatalf("sent %q", got)
		}
	}
}

// Statistics may fail on some servers: the others are counted.
func TestTubeStatsPartly(t *testing.T) {
	t.Parallel()
	ok := &fake{script: answers(map[string]string{"stats-tube": yaml("name: \"tube\"",
		"current-jobs-ready: 1", "current-jobs-reserved: 2", "current-jobs-delayed: 3", "current-jobs-buried: 4", "pause-time-left: 5")})}
	bad := &fake{script: answers(map[string]string{"stats-tube": "INTERNAL_ERROR"})}
	q := openTest(t, Options{Addrs: []string{ok.listen(t), bad.listen(t)}})
	st, err := q.TubeStats(ctxOf(t), "tube")
	if left := time.Until(st.PausedUntil); left > 5*time.Second || left < -time.Minute {
		t.Errorf("paused for another %v", left)
	}
	st.PausedUntil = time.Time{}
	if want := (queue.TubeStats{Ready: 1, Reserved: 2, Delayed: 3, Buried: 4, Paused: 1}); st != want {
		t.Fatalf("%+v, want %+v", st, want)
	}
	if !errors.Is(err, queue.ErrUnavailable) {
		t.Fatalf("%v, want ErrUnavailable for the other", err)
	}
}

// A delete whose connection breaks may have worked: then the job is gone, and
// nobody else can have run it.
func TestDeleteAnsweredByHangUp(t *testing.T) {
	t.Parallel()
	for stats, want := range map[string]error{
		"NOT_FOUND": nil,
		yaml("tube: tube", "state: reserved", "reserves: 2", "buries: 0", "kicks: 0", "age: 1", "pri: 1"): queue.ErrLost,
	} {
		f := &fake{}
		reserve := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
		del := sequence("delete", hangUp, "NOT_FOUND")
		f.script = func(cmd []string) (string, bool) {
			if cmd[0] == "stats-job" {
				return stats, true
			}
			if a, ok := reserve(cmd); ok {
				return a, ok
			}
			return del(cmd)
		}
		q := openTest(t, Options{Addrs: []string{f.listen(t)}})
		c := consumeTest(t, q, "tube")
		if err := mustReceive(t, c, 1)[0].Done(ctxOf(t)); !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}
}

// A job that is released may be reserved again before the answer to the
// release has been read. It is then a new delivery, not the old holder's.
func TestReleaseOvertakenByReserve(t *testing.T) {
	t.Parallel()
	f := &fake{}
	first := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
	second := sequence("reserve-with-timeout", "RESERVED 7 2\r\nhi")
	releasing, delivered := make(chan struct{}), make(chan struct{})
	f.script = func(cmd []string) (string, bool) {
		switch cmd[0] {
		case "stats-job":
			return yaml("pri: 1", "reserves: 1", "buries: 0", "kicks: 0", "age: 1"), true
		case "release":
			close(releasing)
			<-delivered
			return "RELEASED", true
		case "delete":
			return "DELETED", true
		}
		if a, ok := first(cmd); ok {
			return a, ok
		}
		select {
		case <-releasing:
			return second(cmd)
		default:
			return "", false
		}
	}
	q := openTest(t, Options{Addrs: []string{f.listen(t)}})
	a, b := consumeTest(t, q, "tube"), consumeTest(t, q, "tube")
	j := mustReceive(t, a, 1)[0]
	retried := make(chan error, 1)
	go func() { retried <- j.Retry(ctxOf(t), 0) }()
	again := mustReceive(t, b, 1)[0]
	close(delivered)
	if err := <-retried; err != nil {
		t.Fatal(err)
	}
	mustDone(t, again)
}
