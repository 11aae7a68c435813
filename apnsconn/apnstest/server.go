package apnstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a stand-in for APNs that is listening.
type Server struct {
	Addr string // host:port it listens on
	URL  string // "https://" + Addr

	opt    Options
	ca     *authority
	tlsCfg *tls.Config

	script atomic.Pointer[Script]
	delay  atomic.Int64 // nanoseconds
	refuse atomic.Bool

	record     record
	stats      stats
	requests   counter
	answered   counter
	dials      counter
	handshakes counter
	violations violations

	done chan struct{}  // closed by Close
	wg   sync.WaitGroup // every goroutine of the server

	mu       sync.Mutex
	listener net.Listener // nil while not listening
	conns    map[*conn]struct{}
	lastConn int
	closed   bool
}

// NewServer starts a server on a loopback port and panics when it cannot,
// like httptest.NewServer. The caller must call Close.
func NewServer(o Options) *Server {
	s, err := Start(o)
	if err != nil {
		panic(err)
	}
	return s
}

// Start starts a server. The caller must call Close.
func Start(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Record == 0 {
		o.Record = defaultRecord
	}
	s := &Server{opt: o, done: make(chan struct{}), conns: make(map[*conn]struct{})}
	s.record.limit = o.Record
	s.SetScript(o.Script)
	s.SetDelay(o.Delay)
	var err error
	if s.ca, err = newAuthority(); err != nil {
		return nil, fmt.Errorf("apnstest: authority: %w", err)
	}
	if s.tlsCfg, err = s.newTLSConfig(); err != nil {
		return nil, fmt.Errorf("apnstest: server certificate: %w", err)
	}
	if err := s.listen(o.Addr); err != nil {
		return nil, err
	}
	s.Addr = s.listener.Addr().String()
	s.URL = "https://" + s.Addr
	return s, nil
}

func (s *Server) newTLSConfig() (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, // Apple: sending-notification-requests-to-apns
		NextProtos: []string{"h2"},
		// Full records from the start, and no tickets: clients are measured against what the
		// server writes, and scripts count on it.
		DynamicRecordSizingDisabled: true,
		SessionTicketsDisabled:      true,
	}
	if s.opt.TLSCert != nil {
		cfg.Certificates = []tls.Certificate{*s.opt.TLSCert}
	} else {
		cert, err := s.ca.serverCert(s.opt.Hosts)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	switch s.opt.ClientCert {
	case ClientCertOptional:
		cfg.ClientAuth = tls.RequestClientCert
	case ClientCertRequired:
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.ClientCAs = x509.NewCertPool()
		cfg.ClientCAs.AddCert(s.ca.cert)
	case ClientCertNone:
		cfg.ClientAuth = tls.NoClientCert
	}
	if refuse := s.opt.RefuseHandshake; refuse != nil {
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			return refuse(cs.PeerCertificates[0])
		}
	}
	if s.opt.NoALPN {
		cfg.NextProtos = nil
	}
	if s.opt.TLSConfig != nil {
		s.opt.TLSConfig(cfg)
	}
	return cfg, nil
}

// listen opens addr and starts to accept.
func (s *Server) listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("apnstest: listen %q: %w", addr, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.listener != nil {
		l.Close()
		return nil
	}
	s.listener = l
	s.wg.Go(func() { s.accept(l) })
	return nil
}

// acceptPause is the wait after an accept that failed for lack of resources.
const acceptPause = 10 * time.Millisecond

func (s *Server) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.dials.add()
			if s.refuse.Load() {
				nc.Close()
				continue
			}
			s.start(nc)
		case !s.listening(l):
			return
		default:
			select { // out of file descriptors, or the like
			case <-time.After(acceptPause):
			case <-s.done:
			}
		}
	}
}

func (s *Server) listening(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener == l
}

// start serves nc on a goroutine of its own.
func (s *Server) start(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		nc.Close()
		return
	}
	s.lastConn++
	c := newConn(s, s.lastConn, nc)
	s.conns[c] = struct{}{}
	s.wg.Go(func() {
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
}

// Close closes the listener and all connections at once, and waits for the
// server's goroutines. It must not be called from a Script or a callback.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	l := s.listener
	s.listener = nil
	open := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	if l != nil {
		l.Close()
	}
	for _, c := range open {
		c.abort()
	}
	s.wg.Wait()
}

// SetScript replaces the script for requests that arrive from now on; nil
// answers 200.
func (s *Server) SetScript(script Script) {
	if script == nil {
		s.script.Store(nil)
		return
	}
	s.script.Store(&script)
}

// SetDelay replaces [Options].Delay for requests that arrive from now on.
func (s *Server) SetDelay(d time.Duration) { s.delay.Store(int64(d)) }

// RefuseConnections makes the server close every new connection right after
// it was accepted, or stop doing so. Dials counts them.
func (s *Server) RefuseConnections(on bool) { s.refuse.Store(on) }

// StopListening closes the listener: new connections are refused by the
// system. Open ones go on. Resume undoes it.
func (s *Server) StopListening() {
	s.mu.Lock()
	l := s.listener
	s.listener = nil
	s.mu.Unlock()
	if l != nil {
		l.Close()
	}
}

// Resume listens again, on the same port, after StopListening. It fails when
// another process has taken the port meanwhile.
func (s *Server) Resume() error { return s.listen(s.Addr) }

// EachConn calls f for each open connection that has finished its handshake,
// oldest first.
func (s *Server) EachConn(f func(*Conn)) {
	s.mu.Lock()
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		if c.ready.Load() {
			open = append(open, c)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(open, func(a, b *conn) int { return a.id - b.id })
	for _, c := range open {
		f(&Conn{c: c})
	}
}

// Conns returns how many connections are open now, handshake finished.
func (s *Server) Conns() int {
	n := 0
	s.EachConn(func(*Conn) { n++ })
	return n
}

// Dials returns how many TCP connections were accepted.
func (s *Server) Dials() int { return int(s.dials.load()) }

// Handshakes returns how many TLS handshakes were finished.
func (s *Server) Handshakes() int { return int(s.handshakes.load()) }

// Count returns how many requests were received whole, their answers decided.
func (s *Server) Count() int64 { return s.requests.load() }

// Answered returns how many answers were handed over for writing.
func (s *Server) Answered() int64 { return s.answered.load() }

// Wait waits until n requests have been received since the server's start. It
// returns ctx's error when that ends first.
func (s *Server) Wait(ctx context.Context, n int) error { return s.requests.wait(ctx, int64(n)) }

// WaitAnswered waits until n answers were handed over for writing.
func (s *Server) WaitAnswered(ctx context.Context, n int) error {
	return s.answered.wait(ctx, int64(n))
}

// WaitHandshakes waits until n TLS handshakes were finished.
func (s *Server) WaitHandshakes(ctx context.Context, n int) error {
	return s.handshakes.wait(ctx, int64(n))
}

// WaitDials waits until n TCP connections were accepted.
func (s *Server) WaitDials(ctx context.Context, n int) error { return s.dials.wait(ctx, int64(n)) }

// Violations returns how clients broke HTTP/2, for example by opening more streams than the
// settings that they had acknowledged allow: the first hundred, one sentence each.
func (s *Server) Violations() []string { return s.violations.all() }

// maxViolations bounds the list.
const maxViolations = 100

type violations struct {
	mu   sync.Mutex
	list []string
}

func (v *violations) add(conn int, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.list) < maxViolations {
		v.list = append(v.list, fmt.Sprintf("connection %d: ", conn)+fmt.Sprintf(format, args...))
	}
}

func (v *violations) all() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]string(nil), v.list...)
}

// Stats are counts since the server's start. They are read one after another, so those of a busy
// server may differ by what happens meanwhile.
type Stats struct {
	Conns       int              // connections open now
	Accepted    int64            // TCP connections accepted
	Handshakes  int64            // TLS handshakes finished
	Requests    int64            // requests received whole and decided
	Answered    int64            // answers handed over for writing, resets included
	ByStatus    map[int]int64    // answers by status; silence and resets are not in it
	ByReason    map[string]int64 // answers by reason, where there is one
	Refused     int64            // streams refused with REFUSED_STREAM for being too many
	Cancelled   int64            // streams reset by the client
	GoAways     int64            // GOAWAY frames queued
	Pings       int64            // PING frames received, acknowledgements not counted
	HeaderBytes int64            // bytes of header blocks received, compressed
	BodyBytes   int64            // bytes of bodies received
	BytesIn     int64            // bytes received, TLS included
	BytesOut    int64            // bytes sent, TLS included
}

// stats are the counts that are not counters.
type stats struct {
	byStatus    [1000]atomic.Int64
	refused     atomic.Int64
	cancelled   atomic.Int64
	goAways     atomic.Int64
	pings       atomic.Int64
	headerBytes atomic.Int64
	bodyBytes   atomic.Int64
	bytesIn     atomic.Int64
	bytesOut    atomic.Int64

	mu       sync.Mutex
	byReason map[string]int64
}

// maxReasons bounds ByReason: scripts may invent reasons.
const maxReasons = 1000

func (s *stats) answer(status int, reason string) {
	if status >= 0 && status < len(s.byStatus) {
		s.byStatus[status].Add(1)
	}
	if reason == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byReason == nil {
		s.byReason = make(map[string]int64)
	}
	if _, ok := s.byReason[reason]; ok || len(s.byReason) < maxReasons {
		s.byReason[reason]++
	}
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	st := Stats{
		Conns:       s.Conns(),
		Accepted:    s.dials.load(),
		Handshakes:  s.handshakes.load(),
		Requests:    s.requests.load(),
		Answered:    s.answered.load(),
		ByStatus:    make(map[int]int64),
		Refused:     s.stats.refused.Load(),
		Cancelled:   s.stats.cancelled.Load(),
		GoAways:     s.stats.goAways.Load(),
		Pings:       s.stats.pings.Load(),
		HeaderBytes: s.stats.headerBytes.Load(),
		BodyBytes:   s.stats.bodyBytes.Load(),
		BytesIn:     s.stats.bytesIn.Load(),
		BytesOut:    s.stats.bytesOut.Load(),
	}
	for status := range s.stats.byStatus {
		if n := s.stats.byStatus[status].Load(); n > 0 {
			st.ByStatus[status] = n
		}
	}
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	st.ByReason = maps.Clone(s.stats.byReason)
	return st
}

// counter counts up, and lets goroutines wait for a count. Counting costs one
// atomic addition until a count that somebody waits for is reached.
type counter struct {
	n    atomic.Int64
	next atomic.Int64 // lowest count waited for; 0 when nobody waits

	mu      sync.Mutex
	waiters map[chan struct{}]int64
}

func (c *counter) add() {
	n := c.n.Add(1)
	if next := c.next.Load(); next != 0 && n >= next {
		c.wakeUp()
	}
}

func (c *counter) load() int64 { return c.n.Load() }

// wakeUp releases the waiters whose count is reached.
func (c *counter) wakeUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ch, n := range c.waiters {
		if c.n.Load() >= n {
			close(ch)
			delete(c.waiters, ch)
		}
	}
	c.setNext()
}

// setNext needs c.mu.
func (c *counter) setNext() {
	next := int64(math.MaxInt64)
	for _, n := range c.waiters {
		next = min(next, n)
	}
	if len(c.waiters) == 0 {
		next = 0
	}
	c.next.Store(next)
}

// wait returns nil once the count is at least n.
func (c *counter) wait(ctx context.Context, n int64) error {
	if c.load() >= n {
		return nil
	}
	ch := make(chan struct{})
	c.mu.Lock()
	if c.waiters == nil {
		c.waiters = make(map[chan struct{}]int64)
	}
	c.waiters[ch] = n
	c.setNext()
	c.mu.Unlock()
	c.wakeUp() // the count may have been reached before next was set
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, ch)
	c.setNext()
	if c.load() >= n {
		return nil
	}
	return ctx.Err()
}
