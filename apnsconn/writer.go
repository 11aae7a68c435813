package apnsconn

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net"
	"runtime"
	"time"

	"golang.org/x/net/http2"

	"propeller/internal/neterr"
)

const (
	// batchSize is how much the writer gathers before it writes: two TLS records (16 KiB each),
	// about 150 pushes. Larger batches save nothing and keep mu locked longer.
	batchSize = 32 << 10

	// maxControl bounds the unwritten frames that answer the peer's (acknowledgements, resets,
	// window updates). Only a peer that floods the connection and does not read reaches it.
	maxControl = 64 << 10

	// maxSendFrame is the longest frame written, even if the peer allows more: one TLS record.
	// It is also the least that a peer may allow.
	maxSendFrame = 16 << 10

	frameHeader = 9 // bytes before a frame's payload (RFC 9113 §4.1)

	firstStreamID = 1
	maxStreamID   = 1<<31 - 1

	// lingerTimeout bounds what is done for politeness at the end: writing GOAWAY, and reading
	// what the peer wrote before a write to it failed.
	lingerTimeout = time.Second
)

// frameBuffer is memory that a Framer or HPACK encoder writes to.
type frameBuffer struct{ b []byte }

func (f *frameBuffer) Write(p []byte) (int, error) {
	f.b = append(f.b, p...)
	return len(p), nil
}

// progressConn gives every write its own deadline. crypto/tls writes record by record, so
// timeout bounds the time for 16 KiB, not for a batch.
type progressConn struct {
	net.Conn
	timeout time.Duration
}

func (c progressConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// writeLoop writes batch after batch, and sleeps when there is nothing to write. Pushes sent
// during a write make up the next batch, so batches grow with the load and a lone push is
// written at once.
func (c *Conn) writeLoop() {
	var buf []byte
	c.mu.Lock()
	for {
		if !c.ended && !c.hasWork() {
			buf = c.sleep(buf)
			continue
		}
		if c.ended && !c.farewell {
			c.mu.Unlock()
			return
		}
		if !c.ended {
			c.fill()
		}
		last := c.ended // fill may have ended it
		buf, c.out.b = c.out.b, buf[:0]
		c.unlock()
		if len(buf) > 0 { // fill may have found nothing to send
			if n, err := c.nc.Write(buf); err != nil {
				c.writeFailed(err, buf, n)
				return
			}
		}
		if last {
			c.closeWrite()
			return
		}
		c.mu.Lock()
	}
}

// sleep waits for wakeWriter. mu is held before and after.
func (c *Conn) sleep(buf []byte) []byte {
	c.writerIdle = true
	c.spare = buf
	c.unlock()
	<-c.work
	// A goroutine that sent one push is often about to send more: let it. If no other goroutine
	// can run, this returns at once.
	runtime.Gosched()
	c.mu.Lock()
	buf, c.spare = c.spare, nil
	return buf
}

// wakeWriter wakes the writer if it sleeps and there is something to write. mu
// is held.
func (c *Conn) wakeWriter() {
	if c.writerIdle && (c.ended || c.hasWork()) {
		c.writerIdle = false
		c.work <- struct{}{} // never blocks: it has room for one, and only a sleeping writer is woken
	}
}

// hasWork reports whether anything can be written. mu is held.
func (c *Conn) hasWork() bool {
	return len(c.out.b) > 0 || c.window > 0 && c.blocked.n > 0 || c.mayOpen()
}

// mayOpen reports whether the first waiting push can get a stream. While the connection's
// window is used up it cannot, so that it stays not sent. One byte of window is enough, because
// a peer may open its window in small steps only. mu is held.
func (c *Conn) mayOpen() bool {
	p := c.waiting.head
	return p != nil && !c.noStreams && len(c.streams) < c.streamLimit() &&
		(c.window > 0 || len(p.n.Payload) == 0)
}

// fill writes frames to out until the batch is full or nothing more can be sent. mu is held.
func (c *Conn) fill() {
	for len(c.out.b) < batchSize && c.window > 0 && c.blocked.n > 0 {
		c.writeData(c.blocked.head)
	}
	if c.mayOpen() {
		c.headers.authorization = c.token.authorization()
	}
	for now := c.now(); len(c.out.b) < batchSize && c.mayOpen(); {
		c.open(c.waiting.head, now)
	}
}

// open starts the stream of p. mu is held.
func (c *Conn) open(p *push, now time.Duration) {
	if c.nextID > maxStreamID {
		c.retire(errStreamIDs)
		return
	}
	if size := c.headers.listSize(p.n); size > uint64(c.peer.maxHeaderList) {
		c.finish(p, p.lost(fmt.Errorf("apnsconn: headers have %d bytes, the peer takes %d", size, c.peer.maxHeaderList)))
		return
	}
	c.stuck, c.lastSent = 0, now
	p.leave(kindQueue)
	p.id, p.opened = c.nextID, now
	c.nextID += 2
	p.window = c.peer.initialWindow
	c.streams[p.id] = p
	c.writeHeaders(p)
	if len(p.unwritten()) > 0 && p.window > 0 {
		c.blocked.add(p)
		c.writeData(p)
	}
}

// writeHeaders writes p's header block to out. mu is held.
func (c *Conn) writeHeaders(p *push) {
	block := c.headers.encode(p.n)
	first := block[:min(len(block), maxSendFrame)]
	block = block[len(first):]
	_ = c.frames.WriteHeaders(http2.HeadersFrameParam{ // writing to memory cannot fail
		StreamID:      p.id,
		BlockFragment: first,
		EndHeaders:    len(block) == 0,
		EndStream:     len(p.n.Payload) == 0,
	})
	for len(block) > 0 {
		part := block[:min(len(block), maxSendFrame)]
		block = block[len(part):]
		_ = c.frames.WriteContinuation(p.id, len(block) == 0, part)
	}
}

// writeData writes as much of p's payload to out as the windows allow. p is on the blocked
// list, and stays there if only the connection's window or the batch was too small. mu is held.
func (c *Conn) writeData(p *push) {
	for {
		rest := p.unwritten()
		n := min(int64(len(rest)), p.window, c.window, maxSendFrame)
		_ = c.frames.WriteData(p.id, n == int64(len(rest)), rest[:n])
		p.sent += int(n)
		c.stuck = 0
		c.dataFrames++
		p.window -= n
		c.window -= n
		if n == int64(len(rest)) || p.window <= 0 {
			p.leave(kindQueue)
			return
		}
		if c.window <= 0 || len(c.out.b) >= batchSize {
			return
		}
	}
}

// control accounts for a frame just written to out in answer to the peer. err is the Framer's.
// mu is held.
func (c *Conn) control(err error) {
	if err != nil {
		c.drop(fmt.Errorf("apnsconn: write frame: %w", err))
	}
	if len(c.out.b) > maxControl {
		c.end(breach(http2.ErrCodeEnhanceYourCalm, "asks for answers and does not read them"), http2.ErrCodeEnhanceYourCalm)
	}
}

// writeFailed handles a failed write, of which the first n bytes of batch were written. The peer
// may have said why (a GOAWAY, answers) before it closed, so the reader gets a moment to read
// that, and then ends the connection.
func (c *Conn) writeFailed(err error, batch []byte, n int) {
	c.mu.Lock()
	for stream := range unsent(batch, n) {
		if p := c.streams[stream]; p != nil {
			p.unsent = true
		}
	}
	if !c.ended {
		c.retire(fmt.Errorf("apnsconn: connection lost: %w", neterr.Plain(err, "")))
		if c.raw.SetReadDeadline(time.Now().Add(lingerTimeout)) != nil {
			c.drop(c.why)
		}
	}
	c.unlock()
}

// unsent returns the streams of a batch whose request does not end within the n bytes that
// were written.
//
// crypto/tls counts whole records, and only those that the kernel took to the last byte. The
// peer cannot use part of a record: its authentication code is at its end (RFC 8446 §5.2,
// RFC 5246 §6.2.3). So what is behind n has provably not arrived, and without it the request is
// not complete. Whether a request that ends before n has arrived is not known.
func unsent(batch []byte, n int) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for at := 0; at < len(batch); {
			head := batch[at:]
			at += frameHeader + int(binary.BigEndian.Uint32(head)>>8)
			if at <= n {
				continue
			}
			switch http2.FrameType(head[3]) {
			case http2.FrameHeaders, http2.FrameContinuation, http2.FrameData:
				if !yield(binary.BigEndian.Uint32(head[5:])) {
					return
				}
			}
		}
	}
}

// closeWrite ends the TLS stream properly.
func (c *Conn) closeWrite() {
	if tc, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = tc.CloseWrite() // the connection ends either way
	}
}
