package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"propeller/internal/files"
	"propeller/internal/keysize"
)

// Limits of a connection. A client needs a fraction of them; requests that take
// more time on purpose set their own.
const (
	headTime  = unauthenticatedTime
	readTime  = 30 * time.Second
	writeTime = maxTime + 10*time.Second // the answer comes after the work
	idleTime  = time.Minute
	// maxHeader is for the head of a request, whoever makes it: it is read before
	// that is known.
	maxHeader  = 8 << 10
	finishTime = 5 * time.Second // for requests under way at the end
	// maxRequests is how many requests one connection of HTTP/2 may have under way
	// when a key has been shown on it: a browser has a few, and a program takes a list
	// or a stream to send more.
	maxRequests = 16
	// maxAhead is how many bytes of bodies one connection of HTTP/2 may send
	// before anybody reads them: 5 MB/s over a way of 50 ms.
	maxAhead = 256 << 10
)

// Server is a suture service that answers on one listener.
type Server struct {
	name    string
	open    func() (net.Listener, error)
	first   net.Listener // of the first Serve; nil after it
	cert    *certificate // nil: no TLS
	handler http.Handler
	log     *slog.Logger
	shared  func(netip.Addr) bool

	all, unauthenticated int // limits
}

// NewServer opens the socket of a state_dir, on which Serve will answer by h.
func NewServer(s *State, h http.Handler, log *slog.Logger) (*Server, error) {
	ln, err := s.Listen()
	if err != nil {
		return nil, err
	}
	server := &Server{name: "socket", open: s.Listen, first: ln, handler: h, log: log}
	server.all, server.unauthenticated = limits(files.MaxOpen())
	return server, nil
}

// Web says where a server on the network listens.
type Web struct {
	Listen  string // as Listen has it
	TLSCert string // .pem files, read again when they change; "" for no TLS
	TLSKey  string
}

// NewWeb opens a listener, on which Serve will answer as Answer says.
func NewWeb(w Web, log *slog.Logger) (*Server, error) {
	s := &Server{name: "http", log: log}
	s.all, s.unauthenticated = limits(files.MaxOpen())
	if w.TLSCert != "" {
		var err error
		if s.cert, err = newCertificate(w.TLSCert, w.TLSKey, log); err != nil {
			return nil, err
		}
	}
	ln, err := listen(w.Listen)
	if err != nil {
		return nil, err
	}
	s.first = ln
	addr := w.Listen
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		addr = tcp.String() // with the port that the system chose
	}
	s.open = func() (net.Listener, error) { return listen(addr) }
	log.Info("http listens", "addr", addr, "tls", s.cert != nil)
	return s, nil
}

// Answer has the server answer by h. It must be called before Serve.
func (s *Server) Answer(h http.Handler) { s.handler = h }

// Shared sets a function that reports whether very many clients share an address, like a proxy's:
// such an address may have more connections than another. It must be called before Serve.
func (s *Server) Shared(shared func(netip.Addr) bool) { s.shared = shared }

// Addr is where the server listens before it serves; nil afterwards.
func (s *Server) Addr() net.Addr {
	if s.first == nil {
		return nil
	}
	return s.first.Addr()
}

// Close closes the listener of a server that has never served.
func (s *Server) Close() error {
	if s.first == nil {
		return nil
	}
	return s.first.Close()
}

// String names the server in suture's events.
func (s *Server) String() string { return s.name }

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	ln := s.first
	if s.first = nil; ln == nil { // a restart: the listener before was closed
		var err error
		if ln, err = s.open(); err != nil {
			return err
		}
	}
	life, die := context.WithCancel(context.Background())
	defer die()
	ending, end := context.WithCancel(life)
	defer end()
	srv, err := s.server()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	srv.BaseContext = func(net.Listener) context.Context {
		return context.WithValue(context.WithValue(life, endingKey{}, ending), lifeKey{}, life)
	}
	ended := make(chan error, 1)
	go func() {
		if s.cert == nil {
			ended <- srv.Serve(ln)
			return
		}
		ended <- srv.ServeTLS(ln, "", "")
	}()
	select {
	case err := <-ended:
		return errors.Join(err, srv.Close())
	case <-ctx.Done():
	}
	end()
	finish, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	if err = srv.Shutdown(finish); err != nil {
		err = srv.Close()
	}
	<-ended
	if err != nil {
		s.log.Warn("closing a server", "server", s.name, "err", err)
	}
	return ctx.Err()
}

// server makes the one of net/http, and for HTTP/2 the one behind the gate.
func (s *Server) server() (*http.Server, error) {
	limit := newConns(s.all, s.unauthenticated, s.shared)
	// Beside maxHeader net/http allows what it reads ahead (http.Server,
	// initialReadLimitSize), x/net/http2 the overhead of ten headers.
	const ahead, overhead = 4 << 10, 10 * 32
	make := func(maxHeader int) *http.Server {
		return &http.Server{
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), ConnState: limit.changed, MaxHeaderBytes: maxHeader,
			ReadHeaderTimeout: headTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
			HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxRequests, MaxReceiveBufferPerConnection: maxAhead, MaxReceiveBufferPerStream: maxAhead},
		}
	}
	srv := make(maxHeader - ahead)
	srv.Handler, srv.ConnContext = s.handler, limit.begin
	if s.cert == nil {
		return srv, nil
	}
	srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.cert.get}
	base := make(maxHeader - overhead)
	//lint:ignore SA1019 see serveGate
	second := new(http2.Server)
	//lint:ignore SA1019 see serveGate
	if err := http2.ConfigureServer(srv, second); err != nil { // for Shutdown
		return nil, err
	}
	srv.TLSNextProto[http2.NextProtoTLS] = func(_ *http.Server, conn *tls.Conn, h http.Handler) { serveGate(second, base, conn, h) }
	return srv, nil
}

// lifeKey is that of a context in each request's context, which ends when the
// server has ended.
type lifeKey struct{}

// withoutClient is ctx, of request r, for work that is not to end when the
// client goes: it ends at ctx's deadline, or with the server.
func withoutClient(ctx context.Context, r *http.Request) (context.Context, context.CancelFunc) {
	life, _ := r.Context().Value(lifeKey{}).(context.Context)
	if life == nil { // no server
		life = context.Background()
	}
	until, _ := ctx.Deadline()
	return context.WithDeadline(life, until)
}

// endingKey is that of a context in each request's context, which ends when the server is
// to end.
type endingKey struct{}

// ending is done when the server of a request is to end: answers without an end of their
// own end then.
func ending(r *http.Request) context.Context {
	if c, ok := r.Context().Value(endingKey{}).(context.Context); ok {
		return c
	}
	return context.Background() // no server, in tests
}

// certificate is a TLS certificate in files, read again when they change.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex // held for moments only: every handshake takes it
	current *tls.Certificate
	looked  time.Time

	renewing sync.Mutex // held while looking at the files; guards what follows
	stamp    [2]fileStamp
	failed   bool // the last reading, which has been logged
}

type fileStamp struct {
	changed time.Time
	size    int64
}

// maxCertificateFile bounds what is read of a file, in bytes.
const maxCertificateFile = 1 << 20

// lookEvery is how often the files are looked at while clients connect.
const lookEvery = 5 * time.Second

func newCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	if err := c.read(); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

// get is for tls.Config. A renewal that cannot be read leaves the certificate
// before in use. One handshake looks at the files, which may take its time: the
// others do not wait for it.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.due() && c.renewing.TryLock() {
		c.renew()
		c.renewing.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current, nil
}

// due reports whether the files are to be looked at, once.
func (c *certificate) due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.looked) < lookEvery {
		return false
	}
	c.looked = now
	return true
}

func (c *certificate) renew() {
	if stamp, err := c.stamps(); err == nil && stamp == c.stamp && !c.failed {
		return
	}
	switch err := c.read(); {
	case err == nil:
		c.failed = false
		c.log.Info("http: certificate renewed", "file", c.cert)
	case !c.failed:
		c.failed = true
		c.log.Error("http: the renewed certificate cannot be used; the previous one stays in use", "err", err)
	}
}

func (c *certificate) read() error {
	stamp, err := c.stamps()
	if err != nil {
		return fmt.Errorf("http.tls_cert: %w", err)
	}
	var text [2][]byte
	for i, name := range []string{c.cert, c.key} {
		if text[i], err = files.Read(name, maxCertificateFile); err != nil {
			return fmt.Errorf("http.tls_cert, http.tls_key: %q: %w", name, err)
		}
	}
	pair, err := keysize.Pair(text[0], text[1])
	if err != nil {
		return fmt.Errorf("http.tls_cert %q: %w", c.cert, err)
	}
	c.stamp = stamp
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = &pair
	return nil
}

func (c *certificate) stamps() (out [2]fileStamp, err error) {
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return out, nil
}
