package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"propeller/apnsconn"
)

// Conn is what a worker needs of a connection to APNs; *apnsconn.Conn is one.
type Conn interface {
	// Send starts a push and calls done exactly once when it has ended. It
	// never waits for the network, and done must not block.
	Send(n *apnsconn.Notification, done func(apnsconn.Outcome))
	// Free is how many pushes can be sent now.
	Free() int
	// Usable is false as soon as the connection takes no new pushes.
	Usable() bool
	// Close ends the connection now; every push still open ends in its callback
	// before Close returns.
	Close() error
	// Done is closed when the connection has ended; Err then says why.
	Done() <-chan struct{}
	Err() error
}

// Dial opens a connection to APNs. onChange is called when Free may have
// grown or Usable has become false; it does not block.
type Dial func(ctx context.Context, onChange func()) (Conn, error)

// errBackoff: no connection, and it is too early to dial again.
var errBackoff = errors.New("waiting before the next dial")

// link owns a worker's connection to APNs: dialled when a job needs it, never
// two dials at a time, with a pause between dials that grows while APNs gives
// no good answer.
type link struct {
	dial     Dial
	log      *slog.Logger
	counters *Counters
	onChange func()
	refused  func(reason string) // the credential was refused

	mu      sync.Mutex
	conn    Conn              // the one that takes pushes; nil = none
	since   time.Time         // when conn was opened
	goAway  GoAway            // the last
	open    map[Conn]struct{} // conn and those that only finish what they have
	backoff backoff
	fine    atomic.Bool // there has been a good answer since the last dial: one more changes nothing
	closed  bool
	down    error // of the last dial, which failed and has been logged; nil after a good one
	dialing bool

	watchers sync.WaitGroup
}

// usable returns the connection if there is one that takes pushes, else nil
// and how long to wait before a dial.
func (l *link) usable(now time.Time) (Conn, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && l.conn.Usable() {
		return l.conn, 0
	}
	l.conn = nil // it drains by itself; watch sees its end
	return nil, l.backoff.wait(now)
}

// get returns the connection, dialling if there is none. Only the worker's
// own goroutine calls it.
func (l *link) get(ctx context.Context) (Conn, error) {
	conn, wait := l.usable(time.Now())
	switch {
	case conn != nil:
		return conn, nil
	case wait > 0:
		return nil, errBackoff
	}
	l.mu.Lock()
	l.backoff.dialed(time.Now())
	l.fine.Store(false)
	l.dialing = true
	l.mu.Unlock()
	l.counters.Dials.Add(1)
	conn, err := l.dial(ctx, l.onChange)
	l.mu.Lock()
	l.dialing = false
	l.mu.Unlock()
	if err != nil {
		return nil, l.dialFailed(ctx, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		l.down = nil
		l.log.Info("apns reachable again")
	}
	l.conn, l.since = conn, time.Now()
	l.open[conn] = struct{}{}
	l.watchers.Go(func() { l.watch(conn) })
	return conn, nil
}

func (l *link) dialFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("worker: stopped while connecting to apns: %w", ctx.Err())
	}
	l.counters.DialsFailed.Add(1)
	if errors.Is(err, apnsconn.ErrCredential) {
		l.refused(err.Error())
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	level := slog.LevelDebug
	if l.down == nil {
		level = slog.LevelWarn
	}
	l.down = err
	l.log.Log(ctx, level, "apns not reachable; jobs stay in the queue", "err", err, "next_dial", l.backoff.wait(time.Now()).Round(time.Millisecond))
	return err
}

// watch waits for a connection's end and says why it ended.
func (l *link) watch(conn Conn) {
	<-conn.Done()
	l.mu.Lock()
	delete(l.open, conn)
	if l.conn == conn {
		l.conn = nil
	}
	l.mu.Unlock()
	err := conn.Err()
	var goAway *apnsconn.GoAwayError
	if errors.As(err, &goAway) {
		l.noteGoAway(goAway)
	}
	switch {
	case errors.Is(err, apnsconn.ErrCredential):
		l.refused(err.Error())
	case goAway != nil:
		l.counters.GoAways.Add(1)
		l.log.Info("apns ended the connection", "err", err)
	case err != nil && !errors.Is(err, apnsconn.ErrClosed):
		l.log.Warn("connection to apns lost", "err", err)
	}
	l.onChange()
}

func (l *link) noteGoAway(e *apnsconn.GoAwayError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reason := cmp.Or(e.Reason, e.Code.String())
	l.goAway = GoAway{At: time.Now(), Reason: strings.ToValidUTF8(reason[:min(len(reason), maxShown)], "")}
}

// Link is a worker's connection to APNs at one moment.
type Link struct {
	Since  time.Time // when it was opened; zero: there is none
	Open   int       // streams open, of Limit
	Limit  int       // streams that APNs and the configuration allow now; 1 until the first answer
	GoAway GoAway    // with which the last connection that APNs has ended was ended
}

// GoAway is APNs' word at a connection's end.
type GoAway struct {
	At     time.Time // zero: there was none since the worker began
	Reason string    // APNs' text, or the code of HTTP/2 if there was none
}

// view describes the connection.
func (l *link) view() Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := Link{GoAway: l.goAway}
	if l.conn == nil || !l.conn.Usable() {
		return v
	}
	v.Since = l.since
	if c, ok := l.conn.(interface{ Streams() (open, limit int) }); ok {
		v.Open, v.Limit = c.Streams()
	}
	return v
}

// good notes a good answer: the next dial need not wait long.
func (l *link) good() {
	if l.fine.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backoff.good()
	l.fine.Store(true)
}

// close ends all connections and waits until they have ended.
func (l *link) close() {
	l.mu.Lock()
	l.conn, l.closed = nil, true
	open := make([]Conn, 0, len(l.open))
	for c := range l.open {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // it says nothing that watch does not
	}
	l.watchers.Wait()
}

// unreachable is why the last dial failed; nil if it did not, or if a worker
// with jobs would have dialled again by now: then it says nothing any more.
func (l *link) unreachable(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := l.backoff.pause + dialLate
	if l.dialing {
		fresh = max(fresh, dialLong)
	}
	if now.Sub(l.backoff.last) > fresh {
		return nil
	}
	return l.down
}

const (
	// dialLate is how long after its pause a dial may begin when there are jobs:
	// one has to be received first.
	dialLate = 5 * time.Second
	// dialLong is above what one dial can take, apnsconn.Config.DialTimeout.
	dialLong = 15 * time.Second
)

// drop lets go of the connection: no new pushes, what is open is answered.
// Used when the credential is refused, so that a probe opens a new one.
func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn := l.conn
	l.conn = nil
	if l.closed {
		return // close waits for the watchers
	}
	if d, ok := conn.(interface{ Drain(context.Context) error }); ok {
		l.watchers.Go(func() { _ = d.Drain(context.Background()) }) // bounded by the PushTimeout of each push
	}
}
