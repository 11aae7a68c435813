// Package apnslean is a stand-in for APNs that costs as little as a server over
// TLS and HTTP/2 can, so that a measurement is one of the client. It answers 200
// to every request and looks at none: no header is decoded, nothing is checked.
// Package apnstest is the stand-in that behaves as APNs does.
//
// What it does keep account of is what a measurement needs: requests, the time
// since each was put into the queue (see Stamp), and for how long the client had
// used up its flow-control window.
package apnslean

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
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
	// Seen, if set, is told of each complete request: when it arrived, and its payload, which
	// is valid during the call only. It is called from many goroutines, one at a time for each
	// connection, which waits for it.
	Seen func(at time.Time, payload []byte)
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

// Stats is an account of requests.
type Stats struct {
	Conns    int   // connections, those that have ended too
	Requests int64 // complete requests
	Payload  int64 // bytes of them
	// Latency is the time from the stamp to the arrival, of requests that have
	// one and whose payload came in one frame: a client cuts those in two that
	// its window has no room for.
	Latency Histogram

	// Sums over connections, of the time between each one's first request and
	// its last:
	Active  time.Duration // that time
	Blocked time.Duration // of it: less window left than the latest payload took
	Open    time.Duration // times the requests without answer: Open/Active is their mean number
}

func (s *Stats) add(o *Stats) {
	s.Conns += o.Conns
	s.Requests += o.Requests
	s.Payload += o.Payload
	s.Latency.Merge(&o.Latency)
	s.Active += o.Active
	s.Blocked += o.Blocked
	s.Open += o.Open
}

type certificate struct {
	tls tls.Certificate
	pem []byte
}

// newCertificate makes a certificate for host that is its own authority.
func newCertificate(host string) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "propeller apnslean"},
		NotBefore:             time.Now().Add(-time.Hour), // clocks step
		NotAfter:              time.Now().Add(30 * 24 * time.Hour),
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	} else if host != "" {
		template.DNSNames = append(template.DNSNames, host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &certificate{
		tls: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}, nil
}
