package apnstest

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// windowStep is how much DATA is acknowledged at once. APNs has been seen to send WINDOW_UPDATEs
// of about 32 KiB.
const windowStep = 32 << 10

// maxWindow is the largest flow-control window (RFC 9113 §6.9.1).
const maxWindow = 1<<31 - 1

// flow is a connection's flow control: for received DATA in the first group of fields, for sent
// answers in the second. It needs conn.mu.
type flow struct {
	window   int64 // what the client may have unacknowledged
	used     int64 // what the client has unacknowledged
	owed     int64 // received and not put in a WINDOW_UPDATE yet
	withheld bool  // no WINDOW_UPDATEs

	send         int64 // the client's window for the connection
	peerInitial  int64 // its INITIAL_WINDOW_SIZE
	peerMaxFrame int   // its MAX_FRAME_SIZE
}

func (f *flow) init(window uint32) {
	f.window = max(int64(window), defaultConnWindow)
	f.send, f.peerInitial, f.peerMaxFrame = 65535, 65535, 16384 // RFC 9113 §6.5.2, §6.9.2
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

// returnStreamWindow lets a client continue a body when half of the stream's window is used. It
// needs c.mu.
func (c *conn) returnStreamWindow(st *stream) {
	if c.flow.withheld || !c.writable() || st.used*2 < int64(c.limits.announced.window) || st.used <= 0 {
		return
	}
	c.fr.WriteWindowUpdate(st.id, uint32(st.used))
	st.used = 0
}

// windowUpdate handles a WINDOW_UPDATE of the client.
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

// sendBlocked continues answers that waited for the client's windows. It needs c.mu.
func (c *conn) sendBlocked() {
	waiting := c.blocked
	c.blocked = nil
	for _, st := range waiting {
		body := st.rest
		st.rest = nil
		c.sendBody(st, body)
	}
}

// limits are the server's settings on a connection. A SETTINGS frame binds the client once the
// client acknowledges it; until then either side's view is allowed. All fields except table need
// conn.mu.
type limits struct {
	announced values   // as of the last SETTINGS frame queued
	pending   []values // the same, per SETTINGS frame not acknowledged yet
	acked     values   // as of the last one acknowledged
	full      uint32   // the usual MAX_CONCURRENT_STREAMS
	low       bool     // announced one stream instead of full

	table atomic.Uint32 // the largest dynamic table the client may use
}

// maxPending bounds how many unacknowledged SETTINGS frames are remembered. A client that
// acknowledges none of them is not checked any more.
const maxPending = 1000

func (l *limits) init(o Options) {
	l.announced = o.Settings.values()
	l.full = l.announced.maxStreams
	if o.OneStreamFirst {
		l.announced.maxStreams = 1
		l.low = true
	}
	// RFC 9113 §6.5.2: these apply before any SETTINGS.
	l.acked = values{noLimit, 65535, 16384, 4096, noLimit}
	l.agree()
}

// first returns the server's first SETTINGS frame.
func (l *limits) first(o Options) []http2.Setting {
	l.sent()
	return l.announced.frame(o.Settings.NoStreamLimit && !l.low)
}

// sent notes that a SETTINGS frame with the announced values was queued.
func (l *limits) sent() {
	if len(l.pending) < maxPending {
		l.pending = append(l.pending, l.announced)
	}
	l.agree()
}

// ack notes an acknowledgement. ok is false when there was nothing to acknowledge.
func (l *limits) ack() (ok bool) {
	if len(l.pending) == 0 {
		return false
	}
	l.acked = l.pending[0]
	l.pending = l.pending[:copy(l.pending, l.pending[1:])]
	l.agree()
	return true
}

func (l *limits) agree() {
	l.table.Store(l.most(func(v *values) uint32 { return v.tableSize }))
}

// most returns the most that any view of the settings allows.
func (l *limits) most(of func(*values) uint32) uint32 {
	n := of(&l.acked)
	for i := range l.pending {
		n = max(n, of(&l.pending[i]))
	}
	return n
}

func (l *limits) agreedStreams() uint32 {
	return l.most(func(v *values) uint32 { return v.maxStreams })
}

func (l *limits) agreedWindow() int64 {
	return int64(l.most(func(v *values) uint32 { return v.window }))
}

// change applies settings to the announced values.
func (l *limits) change(settings []http2.Setting) {
	for _, s := range settings {
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			l.announced.maxStreams = s.Val
			l.full, l.low = s.Val, false
		case http2.SettingInitialWindowSize:
			l.announced.window = s.Val
		case http2.SettingMaxFrameSize:
			l.announced.maxFrame = s.Val
		case http2.SettingHeaderTableSize:
			l.announced.tableSize = s.Val
		case http2.SettingMaxHeaderListSize:
			l.announced.maxHeaderList = s.Val
		}
	}
	l.sent()
}

// adapt lowers or raises the stream limit after an answer with status, as the
// options say. It needs c.mu.
func (c *conn) adapt(status int) {
	l := &c.limits
	switch {
	case status == 200 && l.low:
		l.low = false
		l.announced.maxStreams = l.full
	case status >= 400 && status < 500 && status != 410 && !l.low && c.srv.opt.DropTo1After4xx:
		l.low = true
		l.announced.maxStreams = 1
	default:
		return
	}
	l.sent()
	c.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: l.announced.maxStreams})
}

// settings takes a SETTINGS frame of the client.
func (c *conn) settings(f *http2.SettingsFrame) error {
	c.in.settings++
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.IsAck() {
		return c.settingsAck()
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.enc.SetMaxDynamicTableSize(s.Val)
		case http2.SettingInitialWindowSize:
			c.flow.peerInitial = int64(s.Val)
		case http2.SettingMaxFrameSize:
			c.flow.peerMaxFrame = int(s.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.writable() {
		c.fr.WriteSettingsAck()
	}
	c.sendBlocked()
	return nil
}

// settingsAck makes the reader follow what the client has agreed to. It
// needs c.mu.
func (c *conn) settingsAck() error {
	if !c.limits.ack() {
		c.srv.violations.add(c.id, "SETTINGS acknowledged that were not sent")
		return nil
	}
	in, v := &c.in, &c.limits.acked
	in.fr.SetMaxReadFrameSize(max(v.maxFrame, 16384))
	in.maxList = v.maxHeaderList
	if v.tableSize < in.table {
		in.mustFit = true // RFC 7541 §4.2
	}
	return nil
}

// tableUpdate applies the table size updates at the beginning of a block, and returns an error if
// a required one is missing.
func (in *inbound) tableUpdate(block []byte) error {
	updated := false
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // RFC 7541 §6.3
		var size uint64
		size, block = prefixInt(block, 5)
		in.table = uint32(min(size, noLimit))
		updated = true
	}
	if in.mustFit && !updated {
		return fault{http2.ErrCodeCompression, "HPACK: no table size update after HEADER_TABLE_SIZE was lowered"}
	}
	in.mustFit = false
	return nil
}

// prefixInt reads an integer (RFC 7541 §5.1). If it is cut off or too long, the result is
// incomplete: the decoder reports that fault.
func prefixInt(p []byte, bits uint) (uint64, []byte) {
	top := uint64(1)<<bits - 1
	n := uint64(p[0]) & top
	p = p[1:]
	if n < top {
		return n, p
	}
	for shift := uint(0); len(p) > 0 && shift < 63; shift += 7 {
		b := p[0]
		p = p[1:]
		n += uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
	}
	return n, p
}
