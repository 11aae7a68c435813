package apnstest

import (
	"fmt"
	"time"

	"golang.org/x/net/http2"
)

// windowStep is how much DATA is acknowledged at once. WINDOW_UPDATEs of
// about 32 KiB are what is seen at APNs.
const windowStep = 32 << 10

// maxWindow is the largest flow-control window (RFC 9113 section 6.9.1).
const maxWindow = 1<<31 - 1

// flow is a connection's flow control: of DATA received in the first group,
// of answers sent in the second. It needs conn.mu.
type flow struct {
	window   int64 // what the client may have unacknowledged
	used     int64 // what it has
	owed     int64 // received and not put in a WINDOW_UPDATE yet
	withheld bool  // no WINDOW_UPDATEs

	send         int64 // the client's window for the connection
	peerInitial  int64 // its INITIAL_WINDOW_SIZE
	peerMaxFrame int   // its MAX_FRAME_SIZE
}

func (f *flow) init(window uint32) {
	f.window = max(int64(window), defaultConnWindow)
	f.send, f.peerInitial, f.peerMaxFrame = 65535, 65535, 16384 // RFC 9113 sections 6.5.2, 6.9.2
}

// receive counts DATA. It returns false when the window is overrun.
func (f *flow) receive(size int64) bool {
	f.used += size
	f.owed += size
	return f.used <= f.window
}

// returnWindow sends a WINDOW_UPDATE for the connection when a step is full.
// It needs c.mu.
func (c *conn) returnWindow() {
	if f := &c.flow; f.owed < windowStep || f.withheld {
		return
	}
	c.returnOwed()
}

// returnOwed acknowledges all DATA received so far. It needs c.mu.
func (c *conn) returnOwed() {
	owed := c.flow.owed
	if owed == 0 || !c.writable() {
		return
	}
	c.flow.owed = 0
	if d := c.delay(); d > 0 && c.srv.opt.DelayWindowUpdates {
		c.timers.push(timed{due: time.Now().Add(d), window: owed})
		return
	}
	c.sendWindow(owed)
}

func (c *conn) sendWindow(n int64) {
	c.flow.used -= n
	c.fr.WriteWindowUpdate(0, uint32(n))
}

// returnStreamWindow lets a client go on with a body when half of the
// stream's window is used. It needs c.mu.
func (c *conn) returnStreamWindow(st *stream) {
	if c.flow.withheld || !c.writable() || st.used*2 < int64(c.limits.announced.window) || st.used <= 0 {
		return
	}
	c.fr.WriteWindowUpdate(st.id, uint32(st.used))
	st.used = 0
}

// windowUpdate takes a WINDOW_UPDATE of the client.
func (c *conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		c.flow.send += int64(f.Increment)
		if c.flow.send > maxWindow {
			return fault{http2.ErrCodeFlowControl, "WINDOW_UPDATE above the largest window"}
		}
		c.sendBlocked()
		return nil
	}
	if f.StreamID > c.lastID {
		return fault{http2.ErrCodeProtocol, fmt.Sprintf("WINDOW_UPDATE on stream %d, which was never opened", f.StreamID)}
	}
	st := c.streams[f.StreamID]
	if st == nil {
		return nil // closed meanwhile
	}
	st.credit += int64(f.Increment)
	if c.flow.peerInitial+st.credit > maxWindow {
		c.srv.violations.add(c.id, "stream %d: WINDOW_UPDATE above the largest window", st.id)
		c.writeReset(st.id, http2.ErrCodeFlowControl)
		c.close(st)
		return nil
	}
	c.sendBlocked()
	return nil
}

// sendBlocked goes on with answers that waited for the client's windows. It
// needs c.mu.
func (c *conn) sendBlocked() {
	waiting := c.blocked
	c.blocked = nil
	for _, st := range waiting {
		body := st.rest
		st.rest = nil
		c.sendBody(st, body)
	}
}
