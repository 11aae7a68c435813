package apnsconn

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"propeller/internal/neterr"
)

const (
	readBuffer   = 8 << 10  // a few hundred answers
	maxReadFrame = 16 << 10 // HTTP/2's default, which is also its minimum

	// The peer has a budget for frames. Each frame costs 1, and 1 more for each KiB and each
	// setting in it. The peer earns noiseRate a second, up to noiseBurst; perPush for each push
	// that ends; and perData for each DATA frame sent to it. An answer takes two or three
	// frames, DATA two WINDOW_UPDATEs. What pushes and DATA earned between two refills counts
	// up to mostEarned.
	noiseRate  = 500
	noiseBurst = 2000
	perPush    = 16
	perData    = 2
	mostEarned = 16 << 10
)

// reader turns the peer's frames into outcomes. It runs on one goroutine and locks Conn.mu
// whenever it needs the connection's state.
type reader struct {
	c       *Conn
	src     *source
	buf     *bufio.Reader
	frames  *http2.Framer
	decoder *hpack.Decoder
	head    answerHead

	budget   int           // what the peer may spend before the next refill
	refilled time.Duration // when the last refill was
}

// source reads from the network, and notes when bytes came in and how reading ended.
type source struct {
	c   *Conn
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.c.nc.Read(p)
	if n > 0 {
		s.c.lastRead.Store(int64(s.c.now()))
	}
	if err != nil {
		s.err = err
	}
	return n, err
}

func newReader(c *Conn) *reader {
	r := &reader{c: c, src: &source{c: c}, budget: noiseBurst}
	r.buf = bufio.NewReaderSize(r.src, readBuffer)
	r.frames = http2.NewFramer(nil, r.buf)
	r.frames.SetMaxReadFrameSize(maxReadFrame)
	r.frames.SetReuseFrames()
	r.decoder = hpack.NewDecoder(maxTableSize, func(f hpack.HeaderField) { r.head.field(f) })
	r.decoder.SetMaxStringLength(maxHeaderList)
	return r
}

// loop reads until the connection ends.
func (r *reader) loop() {
	for {
		err := r.frame()
		if err != nil {
			r.stop(err)
			return
		}
		if !r.more() {
			r.uncork()
		}
	}
}

// more reports whether the next frame is buffered in full, so that reading it does not block.
func (r *reader) more() bool {
	n := r.buf.Buffered()
	if n < frameHeader {
		return false
	}
	h, err := r.buf.Peek(frameHeader)
	if err != nil {
		return false
	}
	return n >= frameHeader+int(binary.BigEndian.Uint32(h)>>8)
}

// uncork wakes the writer for what the callbacks of this batch have sent, and reports that Free
// has grown.
func (r *reader) uncork() {
	c := r.c
	c.mu.Lock()
	c.corked = false
	c.wakeWriter()
	c.unlock()
}

// stop ends the connection because reading failed with err.
func (r *reader) stop(err error) {
	c := r.c
	var breach *peerError
	c.mu.Lock()
	c.corked = false
	if errors.As(err, &breach) {
		c.end(err, breach.code)
	} else {
		c.drop(err)
	}
	c.unlock()
}

// frame reads and handles one frame. Its error ends the connection.
func (r *reader) frame() error {
	h, err := r.frames.ReadFrameHeader()
	if err != nil {
		return r.readError(err)
	}
	if !r.spend(1 + int(h.Length>>10)) {
		return r.flood(h)
	}
	f, err := r.parse(h)
	if err != nil {
		if h.Type == http2.FrameHeaders && errors.As(err, new(http2.StreamError)) {
			// Its header block is lost, so the two ends' header tables differ from now on
			// (RFC 9113 §4.3).
			return breach(http2.ErrCodeProtocol, "malformed HEADERS")
		}
		return r.readError(err)
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		r.head.start(f)
		return r.block(f.FrameHeader, f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return r.block(f.FrameHeader, f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		return r.do(func() (*push, error) { return r.c.data(f) })
	}
	return r.controlFrame(f)
}

// parse reads a frame whose header was read.
func (r *reader) parse(h http2.FrameHeader) (f http2.Frame, err error) {
	defer recovered(&err)
	return r.frames.ReadFrameForHeader(h)
}

// decode decodes a fragment of a header block.
func (r *reader) decode(fragment []byte, last bool) (err error) {
	defer recovered(&err)
	if _, err := r.decoder.Write(fragment); err != nil || !last {
		return err
	}
	return r.decoder.Close()
}

// errPanic ends a connection when a library panics over what its peer sent.
var errPanic = errors.New("apnsconn: connection given up: panic over what the peer sent")

// recovered turns a panic into an error. It is deferred where no lock is held.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w: %v", errPanic, v)
	}
}

// controlFrame handles frames that carry no answers.
func (r *reader) controlFrame(f http2.Frame) error {
	c := r.c
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !r.spend(f.NumSettings()) {
			return r.flood(f.FrameHeader)
		}
	case *http2.PushPromiseFrame:
		return breach(http2.ErrCodeProtocol, "PUSH_PROMISE") // ENABLE_PUSH is 0
	}
	c.mu.Lock()
	defer c.unlock()
	if c.ended {
		return nil
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.applySettings(f)
		}
		if c.settingsSent == 0 {
			return breach(http2.ErrCodeProtocol, "acknowledges SETTINGS that were not sent")
		}
		c.settingsSent--
	case *http2.PingFrame:
		if !f.IsAck() { // reading an acknowledgement is all it takes
			c.control(c.frames.WritePing(true, f.Data))
		}
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.resetByPeer(f)
	case *http2.GoAwayFrame:
		c.goAway(f)
	}
	return nil // unknown types (RFC 9113 §5.5) and PRIORITY are ignored
}

// block decodes one fragment of a header block, and handles the block when it is complete.
// Blocks of ended streams are decoded too, to keep the dynamic table right.
func (r *reader) block(f http2.FrameHeader, fragment []byte, last bool) error {
	h := &r.head
	h.encoded += len(fragment)
	h.frames++
	if h.encoded > maxHeaderBlock || h.frames > maxContinuations {
		return breach(http2.ErrCodeEnhanceYourCalm, "header block without end")
	}
	switch err := r.decode(fragment, last); {
	case errors.Is(err, errPanic):
		return err
	case err != nil:
		return breach(http2.ErrCodeCompression, "%v", err)
	case !last:
		return nil
	}
	f.Type = http2.FrameHeaders
	return r.do(func() (*push, error) { return r.c.head(h, f) })
}

// do calls handle with mu held. If that completed an answer, it then makes the push's callback
// without mu.
func (r *reader) do(handle func() (*push, error)) error {
	c := r.c
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return nil
	}
	c.corked = true
	p, err := handle()
	if p == nil {
		c.unlock()
		return err
	}
	o := c.answered(p)
	c.unlock()
	p.done(o)
	return nil
}

// spend takes n off the peer's budget and reports whether the budget covers it.
func (r *reader) spend(n int) bool {
	r.budget -= n
	return r.budget >= 0 || r.refill()
}

// refill adds to the peer's budget what it has earned since the last refill, and reports
// whether the budget is positive again.
func (r *reader) refill() bool {
	c := r.c
	c.mu.Lock()
	earned := perPush*c.endedPushes + perData*c.dataFrames
	c.endedPushes, c.dataFrames = 0, 0
	c.mu.Unlock()
	now := c.now()
	r.budget += min(noiseBurst, int(noiseRate*(now-r.refilled).Seconds())) + min(mostEarned, earned)
	r.refilled = now
	return r.budget >= 0
}

// flood is the error for a peer that causes work without end.
func (r *reader) flood(h http2.FrameHeader) error {
	return breach(http2.ErrCodeEnhanceYourCalm, "flood of frames without answers, the last one %s", h.Type)
}

// readError says what an error of ReadFrame means: the connection is lost, or the peer is at
// fault.
func (r *reader) readError(err error) error {
	var stream http2.StreamError
	var conn http2.ConnectionError
	switch {
	case errors.Is(err, errPanic):
		return err
	case r.src.err != nil:
		return networkError(r.src.err)
	case errors.As(err, &stream):
		return r.do(func() (*push, error) { return nil, r.c.failStream(stream) })
	case errors.As(err, &conn):
		detail := r.frames.ErrorDetail()
		if detail == nil {
			return breach(http2.ErrCode(conn), "malformed frame")
		}
		return breach(http2.ErrCode(conn), "%v", detail)
	case errors.Is(err, http2.ErrFrameTooLarge):
		return breach(http2.ErrCodeFrameSize, "frame of more than %d bytes", maxReadFrame)
	}
	return breach(http2.ErrCodeProtocol, "%v", err)
}

// failStream handles a malformed frame that concerns only its stream. mu is held.
func (c *Conn) failStream(e http2.StreamError) error {
	p, err := c.streamOf(http2.FrameHeader{Type: http2.FrameWindowUpdate, StreamID: e.StreamID})
	if p != nil {
		c.fail(p, e.Code, "malformed frame")
	}
	return err
}

// networkError is the error for a lost connection. It recognizes a refusal of the credential,
// which under TLS 1.3 comes only after the handshake.
func networkError(err error) error {
	if isCredentialAlert(err) {
		return fmt.Errorf("apnsconn: %w: %w", ErrCredential, err)
	}
	return fmt.Errorf("apnsconn: connection lost: %w", neterr.Plain(err, ""))
}
