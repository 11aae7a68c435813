package apnstest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// conn is one connection. Two goroutines work on it: serve reads and decides answers, write
// writes and times delayed answers.
type conn struct {
	srv   *Server
	id    int
	tcp   countedConn
	tls   *tls.Conn
	cert  *x509.Certificate
	rules certRules
	ready atomic.Bool   // the handshake is finished
	done  chan struct{} // closed by abort
	wake  chan struct{} // wakes write; capacity 1

	lastOnce sync.Once // for lastWait

	in inbound // only for the goroutine serve

	mu   sync.Mutex
	room sync.Cond // on mu: serve waits here while stalled or while out is full
	fr   *http2.Framer
	enc  *hpack.Encoder
	hbuf bytes.Buffer // enc writes here

	aborted bool // done is closed
	ending  end  // how the connection ends once out is written; then nothing more is queued
	muted   bool
	stalled bool

	streams map[uint32]*stream
	spare   []*stream // closed ones, for reuse; at most as many as were open at once
	lastID  uint32    // highest stream id seen
	goneID  uint32    // GOAWAY's last stream id: those above are ignored
	out     outbound
	flow    flow
	limits  limits
	timers  timerHeap
	blocked []*stream // with answers that wait for the client's windows
	rng     *rand.Rand
}

// inbound is the state of the goroutine that reads.
type inbound struct {
	br      *bufio.Reader
	fr      *http2.Framer
	dec     *hpack.Decoder
	now     time.Time // when the bytes being handled were read
	block   []byte    // a header block that spans frames
	frames  int       // CONTINUATION frames of it
	fields  []hpack.HeaderField
	listed  uint32 // size of fields as MAX_HEADER_LIST_SIZE counts it
	maxList uint32
	tooLong bool // the block had more than maxList

	first struct { // of the HEADERS frame that began block
		stream uint32
		end    bool
	}

	tokens   providerTokens
	table    uint32 // the dynamic table's size as the client last set it
	mustFit  bool   // the next block must begin with a table size update
	allowed  uint32 // what dec was last told
	settings int    // SETTINGS frames seen
	lastID   uint32 // highest stream id seen
}

const (
	// handshakeTimeout bounds a handshake that makes no progress.
	handshakeTimeout = 30 * time.Second
	// maxHead1 bounds the head of a request of HTTP/1.1, which is refused.
	maxHead1 = 8 << 10
	// lingerTimeout bounds the wait for the client to close after we did.
	lingerTimeout = time.Second
	// readBuffer holds one TLS record.
	readBuffer = 16 << 10
)

func newConn(s *Server, id int, nc net.Conn) *conn {
	c := &conn{
		srv:     s,
		id:      id,
		tcp:     countedConn{Conn: nc, stats: &s.stats},
		done:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		streams: make(map[uint32]*stream),
		goneID:  noLimit,
	}
	c.room.L = &c.mu
	c.tls = tls.Server(c.tcp, s.tlsCfg)
	c.flow.withheld = s.opt.WithholdWindowUpdates
	return c
}

// serve runs the connection to its end.
func (c *conn) serve() {
	defer c.abort()
	if !c.handshake() {
		return
	}
	c.prepare()
	var writer sync.WaitGroup
	writer.Go(c.write)
	defer writer.Wait()
	defer c.abort()
	c.begin()
	err := c.read()
	if c.explain(err) {
		c.linger()
	}
}

// handshake returns whether the connection speaks HTTP/2 now.
func (c *conn) handshake() bool {
	if d := c.srv.opt.SlowHandshake; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.done:
			return false
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := c.tls.HandshakeContext(ctx); err != nil {
		if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil {
			c.refuse(plain.Conn, "APNs takes HTTP/2 over TLS only: use https://, and a client that speaks HTTP/2")
		}
		return false
	}
	state := c.tls.ConnectionState()
	if len(state.PeerCertificates) > 0 {
		c.cert = state.PeerCertificates[0]
	}
	c.rules = c.srv.rulesOf(c.cert)
	if state.NegotiatedProtocol != "h2" {
		c.srv.handshakes.add()
		r, err := http.ReadRequest(bufio.NewReader(io.LimitReader(c.tls, maxHead1)))
		if err == nil && r.ProtoMajor == 1 {
			c.refuse(c.tls, "APNs speaks HTTP/2 only, and this client speaks HTTP/1.1 (ALPN): use a client that speaks HTTP/2")
		}
		io.Copy(io.Discard, c.tls) // until the client gives up
		return false
	}
	return true
}

// refuse tells a client of HTTP/1.1 in its own protocol why it is refused.
func (c *conn) refuse(to io.Writer, why string) {
	c.tcp.SetWriteDeadline(time.Now().Add(lingerTimeout))
	fmt.Fprintf(to, "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", len(why)+1, why)
	c.linger()
}

// prepare sets up the two sides' codecs.
func (c *conn) prepare() {
	in := &c.in
	in.br = bufio.NewReaderSize(quietReader{c}, readBuffer)
	in.fr = http2.NewFramer(nil, in.br)
	in.fr.SetReuseFrames()
	in.dec = hpack.NewDecoder(4096, in.field)
	in.table, in.allowed = 4096, 4096
	in.now = time.Now()

	c.rng = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	c.fr = http2.NewFramer(&c.out, nil)
	c.fr.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.hbuf)
	c.flow.init(c.srv.opt.ConnWindow)
	c.limits.init(c.srv.opt)
	in.fr.SetMaxReadFrameSize(c.limits.announced.maxFrame)
	in.maxList = c.limits.announced.maxHeaderList
}

// begin sends what a server sends first.
func (c *conn) begin() {
	c.mu.Lock()
	if !c.srv.opt.NoSettings {
		c.fr.WriteSettings(c.limits.first(c.srv.opt)...)
	}
	if extra := c.flow.window - defaultConnWindow; extra > 0 {
		c.fr.WriteWindowUpdate(0, uint32(extra))
	}
	c.mu.Unlock()
	c.ready.Store(true)
	c.srv.handshakes.add()
	if f := c.srv.opt.OnConn; f != nil {
		f(&Conn{c: c})
	}
	c.signal()
}

// fault is a connection error found by the server.
type fault struct {
	code http2.ErrCode
	why  string
}

func (f fault) Error() string { return f.why }

// errEnding ends reading when the server is closing the connection.
var errEnding = errors.New("apnstest: closing")

// explain tells the client why the connection ends, if the client is at fault, and reports
// whether to wait for it to close its side.
func (c *conn) explain(err error) bool {
	var f fault
	var ce http2.ConnectionError
	switch {
	case errors.Is(err, errEnding):
		c.signal()
		return true
	case errors.As(err, &f):
	case errors.As(err, &ce):
		f = fault{http2.ErrCode(ce), "a frame that cannot be read: " + err.Error()}
	case errors.Is(err, http2.ErrFrameTooLarge):
		f = fault{http2.ErrCodeFrameSize, "a frame above MAX_FRAME_SIZE"}
	default:
		return false
	}
	c.srv.violations.add(c.id, "%s", f.why)
	c.mu.Lock()
	c.goAway(c.lastID, f.code, []byte(f.why))
	c.ending = max(c.ending, endTLS)
	c.mu.Unlock()
	c.signal()
	return true
}

// linger reads until the client has closed too, so that a reset does not destroy the last bytes
// on their way.
func (c *conn) linger() {
	c.lastWait()
	io.Copy(io.Discard, c.tcp)
}

// lastWait starts the time within which the client must close its side.
func (c *conn) lastWait() {
	c.lastOnce.Do(func() { c.tcp.SetReadDeadline(time.Now().Add(lingerTimeout)) })
}

// abort closes the connection's socket and releases its goroutines.
func (c *conn) abort() {
	c.mu.Lock()
	if !c.aborted {
		c.aborted = true
		close(c.done)
	}
	c.room.Broadcast()
	c.mu.Unlock()
	c.tcp.Close()
}

// quietReader reads from the TLS connection. It is called only when no input is buffered, which
// is when gathered answers are handed to write.
type quietReader struct{ c *conn }

func (r quietReader) Read(p []byte) (int, error) {
	r.c.flush()
	n, err := r.c.tls.Read(p)
	r.c.in.now = time.Now()
	return n, err
}

// countedConn counts the bytes of a connection.
type countedConn struct {
	net.Conn
	stats *stats
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.stats.bytesIn.Add(int64(n))
	return n, err
}

func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.stats.bytesOut.Add(int64(n))
	return n, err
}

// stream is one open stream. Its fields are the reader's while the request
// arrives and the writer's afterwards; those in the second group need conn.mu.
type stream struct {
	id    uint32
	head  head
	req   *Request
	own   Request // what req points at when requests are not kept
	ended bool    // END_STREAM was received; written under conn.mu too, for others to read

	used          int64  // DATA received, less the WINDOW_UPDATEs sent for it
	credit        int64  // WINDOW_UPDATEs received, less the DATA sent
	rest          []byte // of the answer's body, not sent yet
	pendingAnswer bool   // arriving, being decided or delayed: not to be reused
	closed        bool   // not in conn.streams any more
}

// open makes a stream. It needs c.mu.
func (c *conn) open(id uint32) *stream {
	var st *stream
	if n := len(c.spare); n > 0 {
		st = c.spare[n-1]
		c.spare = c.spare[:n-1]
		own := st.own
		*st = stream{own: own}
	} else {
		st = new(stream)
	}
	st.id = id
	st.pendingAnswer = true
	c.streams[id] = st
	return st
}

// close forgets a stream. One that is closed while its answer is pending is left to the
// garbage collector. It needs c.mu.
func (c *conn) close(st *stream) {
	if st.closed {
		return
	}
	st.closed = true
	delete(c.streams, st.id)
	if st.rest != nil {
		st.rest = nil
		c.blocked = slices.DeleteFunc(c.blocked, func(b *stream) bool { return b == st })
	}
	if !st.pendingAnswer {
		c.spare = append(c.spare, st)
	}
}

// fill makes st's request from the fields just decoded.
func (c *conn) fill(st *stream) {
	fields := c.in.fields
	if c.srv.opt.Record < 0 {
		own := &st.own
		*own = Request{Header: append(own.Header[:0], fields...), Body: own.Body[:0]}
		st.req = own
	} else {
		st.req = &Request{Header: append(make(Header, 0, len(fields)), fields...)}
	}
	req := st.req
	req.Conn, req.Stream, req.ClientCert = c.id, st.id, c.cert
	req.Method, req.Path = st.head.method, st.head.path
	if len(req.Path) > len(devicePath) && req.Path[:len(devicePath)] == devicePath {
		req.Token = req.Path[len(devicePath):]
	}
}

// addBody keeps as much of p as fits.
func (st *stream) addBody(p []byte) {
	st.req.BodySize += len(p)
	keep := min(len(p), maxBodyKept-len(st.req.Body))
	st.req.Body = append(st.req.Body, p[:keep]...)
}
