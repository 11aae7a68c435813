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
	readBuffer   = 8 << 10  // some hundred answers
	maxReadFrame = 16 << 10 // HTTP/2's default, which is also the least

	// Each frame of the peer costs one of its budget, and one more for each KiB and
	// each setting in it. It may spend noiseRate a second for long, and noiseBurst at
	// once, and beside that perPush for each push that ends and perData for each DATA
	// frame it was sent: an answer takes two or three frames, DATA two WINDOW_UPDATEs.
	// What lies unspent is worth mostEarned at most.
	noiseRate  = 500
	noiseBurst = 2000
	perPush    = 16
	perData    = 2
	mostEarned = 16 << 10
)

// reader turns what the peer sends into outcomes. It runs on one goroutine;
// what it needs of the connection's state it does under Conn.mu.
type reader struct {
	c       *Conn
	src     *source
	buf     *bufio.Reader
	frames  *http2.Framer
	decoder *hpack.Decoder
	head    answerHead

	budget   int           // what the peer may spend before refill is asked
	refilled time.Duration // when it was last
}

// source is the network, noting when anything came, and its error.
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

// more reports whether the next frame is already here in full, so that reading
// it will not block.
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

// uncork lets go what the callbacks of this batch have sent, and reports that
// Free has grown.
func (r *reader) uncork() {
	c := r.c
	c.mu.Lock()
	c.corked = false
	c.wakeWriter()
	c.unlock()
}

// stop ends the connection for err, which came from reading.
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
			// Its header block is lost, and with it what both ends' tables of
			// header fields have in common (RFC 9113 §4.3).
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

// parse reads a frame whose header has come.
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

// errPanic is the end of a connection over whose peer's words a library panicked.
var errPanic = errors.New("apnsconn: connection given up: panic over what the peer sent")

// recovered makes a panic an error. It is deferred where no lock is held.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w: %v", errPanic, v)
	}
}

// controlFrame handles the frames that carry no answers.
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
		if !f.IsAck() { // an acknowledgement has done its work by being read
			c.control(c.frames.WritePing(true, f.Data))
		}
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.resetByPeer(f)
	case *http2.GoAwayFrame:
		c.goAway(f)
	}
	return nil // unknown types are ignored (RFC 9113 §5.5), PRIORITY too
}

// block decodes one fragment of a header block, and handles the block when it
// is complete. Blocks of streams long gone are decoded too, for the sake of the
// dynamic table.
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

// do calls handle under mu and, if that completed an answer, the push's
// callback without.
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

// spend takes n off the peer's budget, and reports false when it has not that much.
func (r *reader) spend(n int) bool {
	r.budget -= n
	return r.budget >= 0 || r.refill()
}

// refill adds to the peer's budget what time and work have earned since the last
// time, and reports whether it is enough.
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

// flood ends a connection whose peer makes it work for nothing.
func (r *reader) flood(h http2.FrameHeader) error {
	return breach(http2.ErrCodeEnhanceYourCalm, "flood of frames that bring no answers, the last of them %s", h.Type)
}

// readError says what an error of ReadFrame means: the end of the network, or
// a fault of the peer's.
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

// failStream handles a frame that is at fault for its stream alone. mu is held.
func (c *Conn) failStream(e http2.StreamError) error {
	p, err := c.streamOf(http2.FrameHeader{Type: http2.FrameWindowUpdate, StreamID: e.StreamID})
	if p != nil {
		c.fail(p, e.Code, "malformed frame")
	}
	return err
}

// networkError names the end of the network, and finds in it a refusal of the
// credential, which under TLS 1.3 comes only after the handshake.
func networkError(err error) error {
	if isCredentialAlert(err) {
		return fmt.Errorf("apnsconn: %w: %w", ErrCredential, err)
	}
	return fmt.Errorf("apnsconn: connection lost: %w", neterr.Plain(err, ""))
}
