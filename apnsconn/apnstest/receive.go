package apnstest

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// read handles frames until the connection ends, and returns why.
func (c *conn) read() error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.in.br, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return fault{http2.ErrCodeProtocol, "no client preface"}
	}
	for {
		f, err := c.in.fr.ReadFrame()
		if waitErr := c.waitTurn(); waitErr != nil {
			return waitErr
		}
		if err == nil {
			err = c.frame(f)
		} else {
			err = c.unreadable(err)
		}
		if err != nil {
			return err
		}
	}
}

// unreadable handles a frame that http2.Framer refuses. It returns an error if that ends the
// connection.
func (c *conn) unreadable(err error) error {
	var se http2.StreamError
	if !errors.As(err, &se) {
		return err
	}
	if se.StreamID > c.in.lastID { // HPACK's state is lost with the block
		return fault{se.Code, "a frame that cannot be read, on a new stream: " + err.Error()}
	}
	c.reset(se.StreamID, se.Code, "a frame that cannot be read: "+err.Error())
	return nil
}

// maxOut is how many bytes may wait to be written before reading pauses: a client that sends
// without reading must not fill the memory.
const maxOut = 1 << 20

// waitTurn waits while the connection is stalled or its output is full. It
// fails when the connection is ending.
func (c *conn) waitTurn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for (c.stalled || len(c.out.buf) > maxOut) && !c.aborted && c.ending == endNot {
		c.signal()
		c.room.Wait()
	}
	if c.aborted || c.ending != endNot {
		return errEnding
	}
	return nil
}

func (c *conn) frame(f http2.Frame) error {
	if c.in.settings == 0 {
		if sf, ok := f.(*http2.SettingsFrame); !ok || sf.IsAck() {
			return fault{http2.ErrCodeProtocol, "the first frame is not SETTINGS"}
		}
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return c.headers(f)
	case *http2.ContinuationFrame:
		return c.continuation(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		c.ping(f)
	case *http2.RSTStreamFrame:
		return c.rstStream(f)
	case *http2.PushPromiseFrame:
		return fault{http2.ErrCodeProtocol, "PUSH_PROMISE from a client"}
	}
	return nil // GOAWAY, PRIORITY and unknown types need no answer
}

const (
	// Bounds of one header block: several times MAX_HEADER_LIST_SIZE, so that
	// only abuse meets them.
	maxBlock         = 64 << 10
	maxContinuations = 32
)

func (c *conn) headers(f *http2.HeadersFrame) error {
	frag := f.HeaderBlockFragment()
	c.srv.stats.headerBytes.Add(int64(len(frag)))
	if f.HeadersEnded() {
		return c.headerBlock(f.StreamID, f.StreamEnded(), frag)
	}
	c.in.first.stream, c.in.first.end = f.StreamID, f.StreamEnded()
	c.in.block = append(c.in.block[:0], frag...)
	c.in.frames = 0
	return nil
}

func (c *conn) continuation(f *http2.ContinuationFrame) error {
	frag := f.HeaderBlockFragment()
	c.srv.stats.headerBytes.Add(int64(len(frag)))
	in := &c.in
	in.block = append(in.block, frag...)
	in.frames++
	if len(in.block) > maxBlock || in.frames > maxContinuations {
		return fault{http2.ErrCodeEnhanceYourCalm, "a header block without end"}
	}
	if !f.HeadersEnded() {
		return nil
	}
	return c.headerBlock(in.first.stream, in.first.end, in.block)
}

// field takes one field from the decoder.
func (in *inbound) field(f hpack.HeaderField) {
	in.listed += f.Size()
	if in.listed > in.maxList {
		in.tooLong = true
		return
	}
	in.fields = append(in.fields, f)
}

// decode reads a header block into c.in.fields.
func (c *conn) decode(block []byte) error {
	in := &c.in
	in.fields, in.listed, in.tooLong = in.fields[:0], 0, false
	if allowed := c.limits.table.Load(); allowed != in.allowed {
		in.allowed = allowed
		in.dec.SetAllowedMaxDynamicTableSize(allowed)
	}
	if err := in.tableUpdate(block); err != nil {
		return err
	}
	in.dec.SetMaxStringLength(maxBlock)
	if _, err := in.dec.Write(block); err != nil {
		return fault{http2.ErrCodeCompression, "HPACK: " + err.Error()}
	}
	if err := in.dec.Close(); err != nil {
		return fault{http2.ErrCodeCompression, "HPACK: " + err.Error()}
	}
	return nil
}

// headerBlock handles a whole header block.
func (c *conn) headerBlock(id uint32, end bool, block []byte) error {
	if err := c.decode(block); err != nil {
		return err
	}
	if id%2 == 0 {
		return fault{http2.ErrCodeProtocol, fmt.Sprintf("HEADERS on stream %d, which is not a client's", id)}
	}
	c.mu.Lock()
	if id <= c.lastID {
		st := c.streams[id]
		c.mu.Unlock()
		return c.trailers(id, st, end)
	}
	c.lastID, c.in.lastID = id, id
	if id > c.goneID {
		c.mu.Unlock()
		return nil // GOAWAY said that it is not processed
	}
	if err, ok := c.admit(id); !ok {
		c.mu.Unlock()
		return err
	}
	st := c.open(id)
	c.mu.Unlock()
	return c.request(st, end)
}

// admit reports whether one more stream may be open. It needs c.mu.
func (c *conn) admit(id uint32) (error, bool) {
	open := uint32(len(c.streams))
	if open < c.limits.announced.maxStreams {
		return nil, true
	}
	if open >= c.limits.agreedStreams() {
		c.srv.violations.add(c.id, "stream %d opened while %d are open, more than the acknowledged limit", id, open)
	}
	if c.srv.opt.GoAwayOnExcess {
		c.goAway(max(id, 2)-2, http2.ErrCodeRefusedStream, []byte("Maximum active streams violated for this endpoint."))
		c.ending = endTLS
		return errEnding, false
	}
	c.srv.stats.refused.Add(1)
	c.writeReset(id, http2.ErrCodeRefusedStream)
	return nil, false
}

// request handles the first header block of a new stream.
func (c *conn) request(st *stream, end bool) error {
	st.head.parse(c.in.fields)
	st.head.tooLong = c.in.tooLong
	if why := st.head.malformed; why != "" && !c.in.tooLong {
		c.reset(st.id, http2.ErrCodeProtocol, fmt.Sprintf("stream %d: malformed request: %s", st.id, why))
		return nil
	}
	c.fill(st)
	if end {
		return c.complete(st)
	}
	return nil
}

// trailers handles a header block on an existing stream; st is nil if that is closed.
func (c *conn) trailers(id uint32, st *stream, end bool) error {
	switch {
	case st == nil || st.ended:
		c.reset(id, http2.ErrCodeStreamClosed, fmt.Sprintf("HEADERS on stream %d, which is closed", id))
	case !end:
		c.reset(id, http2.ErrCodeProtocol, fmt.Sprintf("HEADERS on stream %d, which is open", id))
	default:
		return c.complete(st)
	}
	return nil
}

func (c *conn) data(f *http2.DataFrame) error {
	id, size := f.StreamID, int64(f.Length)
	c.srv.stats.bodyBytes.Add(int64(len(f.Data())))
	c.mu.Lock()
	if !c.flow.receive(size) {
		c.mu.Unlock()
		return fault{http2.ErrCodeFlowControl, "DATA beyond the connection's window"}
	}
	c.returnWindow()
	if id > c.lastID {
		c.mu.Unlock()
		return fault{http2.ErrCodeProtocol, fmt.Sprintf("DATA on stream %d, which was never opened", id)}
	}
	st := c.streams[id]
	if st == nil {
		c.mu.Unlock()
		return nil // refused or reset by us, the DATA was on its way
	}
	st.used += size
	over := size > 0 && st.used > c.limits.agreedWindow()
	if !f.StreamEnded() && !over {
		c.returnStreamWindow(st)
	}
	c.mu.Unlock()
	switch {
	case st.ended:
		c.reset(id, http2.ErrCodeStreamClosed, fmt.Sprintf("DATA on stream %d after END_STREAM", id))
		return nil
	case over:
		c.reset(id, http2.ErrCodeFlowControl, fmt.Sprintf("DATA beyond the window of stream %d", id))
		return nil
	}
	st.addBody(f.Data())
	if f.StreamEnded() {
		return c.complete(st)
	}
	return nil
}

// complete is called when a request has ended.
func (c *conn) complete(st *stream) error {
	c.mu.Lock()
	st.ended = true
	c.mu.Unlock()
	req := st.req
	if want := st.head.contentLength; want >= 0 && want != int64(req.BodySize) {
		c.reset(st.id, http2.ErrCodeProtocol, fmt.Sprintf("stream %d: %d bytes of body under content-length %d", st.id, req.BodySize, want))
		return nil
	}
	req.At = c.in.now
	c.decided(st, c.decide(st))
	return nil
}

// maxTimed bounds the delayed answers to streams that the client has cancelled since: they stay
// until they are due, like the others.
const maxTimed = 100_000

func (c *conn) rstStream(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID > c.lastID {
		return fault{http2.ErrCodeProtocol, fmt.Sprintf("RST_STREAM on stream %d, which was never opened", f.StreamID)}
	}
	if st := c.streams[f.StreamID]; st != nil {
		c.srv.stats.cancelled.Add(1)
		c.close(st)
	}
	if len(c.timers.heap) > maxTimed {
		return fault{http2.ErrCodeEnhanceYourCalm, "too many streams cancelled while their answers were delayed"}
	}
	return nil
}

func (c *conn) ping(f *http2.PingFrame) {
	if f.IsAck() {
		return
	}
	c.srv.stats.pings.Add(1)
	c.mu.Lock()
	if c.writable() {
		c.fr.WritePing(true, f.Data)
	}
	c.mu.Unlock()
}

// reset ends one stream because of a fault of the client's.
func (c *conn) reset(id uint32, code http2.ErrCode, why string) {
	c.srv.violations.add(c.id, "%s", why)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeReset(id, code)
	if st := c.streams[id]; st != nil {
		c.close(st)
	}
}
