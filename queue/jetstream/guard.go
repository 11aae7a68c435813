package jetstream

import (
	"fmt"
	"runtime/debug"

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
