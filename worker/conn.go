package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/backoff"
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
	// Streams is how many pushes are open, and how many APNs and the configuration allow.
	Streams() (open, limit int)
	// Drain takes no new pushes, waits for the open ones and closes. Each push ends within
	// its own time limit, so Drain ends too.
	Drain(ctx context.Context) error
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

const (
	// dialMin and dialMax bound the pause between two dials. Apple takes connection
	// churn for an attack, so two dials are at least dialMin apart, even after a good
	// connection. dialMax is at most ProbeEvery, or a probe, which needs a new
	// connection, would be late.
	dialMin = time.Second
	dialMax = time.Minute
	// refusedMax bounds the pause after a dial that failed to connect. APNs cannot take
	// that for churn, and pushes wait no longer than this once APNs is back.
	refusedMax = 15 * time.Second
	// dialTime bounds one dial; it is above apnsconn.Config.DialTimeout.
	dialTime = 15 * time.Second
)

// conn is a connection, and what its pushes have shown about it.
type conn struct {
	Conn
	since       time.Time
	closes      int       // the breaker's, when it was dialled
	answered    bool      // APNs has answered a push
	unsent      int       // pushes in a row that came back unsent
	unsentSince time.Time // when the first of those came back
	sending     int       // pushes whose outcome is unknown
}

// link is the part of a run's state that concerns APNs: at most one connection that takes
// pushes, and a pause between dials that doubles until there is a good answer. A
// connection that takes no pushes counts as a failed dial. link belongs to the run's
// goroutine.
type link struct {
	conn    *conn              // takes new pushes; nil = none
	open    map[*conn]struct{} // conn, and connections that only finish their pushes
	dialing bool
	dialed  time.Time // start of the last dial
	dialAt  time.Time // no dial before
	fails   int       // failed dials, and connections that took no pushes, since the last good answer
	down    error     // why APNs cannot be reached or takes no pushes; nil when it answers
	told    bool      // down has been logged
	goAway  GoAway    // the last one received
}

// usable returns the connection if it takes pushes, else nil.
func (l *link) usable() *conn {
	if l.conn != nil && l.conn.Usable() {
		return l.conn
	}
	return nil
}

// dial starts a dial. Until there is a good answer it counts as a failure.
func (r *run) dial(now time.Time) {
	l := &r.link
	closed, _, closes := r.app.breaker.look(&r.seat)
	if !closed {
		closes = r.app.breaker.epoch()
	} else if !r.app.breaker.dial(&r.seat, now) {
		return
	}
	l.dialing, l.dialed = true, now
	l.failed(now)
	r.app.Counters.Dials.Add(1)
	r.spawn(func() {
		if r.cfg.Turn != nil {
			if err := r.cfg.Turn(r.dials); err != nil {
				r.box.post(func() { r.dialEnded(nil, closes, err) }) // the run is ending
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.dials, dialTime)
		defer cancel()
		c, err := r.cfg.Dial(ctx, r.box.ring)
		r.box.post(func() { r.dialEnded(c, closes, err) })
	})
}

// failed puts off the next dial.
func (l *link) failed(now time.Time) {
	l.fails++
	l.dialAt = now.Add(backoff.Pause(dialMin, dialMax, l.fails))
}

// good resets the pause between dials after a good answer.
func (r *run) good() {
	l := &r.link
	if l.fails == 0 && l.down == nil {
		return
	}
	if l.fails > 0 {
		l.fails, l.dialAt = 0, l.dialed.Add(backoff.Jitter(dialMin))
	}
	r.reachable()
}

// reachable ends what unreachable began.
func (r *run) reachable() {
	l := &r.link
	if l.down == nil {
		return
	}
	switch {
	case !l.told:
	case l.takesNone():
		r.log.Info("apns takes pushes again")
	default:
		r.log.Info("apns reachable again")
	}
	l.down, l.told = nil, false
}

// unreachable notes that APNs cannot be reached or takes no pushes. It logs that once
// until there is an answer again.
func (r *run) unreachable(tell bool, msg string, err error, now time.Time) {
	l := &r.link
	level := slog.LevelDebug
	if tell && !l.told {
		level, l.told = slog.LevelWarn, true
	}
	l.down = err
	r.log.Log(context.Background(), level, msg, "err", err, "next_dial", max(0, l.dialAt.Sub(now)).Round(time.Millisecond))
}

func (r *run) dialEnded(c Conn, closes int, err error) {
	l, now := &r.link, time.Now()
	l.dialing = false
	switch {
	case err == nil && r.dials.Err() != nil:
		_ = c.Close() // the run is ending
	case err == nil:
		cn := &conn{Conn: c, since: now, closes: closes}
		l.conn, l.open[cn] = cn, struct{}{}
		r.goes.Go(func() {
			<-c.Done()
			r.box.post(func() { r.connEnded(cn) })
		})
	case r.dials.Err() != nil: // the run is ending, which cancelled the dial
	case errors.Is(err, apnsconn.ErrCredential):
		r.app.Counters.DialsFailed.Add(1)
		r.refused(err.Error())
	default:
		r.app.Counters.DialsFailed.Add(1)
		l.dialAt = sooner(l.dialAt, now.Add(backoff.Jitter(refusedMax)))
		r.unreachable(true, "apns not reachable; jobs stay in the queue", err, now)
	}
}

// connEnded handles the end of a connection.
func (r *run) connEnded(c *conn) {
	l := &r.link
	delete(l.open, c)
	if l.conn == c {
		l.conn = nil
	}
	err := c.Err()
	var goAway *apnsconn.GoAwayError
	if errors.As(err, &goAway) {
		reason := cmp.Or(goAway.Reason, goAway.Code.String())
		l.goAway = GoAway{At: time.Now(), Reason: strings.ToValidUTF8(reason[:min(len(reason), maxShown)], "")}
	}
	switch {
	case errors.Is(err, apnsconn.ErrCredential):
		r.refused(err.Error())
	case goAway != nil:
		r.app.Counters.GoAways.Add(1)
		r.log.Info("apns ended the connection", "err", err)
	case err != nil && !errors.Is(err, apnsconn.ErrClosed):
		r.log.Warn("connection to apns lost", "err", err)
	}
}

// retire stops using the connection for new pushes; the open ones are still answered.
func (r *run) retire() {
	c := r.link.conn
	r.link.conn = nil
	if c == nil {
		return
	}
	r.goes.Go(func() { _ = c.Drain(context.Background()) }) // connEnded reports why it ended
}

// tellConn updates the connection's state from the end of a push.
func (r *run) tellConn(p *push, now time.Time) {
	o, c := &p.outcome, p.conn
	switch {
	case c == nil:
	case o.Status != 0:
		c.answered, c.unsent = true, 0
		r.reachable()
	case o.Class == apnsconn.NotSent:
		if c.unsent++; c.unsent == 1 {
			c.unsentSince = now
		}
		goesOn := c.Usable()
		takesNone := !goesOn && !c.answered || goesOn && r.refusesAll(c, now)
		p.refusedAlone = goesOn && !takesNone
		if takesNone && r.link.conn == c {
			r.takesNothing(o.Err, now)
		}
	case o.Class == apnsconn.Unknown && !c.answered && (r.link.conn == c || r.link.conn == nil): // it may have ended by now
		r.takesNothing(o.Err, now)
	}
	if o.Status != 0 && o.Status < 500 && o.Class != apnsconn.Credential && !o.Reconnect() {
		r.good()
	}
}

const (
	// minRefused is how many pushes in a row a connection may return unsent before
	// it counts as taking none. One that has answered may return all in flight.
	minRefused = 10
	// refusedTime is how long it may return every push, if they are fewer.
	refusedTime = 10 * time.Second
)

// refusesAll reports whether a connection that is usable takes no pushes.
func (r *run) refusesAll(c *conn, now time.Time) bool {
	switch {
	case c.answered:
		return c.unsent >= max(minRefused, r.cfg.InFlight) || c.unsent > 1 && now.Sub(c.unsentSince) >= refusedTime
	case r.link.takesNone():
		return true // see plan
	}
	return c.unsent >= minRefused
}

// takesNothing stops using a connection that takes no pushes, and counts a failed dial.
// The first time is not logged, because a connection that was simply lost looks the same.
func (r *run) takesNothing(why error, now time.Time) {
	r.retire()
	if now.After(r.link.dialAt) {
		r.link.failed(now)
	}
	err := errTakesNothing
	if why != nil {
		err = fmt.Errorf("%w: %w", errTakesNothing, why)
	}
	r.unreachable(r.link.fails > 1, "connected to apns, but it refuses every push; jobs stay in the queue", err, now)
}

// errTakesNothing is in link.down if a connection opened but took no pushes.
var errTakesNothing = errors.New("apns takes no pushes")

// takesNone reports whether the last connection took no pushes, though it opened.
func (l *link) takesNone() bool { return errors.Is(l.down, errTakesNothing) }

// Link is a worker's connection to APNs at one moment.
type Link struct {
	Since  time.Time // when it was opened; zero if there is none
	Open   int       // streams open, of Limit
	Limit  int       // streams that APNs and the configuration allow now
	GoAway GoAway    // the last one received
}

// GoAway is the GOAWAY with which APNs ended a connection.
type GoAway struct {
	At     time.Time // zero if there was none since the worker started
	Reason string    // APNs' text, or the HTTP/2 code if there was none
}
