package jetstream

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// A server does not answer a request that the user may not make. It says so on the
// connection, for nobody in particular; who waits for the answer is told here.

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
	deaf *deniedError // answers: no request is of use
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
		c.wake()
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
