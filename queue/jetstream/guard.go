package jetstream

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// Messages that nats.go has read and we have not looked at yet. More than that
	// comes only from a server that sends what nobody asked for: nats.go drops it.
	maxPending      = 64 << 10
	maxPendingBytes = 256 << 20

	// maxStray is how many more jobs than are wanted may wait: those of pulls that
	// were given up. Others are given back at once.
	maxStray = 2 * maxBatch

	// largeWait is how long a large answer may take.
	largeWait = time.Minute

	maxStack = 8 << 10 // what is logged of a panic's stack
)

// guarded is for callbacks, which run on a goroutine of nats.go. A panic over what
// a server has said ends the connection, and not the process.
func (q *client) guarded(f func(*nats.Msg)) nats.MsgHandler {
	return func(m *nats.Msg) {
		defer func() {
			if v := recover(); v != nil {
				q.link.suspect(unavailable(q.panicked(v)))
				if cn, _, _, _ := q.link.ready(); cn != nil {
					_ = cn.nc.ForceReconnect() // an error: it is closed
				}
			}
		}()
		f(m)
	}
}

// panicked is the error for a panic over what a server has said.
func (q *client) panicked(v any) error {
	stack := debug.Stack()
	q.opts.Log.Error("panic over a message of the queue", "queue", q.opts.String(), "panic", v, "stack", string(stack[:min(len(stack), maxStack)]))
	return fmt.Errorf("panic over a message: %v", v)
}

// expectLarge has answers of more than maxAnswer bytes be let through for a while:
// a list of subjects, or a job, is to be asked for.
func (q *client) expectLarge() { q.large.Store(time.Now().Add(largeWait).UnixNano()) }

// expectsLarge is for the wire.
func (q *client) expectsLarge() bool { return time.Now().UnixNano() < q.large.Load() }

// roomLocked reports whether one more job may wait.
func (c *consumer) roomLocked(body []byte) bool {
	if len(c.waiting) >= c.want+maxStray {
		return false
	}
	if len(body) <= maxPendingBytes/maxPending {
		return true
	}
	size := len(body)
	for _, j := range c.waiting {
		size += len(j.body)
	}
	return size <= maxPendingBytes || len(c.waiting) == 0
}
