// Package apnsconn speaks to Apple Push Notification service (APNs).
package apnsconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"time"
)

// Config is what Dial needs. Addr is required; zero values of the rest mean
// the defaults named.
type Config struct {
	Addr        string           // host:port, resolved anew at each Dial
	RootCAs     *x509.CertPool   // nil: the system's
	Certificate *tls.Certificate // client certificate; nil: none
	InFlight    int              // most streams open at once, whatever APNs allows; default 500

	PushTimeout  time.Duration // from Send to the answer; default 20 s
	DialTimeout  time.Duration // TCP, TLS and SETTINGS together; default 10 s
	PingAfter    time.Duration // silence while streams are open or idle until a PING; default 30 s
	PingTimeout  time.Duration // PING to its ACK; default 10 s
	WriteTimeout time.Duration // a write without progress; default 10 s
	DrainTimeout time.Duration // after GOAWAY, for the streams still open; default 30 s

	// OnChange, if set, is called when Free may have grown or the connection
	// has stopped taking pushes. It is called from the connection's
	// goroutine and must not block.
	OnChange func()
}

// Conn is one HTTP/2 connection to APNs.
type Conn struct{}

func Dial(ctx context.Context, cfg Config) (*Conn, error)         { panic("todo") }
func (c *Conn) Send(n *Notification, done func(Outcome))          { panic("todo") }
func (c *Conn) Push(ctx context.Context, n *Notification) Outcome { panic("todo") }
func (c *Conn) Free() int                                         { panic("todo") }
func (c *Conn) Usable() bool                                      { panic("todo") }
func (c *Conn) Drain(ctx context.Context) error                   { panic("todo") }
func (c *Conn) Close() error                                      { panic("todo") }
func (c *Conn) Done() <-chan struct{}                             { panic("todo") }
func (c *Conn) Err() error                                        { panic("todo") }
