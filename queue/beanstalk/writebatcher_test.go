package beanstalk

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
)

// heldConn keeps what is written; each write waits until it is let on.
type heldConn struct {
	net.Conn // nil: only what is here is called
	let      chan error

	mu     sync.Mutex
	writes int
	text   bytes.Buffer
	closed bool
}

func (c *heldConn) Write(p []byte) (int, error) {
	if err := <-c.let; err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	return c.text.Write(p)
}

func (c *heldConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func goSpawn(f func()) bool {
	go f()
	return true
}

func always() bool { return true }

// While few commands are under way, the caller writes by itself.
func TestGatherIdle(t *testing.T) {
	t.Parallel()
	nc := &heldConn{let: make(chan error, 2)}
	g := newWriteBatcher(nc, func() bool { return false }, func(func()) bool { panic("another goroutine") })
	nc.let <- nil
	if n, err := g.Write([]byte("x")); n != 1 || err != nil || nc.text.String() != "x" {
		t.Error(n, err, nc.text.String())
	}
	broken := errors.New("broken")
	nc.let <- broken
	if _, err := g.Write([]byte("y")); err != broken {
		t.Error(err)
	}
}

// What is written while a write is under way goes out with the next, in order.
func TestGatherOneWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nc := &heldConn{let: make(chan error)}
		g := newWriteBatcher(nc, always, goSpawn)
		var want string
		write := func(n int) {
			line := fmt.Sprintf("delete %d\r\n", n)
			want += line
			if k, err := g.Write([]byte(line)); k != len(line) || err != nil {
				t.Fatal(k, err)
			}
		}
		write(0)
		synctest.Wait() // the write of it is under way
		for n := range 100 {
			write(n)
		}
		nc.let <- nil
		nc.let <- nil
		synctest.Wait()
		if nc.text.String() != want || nc.writes != 2 {
			t.Errorf("%d writes:\n%s", nc.writes, nc.text.String())
		}
		write(7) // after a pause: at once and alone
		nc.let <- nil
		synctest.Wait()
		if nc.text.String() != want || nc.writes != 3 || g.writing {
			t.Errorf("%d writes, writing %v", nc.writes, g.writing)
		}
	})
}

// Writers wait while more than maxBatched waits, and an idle connection keeps
// no large buffers.
func TestGatherBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nc := &heldConn{let: make(chan error)}
		g := newWriteBatcher(nc, always, goSpawn)
		write := func(b []byte) {
			if _, err := g.Write(b); err != nil {
				t.Error(err)
			}
		}
		write([]byte("first"))
		synctest.Wait()
		write(make([]byte, maxBatched))
		passed := false
		go func() {
			write([]byte("last"))
			passed = true
		}()
		synctest.Wait()
		if passed || len(g.waiting) != maxBatched {
			t.Fatalf("%d bytes wait", len(g.waiting))
		}
		for range 3 {
			nc.let <- nil
		}
		synctest.Wait()
		if !passed || nc.text.Len() != len("first")+maxBatched+len("last") {
			t.Errorf("%d bytes written", nc.text.Len())
		}
		if cap(g.waiting) > keptBuffer || cap(g.spare) > keptBuffer {
			t.Errorf("keeps %d and %d bytes", cap(g.waiting), cap(g.spare))
		}
	})
}

// A write that fails closes the connection; who waits for room is told, too.
func TestGatherFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nc := &heldConn{let: make(chan error)}
		g := newWriteBatcher(nc, always, goSpawn)
		if _, err := g.Write([]byte("first")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := g.Write(make([]byte, maxBatched)); err != nil {
			t.Fatal(err)
		}
		waits := make(chan error, 1)
		go func() {
			_, err := g.Write([]byte("waits"))
			waits <- err
		}()
		synctest.Wait()
		broken := errors.New("broken")
		nc.let <- broken
		if err := <-waits; err != broken {
			t.Errorf("who waited: %v", err)
		}
		if _, err := g.Write([]byte("later")); err != broken || !nc.closed || nc.writes != 0 {
			t.Errorf("later: %v; closed %v, %d writes", err, nc.closed, nc.writes)
		}
	})
}

// Without anybody to write, nothing is taken over.
func TestGatherClosed(t *testing.T) {
	t.Parallel()
	g := newWriteBatcher(&heldConn{}, always, func(func()) bool { return false })
	if _, err := g.Write([]byte("x")); !errors.Is(err, errClosed) || len(g.waiting) > 0 {
		t.Error(err)
	}
}

// A goroutine of the pool that is done takes the next call, dismiss ends it, and close waits for
// those that work.
func TestWorkerPool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool := newWorkerPool()
		var mu sync.Mutex
		done := 0
		call := func() {
			mu.Lock()
			defer mu.Unlock()
			done++
		}
		for range 3 { // one after the other: one goroutine
			pool.run(call)
			synctest.Wait()
		}
		idle := func() (n int) {
			for {
				select {
				case pool.free <- nil:
					n++
				default:
					return n
				}
			}
		}
		if n := idle(); n != 1 || done != 3 {
			t.Fatalf("%d goroutines, %d calls", n, done)
		}
		for range 5 { // at once: five
			pool.run(call)
		}
		synctest.Wait()
		pool.dismiss()
		synctest.Wait()
		if n := idle(); n != 0 || done != 8 {
			t.Fatalf("%d goroutines left, %d calls", n, done)
		}
		let := make(chan struct{})
		pool.run(func() { <-let; call() })
		pool.close()
		waited := false
		go func() {
			pool.wait()
			waited = true
		}()
		synctest.Wait()
		if waited {
			t.Error("did not wait")
		}
		close(let)
		synctest.Wait()
		if !waited || done != 9 {
			t.Errorf("%d calls", done)
		}
	})
}
