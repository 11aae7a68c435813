package apnslean

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// MaxStreams is how many streams a connection may have open, as APNs allows
// with a certificate.
const MaxStreams = 1000

// Options configure Start. The zero value listens on a loopback port of the
// system's choice and answers at once.
type Options struct {
	Addr string // host:port; default 127.0.0.1:0
	// Delay is the time from a request's arrival to its answer. Above zero
	// answers go out in groups, late by up to a hundredth of it and at most 0.5 ms:
	// a timer for each would be most of the work.
	Delay time.Duration
	// DelayWindow holds the acknowledgement of a request's payload back for
	// Delay, too, as a network's round trip does. The client then has 64 KiB of
	// payload under way at most.
	DelayWindow bool
	// Every so many requests get an answer other than 200; 0: none does.
	GoneEvery int // 410 Unregistered
	BusyEvery int // 503 ServiceUnavailable
}

// Server is a running stand-in.
type Server struct {
	o    Options
	l    net.Listener
	cert *certificate
	wg   sync.WaitGroup

	mu     sync.Mutex
	conns  map[*conn]struct{}
	past   Stats // of connections that have ended
	closed bool
}

// Start starts a stand-in. Its error is that of listening.
func Start(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("apnslean: %w", err)
	}
	cert, err := newCertificate(host)
	if err != nil {
		return nil, fmt.Errorf("apnslean: certificate: %w", err)
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("apnslean: %w", err)
	}
	s := &Server{o: o, l: l, cert: cert, conns: make(map[*conn]struct{})}
	s.wg.Go(s.accept)
	return s, nil
}

// Addr is where it listens, host:port.
func (s *Server) Addr() string { return s.l.Addr().String() }

// CertPEM is its certificate, which is its own authority: the root to trust.
func (s *Server) CertPEM() []byte { return s.cert.pem }

// Stats is what all connections have seen since Start or the last Reset.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.past
	for c := range s.conns {
		part := c.stats()
		sum.add(&part)
	}
	return sum
}

// Reset starts counting again.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past = Stats{}
	for c := range s.conns {
		c.reset()
	}
}

// Close ends all connections and waits for their goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	_ = s.l.Close() // nothing depends on it
	for c := range s.conns {
		_ = c.nc.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Server) accept() {
	config := &tls.Config{
		Certificates:                []tls.Certificate{s.cert.tls},
		NextProtos:                  []string{"h2"},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // few large records
	}
	for {
		nc, err := s.l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of file descriptors, say
			time.Sleep(10 * time.Millisecond)
			continue
		}
		c := newConn(&s.o, nc, config)
		if !s.enter(c) {
			_ = nc.Close()
			return
		}
		s.wg.Go(func() {
			defer s.leave(c)
			c.serve()
		})
	}
}

func (s *Server) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) leave(c *conn) {
	_ = c.nc.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	part := c.stats()
	s.past.add(&part)
}
