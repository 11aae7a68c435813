package jetstream

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"

	"propeller/internal/neterr"
	"propeller/queue"
)

const ourName = "jetstream: "

// unavailable wraps err as the reason why the queue is away. The caller says that it is away.
func unavailable(err error) error {
	return neterr.Reworded(ourName+inner(err).Error(), queue.ErrUnavailable, err)
}

// inner is err for a sentence that has begun with our name.
func inner(err error) error { return neterr.After(ourName, err) }

// ofServer is what is wrong with the connection to a server.
func ofServer(addr string, err error) error {
	text := strings.TrimPrefix(neterr.Plain(inner(err), addr).Error(), "nats: ")
	if addr != "" {
		text = "server " + addr + ": " + text
	}
	return neterr.Reworded(text, err)
}

// ended is why a connection ended.
func ended(addr string, err error) error {
	const what = "connection lost"
	switch {
	case err == nil:
		return ofServer(addr, errors.New(what))
	case errors.Is(err, nats.ErrStaleConnection):
		return ofServer(addr, neterr.Reworded(what+": it does not answer", err))
	case turnedAway(err):
		return ofServer(addr, err)
	}
	return ofServer(addr, neterr.Reworded(what+": "+strings.TrimPrefix(neterr.Plain(err, addr).Error(), "nats: "), err))
}

// serverError is what servers say of why the queue is away (nats-server: errors.go,
// errors.json), and what to do about it. They go on by themselves when it is done.
type serverError struct {
	said string
	away bool // they do not let us in
	do   string
}

// checkCredentials stands for what depends on them.
const checkCredentials = "check credentials"

var serverErrors = []serverError{
	{"maximum account active connections exceeded", true, "raise the connections that the queue's account may have, or end others"},
	{"maximum connections exceeded", true, "raise the server's max_connections, or end others"},
	{"authentication revoked", true, "these credentials were revoked: put others in their place"},
	{"account authentication expired", true, "the queue's account has to be renewed"},
	{"authentication expired", true, checkCredentials},
	{"authorization violation", true, checkCredentials},
	{"jetstream not enabled", false, "enable JetStream for the queue's account"},
	{"no responders", false, "JetStream is not enabled for the queue's account, or its servers have no leader"},
	{"maximum number of streams reached", false, "raise the streams that the queue's account may have: it needs 2"},
	{"insufficient storage resources", false, "raise the storage of the queue's account or servers"},
}

// understand finds what is known about an error.
func understand(err error) serverError {
	if err != nil {
		text := strings.ToLower(err.Error())
		for _, s := range serverErrors {
			if strings.Contains(text, s.said) {
				return s
			}
		}
	}
	return serverError{}
}

// turnedAway says whether err is a server's word that it does not let us in.
func turnedAway(err error) bool { return understand(err).away }

// advised adds to why the queue is away what an operator can do, where the
// server's words do not say.
func (q *client) advised(err error) error {
	do := understand(err).do
	if do == checkCredentials {
		switch file := q.opts.Options["creds"]; {
		case file == "":
			do = "the server does not take the queue's user, password or token"
		case expired(file):
			do = fmt.Sprintf("the credentials in %s have expired: put new ones into that file", file)
		default:
			do = fmt.Sprintf("the server does not take the credentials in %s", file)
		}
	}
	if do == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, do)
}

// expired says whether the credentials in a file are of the past. The server
// calls them only wrong.
func expired(file string) bool {
	text, err := readFile(file)
	if err != nil {
		return false
	}
	token, err := jwt.ParseDecoratedJWT(text)
	if err != nil {
		return false
	}
	claims, err := jwt.DecodeUserClaims(token)
	return err == nil && claims.Expires != 0 && time.Now().Unix() >= claims.Expires
}

// explain notes why the servers cannot be reached, or do not let us in again: nats.go
// goes on trying and keeps that to itself. Once a second will do.
func (l *link) explain() {
	l.mu.Lock()
	cn, was := l.cn, l.err
	l.mu.Unlock()
	if cn == nil || was == nil || l.q.embedded != nil || cn.nc.IsConnected() {
		return
	}
	if err := cn.nc.LastError(); err != nil { // of one that was reached
		l.dials.fail(l.dials.reached(), err)
	}
	why := l.dials.why()
	if why == nil {
		return
	}
	if why = unavailable(why); !neterr.Same(was, l.q.advised(why)) {
		l.set(why)
	}
}

// A server does not answer a request that the user may not make. It says so on the
// connection, without naming the request; those who wait for the answer are found here.

// deniedError says what the user may not do. Nothing was done.
type deniedError struct{ what, subject string }

func (e *deniedError) Error() string {
	return fmt.Sprintf("the queue's user may not %s %q: give it the permissions that docs/queues.md lists", e.what, e.subject)
}

func (e *deniedError) Unwrap() error { return queue.ErrUnavailable }

var violation = regexp.MustCompile(`(?i)violation for (publish|subscription) to "([^"]+)"`)

// denials are what the user was denied on this connection.
type denials struct {
	mu   sync.Mutex
	last *deniedError // a request
	at   time.Time
	deaf *deniedError // answers: every request is useless
	said time.Time    // that it is deaf
}

// deafTime is after what time a connection that hears no answers is made again: only then
// a user that may hear them now does.
const deafTime = 5 * time.Second

// deafness is why no answer can be heard, nil if they can, and since when.
func (d *denials) deafness() (since time.Time, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf == nil {
		return since, nil
	}
	return d.said, d.deaf
}

// deny tells those concerned if err says that the user may not do something.
func (q *client) deny(err error) {
	parts := violation.FindStringSubmatch(err.Error())
	if !errors.Is(err, nats.ErrPermissionViolation) || parts == nil {
		return
	}
	no := &deniedError{"publish to", parts[2]}
	deaf := strings.EqualFold(parts[1], "subscription")
	if deaf {
		no.what = "subscribe to"
		if !strings.HasPrefix(no.subject, q.opts.inboxPrefix()) { // the other one is not needed to work
			return
		}
	}
	q.denials.note(no, deaf)
	if deaf {
		q.link.suspect(unavailable(no))
	}
	q.calls.endAll(no, func(c *call) bool { return c.subject == no.subject })
	for _, t := range q.allTubes() {
		if t.pullSubject() == no.subject {
			t.denied(no)
		}
	}
}

func (d *denials) note(no *deniedError, deaf bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last, d.at = no, time.Now()
	if deaf {
		d.deaf, d.said = no, time.Now()
	}
}

// denied has the tube's consumers say why they get no jobs.
func (t *tube) denied(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.consumers {
		c.endLocked()
		c.err = unavailable(why)
		c.refusedLocked(limitPause)
		c.Wake()
	}
}

// because is err, or if nothing came back since a time and the user was denied something,
// that.
func (d *denials) because(err error, since time.Time) error {
	if !leaderless(err) {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.deaf != nil:
		return d.deaf
	case d.last != nil && d.at.After(since):
		return d.last
	}
	return err
}

// forget: another connection may be another user's.
func (d *denials) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last, d.deaf = nil, nil
}
