package beanstalk

import (
	"context"
	"errors"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// A put whose caller gives up while the server is silent is stored when the
// server speaks again, and its error says so.
func TestPutUncertain(t *testing.T) {
	t.Parallel()
	srv := beanstalktest.Start(t)
	q := openTest(t, Options{Addrs: []string{srv.Addr()}})
	mustPut(t, q, "tube", "first")
	srv.Freeze()
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := q.Put(short, "tube", []byte("second"), queue.PutOptions{})
	srv.Thaw()
	if !errors.Is(err, queue.ErrUncertain) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want ErrUncertain", err)
	}
	jobs := mustReceive(t, consumeTest(t, q, "tube"), 2)
	mustDone(t, jobs...)
}

// A put whose context has ended is certain not to be stored, and takes nobody's
// place among those under way.
func TestPutTooLate(t *testing.T) {
	t.Parallel()
	q := openTest(t, Options{Addrs: []string{beanstalktest.Start(t).Addr()}})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 * maxPuts {
		if _, err := q.Put(ended, "tube", []byte("x"), queue.PutOptions{}); !errors.Is(err, context.Canceled) || errors.Is(err, queue.ErrUncertain) {
			t.Fatal(err)
		}
	}
	if n := len(q.servers[0].putTokens); n != 0 {
		t.Fatalf("%d places are taken", n)
	}
	mustPut(t, q, "tube", "y")
}
