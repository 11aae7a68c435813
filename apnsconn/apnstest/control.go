package apnstest

import (
	"bytes"
	"crypto/x509"
	"net"

	"golang.org/x/net/http2"
)

// Conn is a connection to the server, for making it misbehave. Its methods
// may be called from any goroutine. Frames are written in the order of the
// calls, after everything queued before; the Conn passed to an [Answer].Then
// writes them right after that answer.
type Conn struct {
	c     *conn
	first *interlude // not nil while Then runs; needs c.mu
}

// interlude is what a Then does before anything that is queued after its answer.
type interlude struct {
	buf    bytes.Buffer
	ending end
}

// release ends an interlude: from now on the Conn is like any other.
func (c *Conn) release() ([]byte, end) {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	i := c.first
	c.first = nil
	return i.buf.Bytes(), i.ending
}

// ID returns the connection's number, from 1, as in [Request].Conn.
func (c *Conn) ID() int { return c.c.id }

// ClientCert returns the client's certificate, nil when it gave none.
func (c *Conn) ClientCert() *x509.Certificate { return c.c.cert }

// LastStream returns the highest stream id the client has opened, 0 before
// the first.
func (c *Conn) LastStream() uint32 {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return c.c.lastID
}

// OpenStreams returns how many streams are open: begun by the client, and not
// ended by both sides or reset.
func (c *Conn) OpenStreams() int {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	return len(c.c.streams)
}

// Done is closed when the connection has been lost or closed.
func (c *Conn) Done() <-chan struct{} { return c.c.done }

// Frames lets f write any frames, legal or not; they go out together. f must
// not call methods of Conn.
func (c *Conn) Frames(f func(fr *http2.Framer)) {
	c.do(func() {
		if c.first == nil {
			f(c.c.fr)
			return
		}
		fr := http2.NewFramer(&c.first.buf, nil)
		fr.AllowIllegalWrites = true
		f(fr)
	})
}

// do runs f with the lock held, unless the connection takes no more output.
func (c *Conn) do(f func()) {
	c.c.mu.Lock()
	if c.c.ending == endNot && !c.c.aborted {
		f()
	}
	c.c.mu.Unlock()
	c.c.signal()
}

// WriteRaw writes p unchanged, inside TLS.
func (c *Conn) WriteRaw(p []byte) {
	c.do(func() {
		if c.first != nil {
			c.first.buf.Write(p)
		} else {
			c.c.out.Write(p)
		}
	})
}

// Settings sends a SETTINGS frame, and makes the server act on it. The stream limit applies from
// now on: a stream above it is refused even if it was already on its way. The other settings
// apply once the client acknowledges them.
func (c *Conn) Settings(settings ...http2.Setting) {
	c.Frames(func(fr *http2.Framer) {
		c.c.limits.change(settings)
		fr.WriteSettings(settings...)
	})
}

// MaxStreams is Settings with MAX_CONCURRENT_STREAMS alone.
func (c *Conn) MaxStreams(n uint32) {
	c.Settings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
}

// GoAway sends GOAWAY as given. Streams above last are ignored from then on,
// and not answered when they were open; those up to it are answered. Call it
// again for a second GOAWAY.
func (c *Conn) GoAway(last uint32, code http2.ErrCode, debug []byte) {
	c.Frames(func(fr *http2.Framer) { c.writeGoAway(fr, last, code, debug) })
}

// Shutdown is GoAway with the highest stream id that the client has opened: everything it has
// sent so far is answered.
func (c *Conn) Shutdown(code http2.ErrCode, debug []byte) {
	c.Frames(func(fr *http2.Framer) { c.writeGoAway(fr, c.c.lastID, code, debug) })
}

func (c *Conn) writeGoAway(fr *http2.Framer, last uint32, code http2.ErrCode, debug []byte) {
	c.c.srv.stats.goAways.Add(1)
	c.c.goneID = min(c.c.goneID, last)
	fr.WriteGoAway(last, code, debug)
}

// GoAwayReason is the debug data of a GOAWAY as APNs sends it: JSON with a
// reason.
func GoAwayReason(reason string) []byte { return reasonJSON(reason) }

// Ping sends PING, and does not wait for the acknowledgement.
func (c *Conn) Ping(data [8]byte) {
	c.Frames(func(fr *http2.Framer) { fr.WritePing(false, data) })
}

// ResetStream sends RST_STREAM for a stream that is open, and forgets it. It
// goes out after everything queued, also while an [Answer].Then runs: ahead of
// an answer to that stream which is queued already it would break HTTP/2.
func (c *Conn) ResetStream(stream uint32, code http2.ErrCode) {
	c.do(func() {
		c.c.fr.WriteRSTStream(stream, code)
		if st := c.c.streams[stream]; st != nil {
			c.c.close(st)
		}
	})
}

// WindowUpdate gives the client n more bytes of window than flow control does, for stream or, if
// that is 0, for the connection.
func (c *Conn) WindowUpdate(stream, n uint32) {
	c.Frames(func(fr *http2.Framer) {
		if stream == 0 {
			c.c.flow.used -= int64(n)
		} else if st := c.c.streams[stream]; st != nil {
			st.used -= int64(n)
		}
		fr.WriteWindowUpdate(stream, n)
	})
}

// WithholdWindowUpdates stops acknowledging DATA, or continues and acknowledges at once what was
// withheld.
func (c *Conn) WithholdWindowUpdates(on bool) {
	c.do(func() {
		c.c.flow.withheld = on
		if on {
			return
		}
		c.c.returnOwed()
		for _, st := range c.c.streams {
			if !st.ended {
				c.c.returnStreamWindow(st)
			}
		}
	})
}

// Stall makes the connection half-open: nothing more is read or answered, and what is queued
// stays. Resume undoes it.
func (c *Conn) Stall() { c.do(func() { c.c.stalled = true }) }

// Mute continues to read and count requests, but sends nothing by itself: no answers, no
// acknowledgements. Requests that arrive meanwhile are not answered after Resume either.
func (c *Conn) Mute() { c.do(func() { c.c.muted = true }) }

// Resume ends Stall and Mute.
func (c *Conn) Resume() {
	c.do(func() {
		c.c.stalled, c.c.muted = false, false
		c.c.room.Broadcast()
	})
}

// CloseAbruptly loses the connection at once, by TCP RST, even if bytes are queued or unread.
func (c *Conn) CloseAbruptly() {
	if tcp, ok := c.c.tcp.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.c.abort()
}

// CloseTLS ends the connection in order, with close_notify and FIN, once everything queued has
// been written. Nothing more is read.
func (c *Conn) CloseTLS() { c.close(endTLS) }

// CloseTCP is CloseTLS without the close_notify: a FIN in the middle of TLS.
func (c *Conn) CloseTCP() { c.close(endTCP) }

func (c *Conn) close(how end) {
	c.do(func() {
		c.c.ending = how
		if c.first != nil {
			c.first.ending = how
		}
		c.c.room.Broadcast()
	})
}
