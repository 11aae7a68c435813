package apnstest

import (
	"sync/atomic"

	"golang.org/x/net/http2"
)

// limits are the server's settings on a connection. The client is bound by a
// SETTINGS frame from when it acknowledges it; between sending and
// acknowledgement either side's view is allowed. All but table need conn.mu.
type limits struct {
	announced values   // as of the last SETTINGS frame queued
	pending   []values // the same, per SETTINGS frame not acknowledged yet
	acked     values   // as of the last one acknowledged
	full      uint32   // MAX_CONCURRENT_STREAMS of good times
	low       bool     // announced one stream instead of full

	table atomic.Uint32 // the largest dynamic table the client may use
}

// maxPending bounds the SETTINGS frames without acknowledgement that are
// remembered. A client that acknowledges none of so many is not being
// checked any more.
const maxPending = 1000

func (l *limits) init(o Options) {
	l.announced = o.Settings.values()
	l.full = l.announced.maxStreams
	if o.OneStreamFirst {
		l.announced.maxStreams = 1
		l.low = true
	}
	// RFC 9113 section 6.5.2: what holds before any SETTINGS.
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
		in.mustFit = true // RFC 7541 section 4.2
	}
	return nil
}

// tableUpdate follows the table size updates at the beginning of a block,
// and misses one that must be there.
func (in *inbound) tableUpdate(block []byte) error {
	updated := false
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // RFC 7541 section 6.3
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

// prefixInt reads an integer of RFC 7541 section 5.1. Of one that is cut off
// or too long it returns what there is: the decoder reports it.
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
