package jetstream

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"propeller/internal/backoff"
	"propeller/internal/neterr"
)

const (
	dialTimeout = 5 * time.Second // one server, TLS and log-in included

	// Silence is noticed after two pings without an answer.
	pingInterval = 5 * time.Second
	pingsLost    = 2

	reconnectWait = 250 * time.Millisecond // between rounds over all servers, plus as much jitter
	prepareRetry  = 100 * time.Millisecond // doubled up to maxRetry
	maxRetry      = 2 * time.Second

	// saidAtOnce and saidEvery bound the lines about what a server says of the
	// connection.
	saidAtOnce = 5
	saidEvery  = time.Minute

	// changesAtOnce and changesEvery bound the lines about the queue's being there or not.
	// Without a leader it may be both several times a second. A state that lasts is logged in the end.
	changesAtOnce = 10
	changesEvery  = 10 * time.Second
)

// link is the queue's one connection and what is known of it.
//
// nats.go connects again by itself, for ever, and subscribes again to all that
// was subscribed. The link adds what must be true before jobs may flow: a
// server that is new enough, and streams that are as needed.
type link struct {
	q      *client
	events event // something changed: look again
	dials  dials
	said   *limitedLog // what the server says of the connection
	lines  *rate.Limiter

	// Only for run.
	recovered bool      // left jobs have been put again
	made      time.Time // when the stream of jobs was made; zero before it was seen
	quiet     quiet
	buried    buriedState

	mu      sync.Mutex
	cn      *conn         // nil until the first connection
	server  string        // its, "" for an embedded one
	epoch   int           // counts the times that it became ready
	err     error         // why it is not ready; nil when it is
	trying  bool          // the first attempt is under way: nothing is known yet
	logged  bool          // that it is not ready
	checked chan struct{} // replaced when a check begins, closed when that ends
	changed chan struct{} // closed and replaced when err changes
}

// conn is the connection; it stays the same over reconnects.
type conn struct {
	nc *nats.Conn
	js jetstream.JetStream
}

var errConnecting = errors.New("connecting")

func newLink(q *client) *link {
	return &link{
		q: q, events: newEvent(), said: newLimitedLog(q.opts.Log, saidEvery, saidAtOnce),
		lines: rate.NewLimiter(rate.Every(changesEvery), changesAtOnce), err: unavailable(errConnecting), trying: true,
		changed: make(chan struct{}), checked: make(chan struct{}),
	}
}

// ready returns the connection, whose use is only for when err is nil, and a
// channel that is closed when that changes. It does not wait.
func (l *link) ready() (cn *conn, epoch int, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cn, l.epoch, l.changed, l.err
}

// alive returns the connection for signs of life, which an embedded server takes
// though it can store nothing; nil when there is nobody to hear them. settles says
// whether jobs can be settled, too.
func (l *link) alive() (cn *conn, settles bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil && (l.cn == nil || l.q.embedded == nil || l.q.embedded.trouble() == nil) {
		return nil, false
	}
	return l.cn, l.err == nil
}

// How long get waits for a connection.
type until uint8

const (
	untilTried until = iota // while the first attempt to connect is under way
	untilFull               // unless an embedded server's disk takes nothing
	untilReady
)

// get returns the connection when it is ready.
func (l *link) get(ctx context.Context, u until) (*conn, error) {
	for {
		l.mu.Lock()
		cn, err, trying, changed := l.cn, l.err, l.trying, l.changed
		l.mu.Unlock()
		switch {
		case err == nil:
			return cn, nil
		case l.q.ctx.Err() != nil:
			return nil, errQueueClosed
		case u == untilTried && !trying, u == untilFull && l.q.embedded != nil && l.q.embedded.takesNothing():
			return nil, err
		}
		if err := wait(ctx, l.q, changed); err != nil {
			return nil, err
		}
	}
}

// set notes the state and logs when it changes.
func (l *link) set(err error) { l.note(err, true) }

// note is set, with a log or, for what may be over in a moment, without.
func (l *link) note(err error, loud bool) {
	if e := l.q.embedded; e != nil {
		if why := e.trouble(); why != nil {
			err = unavailable(why) // the rest follows from that
		} else {
			err = e.capacity.blame(err)
		}
	}
	err = l.q.advised(err)
	l.mu.Lock()
	was, first := l.err, l.trying
	l.err, l.trying = err, false
	if err == nil && was == nil {
		l.mu.Unlock()
		return // it was doubted, and is well
	}
	if err == nil {
		l.epoch++
	}
	close(l.changed)
	l.changed = make(chan struct{})
	said := l.logged
	tell := err != nil && loud && (!said || first || !neterr.Same(was, err)) && l.q.ctx.Err() == nil && l.lines.Allow()
	l.logged = err != nil && (tell || said)
	l.mu.Unlock()
	log := l.q.opts.Log
	switch {
	case tell:
		log.Warn("queue unavailable", "queue", l.q.opts.String(), "err", err)
	case err == nil && said && !first:
		log.Info("queue is back", "queue", l.q.opts.String())
	}
}

// look makes run check everything again.
func (l *link) look() { l.events.raise() }

// suspect is called when nobody answers: jobs stop until the streams
// have been seen.
func (l *link) suspect(err error) { l.pause(err, true) }

// doubt is suspect without a log line if the streams turn out to be well.
func (l *link) doubt(err error) { l.pause(err, false) }

func (l *link) pause(err error, loud bool) {
	l.mu.Lock()
	well := l.err == nil
	l.mu.Unlock()
	if well {
		l.note(err, loud)
		l.look()
	}
}

// run connects, and prepares the connection each time it is new, until the
// queue is closed.
func (l *link) run() {
	if !l.connect() {
		return
	}
	for routine := false; ; {
		again := l.prepare(routine)
		select {
		case <-l.q.ctx.Done():
			return
		case <-again:
			routine = true
		case <-l.events:
			routine = false
		}
	}
}

// connect makes the first connection. It reports false when the queue was
// closed.
func (l *link) connect() bool {
	pauses := backoff.Backoff{Min: prepareRetry, Max: maxRetry}
	for {
		cn, err := l.dial()
		if err == nil {
			l.mu.Lock()
			l.cn, l.server = cn, l.dials.done()
			l.mu.Unlock()
			return true
		}
		l.set(unavailable(l.refusal(err)))
		if l.q.sleep(l.q.ctx, pauses.Next()) != nil {
			return false
		}
	}
}

// refusal is why no server could be connected to, of which nats.go says err: often only
// that there is none.
func (l *link) refusal(err error) error {
	_, ours := errors.AsType[*dialError](err)
	if why := l.dials.why(); why != nil && (ours || errors.Is(err, nats.ErrNoServers)) {
		return why
	}
	return ofServer(l.dials.reached(), err)
}

func (l *link) dial() (*conn, error) {
	o := l.q.natsOptions()
	if err := l.q.access(&o); err != nil {
		return nil, err
	}
	nc, err := o.Connect()
	if err != nil {
		return nil, err
	}
	limit := jetstream.WithDefaultTimeout(l.q.opts.timeout)
	js, err := jetstream.New(nc, limit)
	if domain := l.q.opts.Options["domain"]; domain != "" {
		js, err = jetstream.NewWithDomain(nc, domain, limit)
	}
	if err == nil {
		var sub *nats.Subscription
		if sub, err = nc.Subscribe(l.q.calls.inbox+"*", l.q.guarded(l.q.answered)); err == nil {
			err = sub.SetPendingLimits(maxPending, maxPendingBytes)
		}
		if err == nil {
			err = l.q.watchElections(nc)
		}
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &conn{nc, js}, nil
}

// lost is called when the connection has ended, or an embedded server stores
// nothing. What was under way may have been carried out.
func (l *link) lost(_ *nats.Conn, err error) {
	if l.q.embedded == nil {
		err = ended(l.serving(), err)
	} else if err == nil {
		err = errors.New("connection lost")
	}
	if _, why := l.q.denials.deafness(); why != nil {
		err = why
	}
	err = unavailable(err)
	l.set(err)
	l.q.calls.fail(farFuture, err)
}

// serving is the server that we are, or were, connected to.
func (l *link) serving() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.server
}

// again is called when the connection is there again.
func (l *link) again(*nats.Conn) {
	l.mu.Lock()
	l.server = l.dials.done()
	l.mu.Unlock()
	l.q.denials.forget()
	l.q.reconnected()
	l.look()
}

// natsOptions are the settings of the connection.
func (q *client) natsOptions() nats.Options {
	o := nats.GetDefaultOptions()
	o.Name = "propeller"
	o.CustomDialer, o.SkipHostLookup = &dialer{q: q}, true
	o.Timeout = dialTimeout
	o.PingInterval, o.MaxPingsOut = pingInterval, pingsLost
	o.MaxReconnect, o.AllowReconnect = -1, true
	o.ReconnectWait, o.ReconnectJitter, o.ReconnectJitterTLS = reconnectWait, reconnectWait, reconnectWait
	o.ReconnectBufSize = -1 // nothing is sent later: its caller has got an error
	o.IgnoreAuthErrorAbort = true
	o.NoCallbacksAfterClientClose = true
	o.DisconnectedErrCB = q.link.lost
	o.ReconnectedCB = q.link.again
	o.AsyncErrorCB = func(_ *nats.Conn, sub *nats.Subscription, err error) {
		q.deny(err)
		if !q.ofWatch(sub, err) && !turnedAway(err) { // see explain
			q.link.said.note(line{level: slog.LevelWarn, text: "queue connection", queue: q.opts.String(), err: brief(err.Error())})
		}
	}
	return o
}

// access sets where to connect and how to prove who we are. It reads the files for
// that.
func (q *client) access(o *nats.Options) error {
	if q.embedded != nil {
		o.InProcessServer, o.Token = q.embedded, q.embedded.token
		o.CustomDialer = nil
		return nil
	}
	for _, addr := range q.opts.Servers {
		o.Servers = append(o.Servers, q.opts.Scheme+"://"+addr)
	}
	o.User, o.Password, o.Token = q.opts.User, q.opts.Password, q.opts.Token
	o.Secure = q.opts.encrypted()
	o.InboxPrefix = strings.TrimSuffix(q.opts.inboxPrefix(), ".")
	if file := q.opts.Options["creds"]; file != "" {
		return credentials(file)(o)
	}
	if file := q.opts.Options["nkey"]; file != "" {
		prove, err := nkey(file)
		if err != nil {
			return err
		}
		return prove(o)
	}
	return nil
}
