package apnstest

import (
	"net"
	"time"
)

// outbound holds what waits to be written. It needs conn.mu.
type outbound struct {
	buf   []byte
	marks []mark
	spare []byte // the buffer written last, for reuse
}

// mark is a function to call when out.buf has been written up to at.
type mark struct {
	at int
	f  func(*Conn)
}

// Write queues bytes, for http2.Framer.
func (o *outbound) Write(p []byte) (int, error) {
	o.buf = append(o.buf, p...)
	return len(p), nil
}

// maxSpare is how large a buffer is kept for reuse.
const maxSpare = 256 << 10

// end is how a connection ends once everything queued has been written.
type end int

const (
	endNot end = iota
	endTCP     // FIN without close_notify
	endTLS     // close_notify and FIN
)

// signal wakes write.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default: // already signalled
	}
}

// flush lets write take what was gathered.
func (c *conn) flush() {
	c.mu.Lock()
	news := len(c.out.buf) > 0 || len(c.out.marks) > 0 || c.timers.sooner
	c.timers.sooner = false
	c.mu.Unlock()
	if news {
		c.signal()
	}
}

// write writes what is queued, and delayed answers when they are due, until the connection ends.
func (c *conn) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch, marks, ending, next := c.take()
		switch {
		case len(batch) > 0 || len(marks) > 0:
			ending, err := c.writeBatch(batch, marks)
			if err != nil {
				c.abort()
				return
			}
			if ending != endNot {
				c.hangUp(ending)
				return
			}
			continue
		case ending != endNot:
			c.hangUp(ending)
			return
		}
		timer.Reset(next)
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.done:
			return
		}
	}
}

// take returns what to write now, how the connection ends after it, and the time until the next
// delayed answer.
func (c *conn) take() (batch []byte, marks []mark, ending end, next time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled && c.ending == endNot {
		return nil, nil, endNot, time.Hour
	}
	next = c.release(time.Now())
	o := &c.out
	batch, marks = o.buf, o.marks
	o.buf, o.marks, o.spare = o.spare[:0], nil, nil
	if cap(batch) <= maxSpare {
		o.spare = batch // written before the next take
	}
	c.room.Signal()
	return batch, marks, c.ending, next
}

// release queues the answers that are due at now. It returns the time until
// the next one. It needs c.mu.
func (c *conn) release(now time.Time) time.Duration {
	for len(c.timers.heap) > 0 {
		if wait := c.timers.heap[0].due.Sub(now); wait > 0 {
			return wait
		}
		t := c.timers.pop()
		if t.st != nil {
			c.answer(t.st)
		} else if c.writable() {
			c.sendWindow(t.window)
		}
	}
	return time.Hour
}

// writeBatch writes batch and calls the marks' functions in between. It returns how one of them
// wants the connection to end.
func (c *conn) writeBatch(batch []byte, marks []mark) (end, error) {
	pos := 0
	for _, m := range marks {
		if err := c.writeAll(batch[pos:m.at]); err != nil {
			return endNot, err
		}
		pos = m.at
		handle := &Conn{c: c, first: new(interlude)}
		m.f(handle)
		queued, ending := handle.release()
		if err := c.writeAll(queued); err != nil {
			return endNot, err
		}
		if ending != endNot {
			return ending, nil
		}
	}
	return endNot, c.writeAll(batch[pos:])
}

func (c *conn) writeAll(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := c.tls.Write(p)
	return err
}

// hangUp closes our side. serve waits a moment for the client to close its side.
func (c *conn) hangUp(ending end) {
	c.lastWait()
	if ending == endTLS {
		c.tls.CloseWrite()
	}
	if tcp, ok := c.tcp.Conn.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
}

// timed is an answer, or a WINDOW_UPDATE when st is nil, that waits for its time.
type timed struct {
	due    time.Time
	seq    uint64 // order among equals
	st     *stream
	window int64
}

// timerHeap holds what is delayed, soonest first. It needs conn.mu.
type timerHeap struct {
	heap   []timed
	seq    uint64
	sooner bool // the first changed; write must be told
}

func (h *timerHeap) before(i, j int) bool {
	a, b := &h.heap[i], &h.heap[j]
	if a.due.Equal(b.due) {
		return a.seq < b.seq
	}
	return a.due.Before(b.due)
}

func (h *timerHeap) push(t timed) {
	h.seq++
	t.seq = h.seq
	h.heap = append(h.heap, t)
	i := len(h.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !h.before(i, parent) {
			break
		}
		h.heap[i], h.heap[parent] = h.heap[parent], h.heap[i]
		i = parent
	}
	if i == 0 {
		h.sooner = true
	}
}

func (h *timerHeap) pop() timed {
	top := h.heap[0]
	last := len(h.heap) - 1
	h.heap[0] = h.heap[last]
	h.heap[last] = timed{}
	h.heap = h.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if child+1 < last && h.before(child+1, child) {
			child++
		}
		if !h.before(child, i) {
			return top
		}
		h.heap[i], h.heap[child] = h.heap[child], h.heap[i]
		i = child
	}
}
