package apnslean

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

const (
	frameHeader = 9
	firstWindow = 65535 // of a connection, which no setting changes (RFC 9113 §6.9.2)
	// ackAt is how much payload is acknowledged at once when nothing delays it:
	// a quarter of the window, so that the client is never short of it.
	ackAt = firstWindow / 4
	// readBuffer holds some records of the network, TLS' largest being 16 KiB.
	readBuffer = 64 << 10
	// handshakeTime bounds the time until the first frame.
	handshakeTime = 10 * time.Second
	// writeTime bounds a write: a client that does not read loses its connection.
	writeTime = 10 * time.Second
)

// conn is one client's connection. One goroutine reads, and answers at once;
// with Options.Delay a second one writes the answers when they are due.
type conn struct {
	o   *Options
	nc  net.Conn // what TLS runs over
	raw *bufio.Reader
	tls *tls.Conn
	in  *bufio.Reader

	answers answers
	wake    chan struct{} // to the writer, if there is one; cap 1
	done    chan struct{} // closed when reading has ended

	mu      sync.Mutex
	account account
	out     []byte // what the next flush writes
	spare   []byte
	unacked uint32            // payload that no WINDOW_UPDATE has given back; nothing delays it
	queue   queue             // what is delayed
	cut     map[uint32][]byte // beginnings of payloads that come in several frames, by stream, for Options.Seen
}

// account is a connection's share of the server's, and what it is made from.
type account struct {
	Stats
	begun  time.Time // first request
	last   time.Time // latest change
	open   int
	left   int // of the window, as the client sees it
	latest int // payload of the latest request
}

func newConn(o *Options, nc net.Conn, config *tls.Config) *conn {
	c := &conn{o: o, nc: nc, wake: make(chan struct{}, 1), done: make(chan struct{})}
	c.account.left = firstWindow
	c.raw = bufio.NewReaderSize(nc, readBuffer)
	c.tls = tls.Server(&buffered{nc, c.raw}, config)
	c.in = bufio.NewReaderSize(c.tls, readBuffer)
	return c
}

// buffered is a network connection with few and large reads.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// serve reads until the connection ends.
func (c *conn) serve() {
	var writer sync.WaitGroup
	if c.o.Delay > 0 {
		writer.Go(c.write)
	}
	_ = c.read() // whatever ended it, it has ended
	close(c.done)
	_ = c.nc.Close()
	writer.Wait()
}

func (c *conn) read() error {
	if err := c.greet(); err != nil {
		return err
	}
	for {
		// A batch is what is here already; its answers are one record.
		if err := c.frame(); err != nil {
			return err
		}
		if c.more() {
			continue
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
}

// greet is TLS and the beginning of HTTP/2.
func (c *conn) greet() error {
	if err := c.nc.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.in, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return errors.New("not HTTP/2")
	}
	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, 0, 0, 6, byte(http2.FrameSettings), 0, 0, 0, 0, 0,
		0, byte(http2.SettingMaxConcurrentStreams), 0, 0, MaxStreams>>8, MaxStreams&0xff)
	c.wakeWriter()
	return nil
}

// more reports whether another frame is here in full, or at least a TLS record
// that may bring one.
func (c *conn) more() bool {
	if n := c.in.Buffered(); n >= frameHeader {
		if h, err := c.in.Peek(frameHeader); err == nil && n >= frameHeader+frameLength(h) {
			return true
		}
	}
	const recordHeader = 5 // its length in the last two (RFC 8446 §5.1)
	n := c.raw.Buffered()
	if n < recordHeader {
		return false
	}
	h, err := c.raw.Peek(recordHeader)
	return err == nil && n >= recordHeader+int(binary.BigEndian.Uint16(h[3:]))
}

func frameLength(header []byte) int { return int(binary.BigEndian.Uint32(header) >> 8) }

// frame reads and handles one frame. Of header blocks it looks at nothing, so
// the client's table of header fields may hold what it likes.
func (c *conn) frame() error {
	h, err := c.in.Peek(frameHeader)
	if err != nil {
		return err
	}
	length, kind, flags := frameLength(h), http2.FrameType(h[3]), http2.Flags(h[4])
	stream := binary.BigEndian.Uint32(h[5:])
	if length > readBuffer-frameHeader {
		return errors.New("frame too large")
	}
	f, err := c.in.Peek(frameHeader + length)
	if err != nil {
		return err
	}
	body := f[frameHeader:]
	switch kind {
	case http2.FrameData:
		c.data(stream, body, flags.Has(http2.FlagDataEndStream))
	case http2.FrameHeaders:
		if flags.Has(http2.FlagHeadersEndStream) {
			c.data(stream, nil, true)
		}
	case http2.FrameSettings:
		if !flags.Has(http2.FlagSettingsAck) {
			c.control(http2.FrameSettings, http2.FlagSettingsAck, nil)
		}
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			c.control(http2.FramePing, http2.FlagPingAck, body)
		}
	}
	// Others need no answer. WINDOW_UPDATE is for DATA, of which the answers
	// have next to none.
	_, err = c.in.Discard(frameHeader + length)
	return err
}

// control queues a frame of the connection.
func (c *conn) control(kind http2.FrameType, flags http2.Flags, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, 0, 0, byte(len(body)), byte(kind), byte(flags), 0, 0, 0, 0)
	c.out = append(c.out, body...)
	c.wakeWriter()
}

// data takes payload of a request; last ends the request.
func (c *conn) data(stream uint32, payload []byte, last bool) {
	// The clock is read for each: it costs less than what it would take to know
	// when a batch came.
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &c.account
	a.advance(now)
	a.left -= len(payload)
	a.Payload += int64(len(payload))
	if len(payload) > 0 {
		a.latest = len(payload)
	}
	if last {
		a.arrived(now, payload)
	}
	if c.o.Seen != nil {
		c.seen(now, stream, payload, last)
	}
	d := delayed{due: now.Add(c.o.Delay), payload: uint32(len(payload))}
	if last {
		d.stream = stream
	}
	switch {
	case c.o.Delay == 0:
		c.acknowledge(d.payload)
		c.answer(d.stream)
	case c.o.DelayWindow:
		c.delay(d)
	default:
		c.acknowledge(d.payload)
		d.payload = 0
		c.delay(d)
	}
}

// seen puts a payload's frames together, and shows it once it is complete. mu is held.
func (c *conn) seen(now time.Time, stream uint32, payload []byte, last bool) {
	if begun, ok := c.cut[stream]; ok {
		payload = append(begun, payload...)
		delete(c.cut, stream)
	} else if !last {
		payload = bytes.Clone(payload)
	}
	switch {
	case last:
		c.o.Seen(now, payload)
	case c.cut == nil:
		c.cut = map[uint32][]byte{stream: payload}
	case len(c.cut) < MaxStreams:
		c.cut[stream] = payload
	}
}

// acknowledge gives payload back to the client's window, in portions.
func (c *conn) acknowledge(payload uint32) {
	if c.unacked += payload; c.unacked >= ackAt {
		c.widen(c.unacked)
		c.unacked = 0
		c.wakeWriter()
	}
}

// widen queues a WINDOW_UPDATE. mu is held.
func (c *conn) widen(by uint32) {
	if by == 0 {
		return
	}
	c.account.left += int(by)
	c.out = append(c.out, 0, 0, 4, byte(http2.FrameWindowUpdate), 0, 0, 0, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, by)
}

// answer queues the answer to a request; none for stream 0. mu is held.
func (c *conn) answer(stream uint32) {
	if stream != 0 {
		c.account.open--
		c.out = c.answers.append(c.out, c.o, stream)
	}
}

// flush writes what is queued, unless the writer does.
func (c *conn) flush() error {
	if c.o.Delay > 0 {
		return nil
	}
	return c.writeOut(c.take())
}

// take returns what is queued, valid until the next take.
func (c *conn) take() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.out
	c.out, c.spare = c.spare[:0], b
	return b
}

func (c *conn) writeOut(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := c.nc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := c.tls.Write(b)
	return err
}

// advance brings the sums up to now. mu is held.
func (a *account) advance(now time.Time) {
	if a.begun.IsZero() {
		return
	}
	d := now.Sub(a.last)
	a.last = now
	a.Active += d
	a.Open += d * time.Duration(a.open)
	if a.left < a.latest {
		a.Blocked += d
	}
}

// arrived counts a complete request. mu is held.
func (a *account) arrived(now time.Time, payload []byte) {
	if a.begun.IsZero() {
		a.begun, a.last = now, now
	}
	a.Requests++
	a.open++
	if put, ok := stamp(payload); ok {
		a.Latency.Add(time.Duration(now.UnixMicro()-put) * time.Microsecond)
	}
}

func (c *conn) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.account.Stats
	s.Conns = 1
	return s
}

func (c *conn) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &c.account
	*a = account{open: a.open, left: a.left, latest: a.latest}
}

// answers makes the answers of a connection.
type answers struct{ n int }

// Header blocks by HPACK's static table (RFC 7541, appendix A).
const (
	status200 = "\x88"             // index 8: ":status: 200"
	status410 = "\x08\x03" + "410" // literal without indexing, name of index 8
	status503 = "\x08\x03" + "503"

	unregistered = `{"reason":"Unregistered","timestamp":1700000000000}`
	unavailable  = `{"reason":"ServiceUnavailable"}`
)

// append appends the answer to stream's request.
func (a *answers) append(b []byte, o *Options, stream uint32) []byte {
	a.n++
	switch {
	case o.BusyEvery > 0 && a.n%o.BusyEvery == 0:
		return appendAnswer(b, stream, status503, unavailable)
	case o.GoneEvery > 0 && a.n%o.GoneEvery == 0:
		return appendAnswer(b, stream, status410, unregistered)
	}
	return appendAnswer(b, stream, status200, "")
}

func appendAnswer(b []byte, stream uint32, block, body string) []byte {
	flags := http2.FlagHeadersEndHeaders
	if body == "" {
		flags |= http2.FlagHeadersEndStream
	}
	b = appendFrame(b, http2.FrameHeaders, flags, stream, block)
	if body != "" {
		b = appendFrame(b, http2.FrameData, http2.FlagDataEndStream, stream, body)
	}
	return b
}

func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, stream uint32, content string) []byte {
	b = append(b, 0, 0, byte(len(content)), byte(kind), byte(flags)) // less than 256 bytes
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, content...)
}

// maxGroup is how long an answer may wait for others to be written with.
const maxGroup = time.Millisecond / 2

// delayed is an answer, or payload to acknowledge, that waits for its time.
type delayed struct {
	due     time.Time
	stream  uint32 // 0: no answer
	payload uint32
}

// queue holds what is delayed. All wait equally long, so it is in order. Its
// length is bounded by MaxStreams and the window, if the client keeps to them.
type queue struct {
	ring  []delayed
	first int
	n     int
}

func (q *queue) push(d delayed) {
	if q.n == len(q.ring) {
		larger := make([]delayed, max(64, 2*q.n))
		for i := range q.n {
			larger[i] = q.ring[(q.first+i)%q.n]
		}
		q.ring, q.first = larger, 0
	}
	q.ring[(q.first+q.n)%len(q.ring)] = d
	q.n++
}

func (q *queue) peek() *delayed { return &q.ring[q.first] }

func (q *queue) pop() delayed {
	d := q.ring[q.first]
	q.first = (q.first + 1) % len(q.ring)
	q.n--
	return d
}

// delay queues d for its time. mu is held.
func (c *conn) delay(d delayed) {
	c.queue.push(d)
	if c.queue.n == 1 {
		c.wakeWriter()
	}
}

func (c *conn) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default: // it is woken already
	}
}

// write answers what is due, until reading has ended.
func (c *conn) write() {
	group := min(maxGroup, c.o.Delay/100)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := c.release(time.Now())
		if err := c.writeOut(c.take()); err != nil {
			_ = c.nc.Close() // which ends the reader
			return
		}
		timer.Reset(wait + group)
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.done:
			return
		}
	}
}

// release queues what is due, and says when there will be more.
func (c *conn) release(now time.Time) (wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account.advance(now)
	var payload uint32
	for c.queue.n > 0 {
		if wait := c.queue.peek().due.Sub(now); wait > 0 {
			c.widen(payload)
			return wait
		}
		d := c.queue.pop()
		payload += d.payload
		c.answer(d.stream)
	}
	c.widen(payload)
	return time.Hour // until it is woken
}
