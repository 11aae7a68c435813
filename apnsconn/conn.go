package apnsconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Config is what Dial needs. Addr is required; the zero value of any other field means its
// default.
type Config struct {
	Addr        string           // host:port, looked up again at each Dial
	Proxy       *url.URL         // HTTP proxy for CONNECT (see ParseProxy); nil: none. RootCAs also apply to an https proxy
	RootCAs     *x509.CertPool   // nil: the system's
	Certificate *tls.Certificate // client certificate; nil: none
	Token       *ProviderToken   // instead of Certificate, shared by all connections of its key; nil: none
	InFlight    int              // most streams open at once, even if APNs allows more; default 500

	PushTimeout  time.Duration // from Send to the answer; default 20 s
	DialTimeout  time.Duration // TCP, TLS and SETTINGS together; default 10 s
	PingAfter    time.Duration // silence while streams are open or idle until a PING; default 30 s
	PingTimeout  time.Duration // PING to any sign of life; default 10 s
	WriteTimeout time.Duration // for a write to make progress; default 10 s
	DrainTimeout time.Duration // for the streams open after GOAWAY; default 30 s

	// OnChange, if set, is called when Free may have grown or the connection has stopped taking
	// pushes. Several changes may share one call. The connection's goroutines call it, perhaps
	// two at once; it must not block.
	OnChange func()
}

func (cfg Config) withDefaults() Config {
	if cfg.InFlight <= 0 {
		cfg.InFlight = 500
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&cfg.PushTimeout, 20 * time.Second},
		{&cfg.DialTimeout, 10 * time.Second},
		{&cfg.PingAfter, 30 * time.Second},
		{&cfg.PingTimeout, 10 * time.Second},
		{&cfg.WriteTimeout, 10 * time.Second},
		{&cfg.DrainTimeout, 30 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	return cfg
}

// Conn is one HTTP/2 connection to APNs. Its methods may be called from any
// goroutine.
type Conn struct {
	cfg  Config
	nc   net.Conn // TLS
	raw  net.Conn // beneath nc
	born time.Time
	done chan struct{}

	lastRead atomic.Int64  // when bytes last came in, on the connection's clock
	work     chan struct{} // wakes the writer
	wake     chan struct{} // wakes connLoop

	mu sync.Mutex
	// Everything below is under mu.

	// Pushes.
	all     pushList         // every push not yet ended, oldest first
	waiting pushList         // without a stream yet
	blocked pushList         // with stream window left, but none of the connection's
	streams map[uint32]*push // with a stream
	resets  resetStreams
	nextID  uint32
	fin     []ending // decided under mu, called back by unlock

	// The peer's settings, and what is left of its windows.
	peer   peerSettings
	window int64

	// Frames on their way to the network.
	out        frameBuffer
	frames     *http2.Framer // writes to out
	spare      []byte        // the writer's second buffer while it sleeps
	headers    *headerEncoder
	token      connToken
	writerIdle bool
	corked     bool // the reader has more answers to handle: gather what their callbacks send

	// Health.
	fresh        bool          // no answer yet but ExpiredProviderToken
	faults       int           // answers of status 500 in a row
	timeouts     int           // timed-out streams in a row
	heard        time.Duration // when the last answer came in
	stuck        int           // pushes in a row that timed out unsent, while nothing could be sent
	stuckAt      time.Duration // when the last of them timed out
	lastSent     time.Duration // when a stream was opened or payload was written last
	shutSince    time.Duration // since when the peer allows no stream; 0 = it does
	pinged       time.Duration
	pingPending  bool
	loopWakes    time.Duration // when connLoop will look next
	drainUntil   time.Duration // once retired
	settingsSent int           // SETTINGS of ours not acknowledged yet
	received     int           // bytes of the connection's receive window used up
	endedPushes  int           // pushes with a stream that ended since the reader last looked
	dataFrames   int           // sent since then

	// The end.
	changed   bool  // OnChange is due
	noNew     bool  // takes no pushes
	noStreams bool  // opens no streams
	ended     bool  // nothing more is read, or written except for farewell
	farewell  bool  // out ends with a GOAWAY
	why       error // first reason of noNew
}

// ending is a callback to be made.
type ending struct {
	done    func(Outcome)
	outcome Outcome
}

// Send hands over one push and returns without waiting for the network. It calls done exactly
// once with the outcome; done must not block, and may call Send. n and its payload must not
// change until then.
//
// done runs on one of the connection's goroutines, so two may run at once. Send itself calls
// done before it returns if the push cannot be taken: because the connection has stopped taking
// pushes or already has Config.InFlight of them, or because n has characters that no header may
// have. A done that sends a refused push again would then call itself without end.
//
// A caller may send more pushes than Free reports; they wait inside the connection while their
// PushTimeout runs.
func (c *Conn) Send(n *Notification, done func(Outcome)) { c.send(n, done) }

func (c *Conn) send(n *Notification, done func(Outcome)) *push {
	if err := checkHeaders(n); err != nil {
		done(Outcome{Class: Rejected, Err: err})
		return nil
	}
	p := &push{n: n, done: done, deadline: c.now() + c.cfg.PushTimeout}
	c.mu.Lock()
	if err := c.refusal(); err != nil {
		c.mu.Unlock()
		done(Outcome{Class: NotSent, Err: err})
		return nil
	}
	c.all.add(p)
	c.waiting.add(p)
	if c.all.n == 1 && p.deadline < c.loopWakes {
		c.wakeLoop()
	}
	if !c.corked || c.waiting.n >= corkLimit {
		c.wakeWriter()
	}
	c.mu.Unlock()
	return p
}

// corkLimit is how many waiting pushes fill one TLS record (16 KiB): gathering more saves
// nothing.
const corkLimit = 64

// refusal says why no push can be taken; nil if one can. mu is held.
func (c *Conn) refusal() error {
	switch {
	case c.noNew:
		return c.why
	case c.all.n >= c.cfg.InFlight:
		return ErrFull
	}
	return nil
}

// Push sends n and waits for its outcome. If ctx ends first, only this push is cancelled: it is
// NotSent if its end has not been written, else Unknown.
func (c *Conn) Push(ctx context.Context, n *Notification) Outcome {
	if err := ctx.Err(); err != nil {
		return Outcome{Class: NotSent, Err: err}
	}
	result := make(chan Outcome, 1)
	p := c.send(n, func(o Outcome) { result <- o })
	select {
	case o := <-result:
		return o
	case <-ctx.Done():
	}
	if p != nil {
		c.cancel(p, ctx.Err())
	}
	return <-result
}

// cancel ends p, unless it has ended already.
func (c *Conn) cancel(p *push, err error) {
	c.mu.Lock()
	if p.in[kindAll] != nil && !c.ended {
		c.abandon(p, err)
	}
	c.wakeWriter()
	c.unlockForOwner()
}

// Free is how many pushes would leave at once if they were sent now: the smaller of
// Config.InFlight and the peer's stream limit, less those in flight; 0 when not Usable.
func (c *Conn) Free() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.noNew {
		return 0
	}
	return max(0, c.streamLimit()-c.all.n)
}

// Streams says how many pushes are in flight, and how many may be: the smaller of
// Config.InFlight and the peer's stream limit.
func (c *Conn) Streams() (open, limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.n, c.streamLimit()
}

// streamLimit is how many streams may be open. mu is held.
func (c *Conn) streamLimit() int {
	return int(min(int64(c.cfg.InFlight), int64(c.peer.maxStreams)))
}

// Usable reports whether the connection takes new pushes.
func (c *Conn) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.noNew
}

// Drain stops taking pushes, waits for those in flight to end, and closes the connection. If
// ctx ends first, it closes at once and returns ctx's error. Like Close it must not be called
// from a callback.
func (c *Conn) Drain(ctx context.Context) error {
	c.mu.Lock()
	c.stopTaking(ErrClosed)
	c.endIfDrained()
	c.unlockForOwner()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		_ = c.Close() // always nil
		return ctx.Err()
	}
}

// Close ends the connection now. Pushes in flight end as NotSent or, if their end was written,
// as Unknown. It returns when all callbacks have been made and the connection's goroutines are
// gone, so it must not be called from a callback. The error is always nil.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.end(ErrClosed, http2.ErrCodeNo)
	c.unlockForOwner()
	<-c.done
	return nil
}

// Done is closed when the connection has ended and all callbacks were made.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection takes no new pushes; nil while it takes them. It is ErrClosed
// after Close or Drain, a *GoAwayError when APNs ended the connection, and wraps ErrCredential
// when APNs refused the certificate or key.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// now is the connection's clock.
func (c *Conn) now() time.Duration { return time.Since(c.born) }

// Format prints only the connection's address, for every verb: its buffers hold payloads,
// device tokens and the provider token.
func (c *Conn) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "apnsconn.Conn{"+c.cfg.Addr+"}") }

// MarshalText does the same for encoders.
func (c *Conn) MarshalText() ([]byte, error) { return []byte("apnsconn.Conn{" + c.cfg.Addr + "}"), nil }
