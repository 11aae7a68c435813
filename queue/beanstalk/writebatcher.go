package beanstalk

import (
	"net"
	"runtime"
	"sync"
)

const (
	// maxBatched is how many bytes wait for the write under way before the next
	// command waits itself. Some 2,500 deletes: more than are ever under way.
	maxBatched = 64 << 10
	// keptBuffer is how large a buffer an idle connection keeps, in bytes.
	keptBuffer = 4 << 10
	// batchFrom is how many commands are under way when it is worth another
	// goroutine to have the next ones wait for each other.
	batchFrom = 8
)

// writeBatcher is a connection that, while it is busy, has writes not wait for the
// network: what comes while one is under way goes out together with the next.
// go-beanstalk writes each command by itself, and beanstalkd needs a few
// microseconds for one: with a system call for each, writing them would be a
// third of all work. While it is not busy, a command goes out at once.
//
// The caller of a batched write does not learn that it failed. The connection is closed
// then, so that the wait for the answer ends.
type writeBatcher struct {
	net.Conn
	busy  func() bool       // batchFrom commands are under way
	spawn func(func()) bool // runs its argument by itself; false: no more

	mu      sync.Mutex
	room    sync.Cond // there is less than maxBatched, or err; on mu
	waiting []byte    // not written yet
	spare   []byte    // a buffer for it
	writing bool      // flush is at work
	err     error     // why nothing is written any more
}

func newWriteBatcher(nc net.Conn, busy func() bool, spawn func(func()) bool) *writeBatcher {
	g := &writeBatcher{Conn: nc, busy: busy, spawn: spawn}
	g.room.L = &g.mu
	return g
}

// Write writes p, or takes it over to be written. It waits while too much waits
// already. It is called by one goroutine at a time.
func (g *writeBatcher) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) >= maxBatched && g.err == nil {
		g.room.Wait()
	}
	if g.err == nil && !g.writing && !g.busy() {
		return g.Conn.Write(p)
	}
	if g.err == nil && !g.writing {
		if g.writing = g.spawn(g.flush); !g.writing {
			g.err = errClosed
		}
	}
	if g.err != nil {
		return 0, g.err
	}
	g.waiting = append(g.waiting, p...)
	return len(p), nil
}

// flush writes until nothing is left to write. An idle connection has no
// goroutine for that.
func (g *writeBatcher) flush() {
	// Goroutines that are ready to run a command go first. When there are none, this
	// returns at once.
	runtime.Gosched()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && len(g.waiting) > 0 {
		out := g.waiting
		g.waiting, g.spare = g.spare[:0], nil
		g.room.Broadcast()
		g.mu.Unlock()
		_, err := g.Conn.Write(out)
		g.mu.Lock()
		g.spare = out[:0]
		if err != nil {
			g.err = err
			g.room.Broadcast()
			_ = g.Conn.Close() // of a connection that is of no use any more
		}
	}
	g.writing = false
	if cap(g.spare) > keptBuffer {
		g.spare = nil
	}
	if cap(g.waiting) > keptBuffer {
		g.waiting = nil
	}
}
