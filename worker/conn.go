package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
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

const (
	// dialMin and dialMax bound the pause from one dial to the next. Apple takes
	// connection churn for an attack, so even after a good connection two dials
	// are dialMin apart. dialMax is no longer than ProbeEvery, or a probe, which
	// dials anew, would come late.
	dialMin = time.Second
	dialMax = time.Minute
	// refusedMax bounds the pause after a dial that made no connection, which APNs
	// cannot take for churn: a push waits no longer once APNs is back.
	refusedMax = 15 * time.Second
	// dialTime bounds one dial; it is above apnsconn.Config.DialTimeout.
	dialTime = 15 * time.Second
)

// conn is a connection, and what its pushes have shown of it.
type conn struct {
	Conn
	since    time.Time
	closes   int  // of the breaker, when it was dialled
	answered bool // APNs has answered a push
	unsent   int  // pushes in a row that came back unsent
	sending  int  // pushes that have not ended
}

// link is the part of a run's state that concerns APNs: one connection that
// takes pushes at a time, and a pause between dials that doubles until there is
// a good answer. A connection that takes nothing counts as a dial that failed.
// Like all of a run it belongs to the run's goroutine.
type link struct {
	conn    *conn              // the one that takes pushes; nil = none
	open    map[*conn]struct{} // conn, and those that only finish what they have
	dialing bool
	dialed  time.Time // start of the last dial
	dialAt  time.Time // no dial before
	fails   int       // dials, and connections that took nothing, since the last good answer
	down    error     // why APNs cannot be reached, or takes nothing; nil when it answers
	told    bool      // the log knows
	goAway  GoAway    // the last
}

// usable is the connection, if it takes pushes.
func (l *link) usable() *conn {
	if l.conn != nil && l.conn.Usable() {
		return l.conn
	}
	return nil
}

// dial starts a dial. Until there is a good answer it counts as a failure.
func (r *run) dial(now time.Time) {
	l := &r.link
	l.dialing, l.dialed = true, now
	l.failed(now)
	closed, _, closes := r.cfg.Breaker.look(r.cfg.Index)
	if closed {
		r.cfg.Breaker.dial(r.cfg.Index, now)
	} else {
		closes = r.cfg.Breaker.epoch()
	}
	r.cfg.Counters.Dials.Add(1)
	r.spawn(func() {
		ctx, cancel := context.WithTimeout(r.dials, dialTime)
		defer cancel()
		c, err := r.cfg.Dial(ctx, r.box.ring)
		r.box.post(func() { r.dialEnded(c, closes, err) })
	})
}

// failed puts off the next dial.
func (l *link) failed(now time.Time) {
	l.dialAt = now.Add(min(dialMax, jitter(min(dialMax, dialMin<<min(l.fails, 10)))))
	l.fails++
}

// good notes an answer as it should be: the next dial need not wait long.
func (r *run) good() {
	l := &r.link
	if l.fails == 0 && l.down == nil {
		return
	}
	if l.fails > 0 {
		l.fails, l.dialAt = 0, l.dialed.Add(jitter(dialMin))
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
	case errors.Is(l.down, errTakesNothing):
		r.log.Info("apns takes pushes again")
	default:
		r.log.Info("apns reachable again")
	}
	l.down, l.told = nil, false
}

// unreachable notes that APNs cannot be reached, or takes nothing. It is told
// once, until there is a good answer.
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
		_ = c.Close() // nobody wants it any more
	case err == nil:
		cn := &conn{Conn: c, since: now, closes: closes}
		l.conn, l.open[cn] = cn, struct{}{}
		r.goes.Go(func() {
			<-c.Done()
			r.box.post(func() { r.connEnded(cn) })
		})
	case r.dials.Err() != nil: // that is why
	case errors.Is(err, apnsconn.ErrCredential):
		r.cfg.Counters.DialsFailed.Add(1)
		r.refused(err.Error())
	default:
		r.cfg.Counters.DialsFailed.Add(1)
		l.dialAt = sooner(l.dialAt, now.Add(jitter(refusedMax)))
		r.unreachable(true, "apns not reachable; jobs stay in the queue", err, now)
	}
}

// connEnded takes note of why a connection has ended.
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
		r.cfg.Counters.GoAways.Add(1)
		r.log.Info("apns ended the connection", "err", err)
	case err != nil && !errors.Is(err, apnsconn.ErrClosed):
		r.log.Warn("connection to apns lost", "err", err)
	}
}

// letGo ends the use of the connection: no new pushes, what is open is answered.
func (r *run) letGo() {
	c := r.link.conn
	r.link.conn = nil
	if c == nil {
		return
	}
	if d, ok := c.Conn.(interface{ Drain(context.Context) error }); ok {
		r.goes.Go(func() { _ = d.Drain(context.Background()) }) // bounded by the PushTimeout of each push
	}
}

// tellConn takes in what a push's end says of its connection.
func (r *run) tellConn(p *push, now time.Time) {
	o, c := &p.outcome, p.conn
	switch {
	case c == nil:
	case o.Status != 0:
		c.answered, c.unsent = true, 0
		r.reachable()
	case o.Class == apnsconn.NotSent:
		c.unsent++
		goesOn, most := c.Usable(), minRefused
		switch {
		case c.answered:
			most = max(most, r.cfg.InFlight)
		case r.link.down != nil:
			most = 1 // see plan
		}
		takesNone := !goesOn && !c.answered || goesOn && c.unsent >= most
		p.refusedAlone = goesOn && !takesNone
		if takesNone && r.link.conn == c {
			r.takesNothing(o.Err, now)
		}
	}
	if o.Status != 0 && o.Status < 500 && o.Class != apnsconn.Credential && !o.Reconnect() {
		r.good()
	}
}

// minRefused is how many pushes in a row a connection may refuse before it counts
// as one that takes nothing; one that has answered may refuse all in flight.
const minRefused = 10

// takesNothing lets go of a connection that is there and takes no push: it has
// failed as a dial does. The first is not logged: a connection that was simply
// lost looks the same.
func (r *run) takesNothing(why error, now time.Time) {
	r.letGo()
	if now.After(r.link.dialAt) {
		r.link.failed(now)
	}
	err := errTakesNothing
	if why != nil {
		err = fmt.Errorf("%w: %w", errTakesNothing, why)
	}
	r.unreachable(r.link.fails > 1, "apns takes no pushes though it is connected; jobs stay in the queue", err, now)
}

// errTakesNothing is wrapped by link.down when APNs can be reached all the same.
var errTakesNothing = errors.New("apns takes no pushes")

// jitter spreads d over ±20 %, so that many workers do not act as one.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
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
