package apnsconn

import (
	"math"

	"golang.org/x/net/http2"
)

const (
	// maxWindow is the largest flow-control window (RFC 9113 §6.9.1).
	maxWindow = 1<<31 - 1

	// maxSettings bounds the settings in one frame, each of which may change every open stream.
	// Fewer than ten are defined.
	maxSettings = 64
)

// peerSettings are the peer's limits for what is sent to it.
type peerSettings struct {
	maxStreams    uint32
	initialWindow int64
	maxHeaderList uint32
}

// defaultPeerSettings apply until the peer sets something else (RFC 9113 §6.5.2).
func defaultPeerSettings() peerSettings {
	return peerSettings{
		maxStreams:    math.MaxInt32,
		initialWindow: 65535,
		maxHeaderList: math.MaxUint32,
	}
}

// applySettings applies the peer's SETTINGS from the next frame on, and acknowledges them. mu
// is held.
func (c *Conn) applySettings(f *http2.SettingsFrame) error {
	if f.NumSettings() > maxSettings {
		return breach(http2.ErrCodeEnhanceYourCalm, "%d settings in one frame", f.NumSettings())
	}
	if err := f.ForeachSetting(c.applySetting); err != nil {
		return err
	}
	c.control(c.frames.WriteSettingsAck())
	c.changed = true // the stream limit may have risen
	return nil
}

func (c *Conn) applySetting(s http2.Setting) error {
	switch s.ID {
	case http2.SettingHeaderTableSize:
		c.headers.setTableSize(s.Val)
	case http2.SettingEnablePush:
		if s.Val != 0 {
			return breach(http2.ErrCodeProtocol, "server sets ENABLE_PUSH to %d", s.Val)
		}
	case http2.SettingMaxConcurrentStreams:
		c.peer.maxStreams = min(s.Val, math.MaxInt32)
	case http2.SettingInitialWindowSize:
		return c.setInitialWindow(s.Val)
	case http2.SettingMaxFrameSize:
		// Only the minimum is ever used (maxSendFrame), so the value only has to be legal.
		if s.Val < 1<<14 || s.Val > 1<<24-1 {
			return breach(http2.ErrCodeProtocol, "MAX_FRAME_SIZE %d", s.Val)
		}
	case http2.SettingMaxHeaderListSize:
		c.peer.maxHeaderList = s.Val
	}
	return nil
}

// setInitialWindow changes the windows of new and open streams alike; those of open streams
// may become negative (RFC 9113 §6.9.2).
func (c *Conn) setInitialWindow(v uint32) error {
	if v > maxWindow {
		return breach(http2.ErrCodeFlowControl, "INITIAL_WINDOW_SIZE %d", v)
	}
	delta := int64(v) - c.peer.initialWindow
	c.peer.initialWindow = int64(v)
	if delta == 0 {
		return nil
	}
	for p := c.all.head; p != nil; p = p.links[kindAll].next { // in the order they were sent
		if p.id == 0 {
			continue
		}
		if !c.widen(p, delta) {
			return breach(http2.ErrCodeFlowControl, "INITIAL_WINDOW_SIZE %d makes a window overflow", v)
		}
	}
	return nil
}

// widen changes p's window by n. It returns false if the window becomes too large. mu is held.
func (c *Conn) widen(p *push, n int64) bool {
	p.window += n
	switch {
	case p.window > maxWindow:
		return false
	case p.window <= 0 || len(p.unwritten()) == 0:
		p.leave(kindQueue)
	case p.in[kindQueue] == nil:
		c.blocked.add(p)
	}
	return true
}

// windowUpdate handles a WINDOW_UPDATE frame. mu is held.
func (c *Conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		c.window += int64(f.Increment)
		if c.window > maxWindow {
			return breach(http2.ErrCodeFlowControl, "the connection's window overflows")
		}
		return nil
	}
	p, err := c.streamOf(f.Header())
	if p == nil {
		return err
	}
	if !c.widen(p, int64(f.Increment)) {
		c.fail(p, http2.ErrCodeFlowControl, "its window overflows")
	}
	return nil
}

// resetByPeer handles a RST_STREAM frame. mu is held.
func (c *Conn) resetByPeer(f *http2.RSTStreamFrame) error {
	p, err := c.streamOf(f.Header())
	if p == nil {
		return err
	}
	o := p.lost(&streamError{Code: f.ErrCode, Remote: true})
	if f.ErrCode == http2.ErrCodeRefusedStream && p.status == 0 {
		o.Class = NotSent // by RFC 9113 §8.7 the peer did not process it
	}
	c.heardOf()
	c.finish(p, o)
	return nil
}

// goAway handles a GOAWAY frame. There may be several, each with a lower last stream than the
// one before. mu is held.
func (c *Conn) goAway(f *http2.GoAwayFrame) {
	why := newGoAwayError(f)
	var refused []*push
	for p := c.all.head; p != nil; p = p.links[kindAll].next {
		if p.id > f.LastStreamID {
			refused = append(refused, p)
		}
	}
	for _, p := range refused {
		c.resets.add(p.id) // the peer may still send frames for them
		o := p.lost(why)
		if p.status == 0 {
			o.Class = NotSent // by RFC 9113 §6.8 the peer did not process it
		}
		c.finish(p, o)
	}
	if why.Reason == "ExpiredProviderToken" && c.token.cur != nil {
		c.token.expired()
	}
	c.retire(why)
}

// streamOf finds the push of a frame's stream. It is nil without an error if the stream has
// ended and such a frame may still come; the error says that the peer must not have sent it. mu
// is held.
func (c *Conn) streamOf(h http2.FrameHeader) (*push, error) {
	if p := c.streams[h.StreamID]; p != nil {
		return p, nil
	}
	if h.StreamID%2 == 0 || h.StreamID >= c.nextID {
		return nil, breach(http2.ErrCodeProtocol, "%s on stream %d, which was never opened", h.Type, h.StreamID)
	}
	if h.Type == http2.FrameData || h.Type == http2.FrameHeaders {
		if !c.resets.has(h.StreamID) {
			return nil, breach(http2.ErrCodeStreamClosed, "%s on stream %d, which it had ended", h.Type, h.StreamID)
		}
	}
	return nil, nil
}

// fail ends p because the peer broke HTTP/2 on its stream. mu is held.
func (c *Conn) fail(p *push, code http2.ErrCode, what string) {
	c.reset(p, code)
	c.finish(p, p.lost(&streamError{Code: code, What: what}))
}
