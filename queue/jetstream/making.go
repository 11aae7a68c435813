package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// The server makes consumers one after the other. If all tubes of a daemon asked
// at once, the last would have no answer in time, and those that asked again would
// be behind all the others; with 10,000 requests waiting it throws all of them
// away (nats-server: jetstream_api.go, JSDefaultRequestQueueLimit).

// apiAtOnce is how many requests to make a consumer this process has under way at
// once, and how many questions.
const apiAtOnce = 8

// slots are for what may be under way at once.
type slots chan struct{}

// take waits for a slot. Whoever has one gives it back.
func (s slots) take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slots) giveBack() { <-s }

// making is what a tube's consumers here share of making the one in the server.
type making struct {
	turn slots // one of them sees to it
	// Of who has the turn.
	info  *jetstream.ConsumerInfo // as it was at
	at    time.Time
	asked bool // for, and not answered: it may have been made, or may be yet
}

func newMaking() making { return making{turn: make(slots, 1)} }

// make makes the tube's consumer in the server unless it is there, and returns
// what is known of it. What others find while one waits for its turn is good
// enough.
func (t *tube) make(ctx context.Context, cn *conn) (*jetstream.ConsumerInfo, error) {
	since := time.Now()
	m := &t.making
	if err := m.turn.take(ctx); err != nil {
		return nil, err
	}
	defer m.turn.giveBack()
	if m.at.After(since) {
		return m.info, nil
	}
	if err := t.q.makes.take(ctx); err != nil {
		return nil, err
	}
	defer t.q.makes.giveBack()
	ctx, cancel := context.WithTimeout(ctx, t.q.opts.timeout)
	defer cancel()
	info, err := t.makeOrFind(ctx, cn)
	if err != nil {
		return nil, t.q.denials.because(err, since)
	}
	if m.info != nil && !m.info.Created.Equal(info.Created) {
		t.q.opts.Log.Warn("a tube's consumer was missing and is made anew", "queue", t.q.opts.String(), "tube", t.name)
		t.q.link.doubt(t.removed()) // perhaps it went with the stream
	}
	m.info, m.at = info, time.Now()
	return info, nil
}

// removed is why the stream has to be seen before anything is said to it.
func (t *tube) removed() error {
	return fmt.Errorf("jetstream: tube %q: its consumer was removed: %w", t.name, queue.ErrUnavailable)
}

// makeOrFind asks for the consumer once. As long as that may wait in the server
// it only looks whether it has been made: such questions are answered after all
// else.
func (t *tube) makeOrFind(ctx context.Context, cn *conn) (*jetstream.ConsumerInfo, error) {
	m, name := &t.making, t.config.Durable
	var c jetstream.Consumer
	var err error = jetstream.ErrConsumerNotFound
	if m.asked {
		c, err = cn.js.Consumer(ctx, jobsStream, name)
	}
	answered := err == nil
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = cn.js.CreateConsumer(ctx, jobsStream, t.config)
		m.asked = late(err)
	}
	if errors.Is(err, jetstream.ErrConsumerExists) { // made otherwise than we would
		c, err = cn.js.Consumer(ctx, jobsStream, name)
		answered = true
	}
	if err == nil && !answered && (m.info == nil || !m.info.Created.Equal(c.CachedInfo().Created)) {
		// The first answer of a server that was started gives the time of its start
		// for when the consumer was made (nats-server: jetstream.go, setCreatedTime
		// after consumer.go, initialInfo).
		c, err = cn.js.Consumer(ctx, jobsStream, name)
		m.asked = late(err)
	}
	switch {
	case codeOf(err) == errCodeTooManyConsumers:
		return nil, fmt.Errorf("jetstream: consumer %s: %w: %s", name, err, tooManyConsumers(ctx, cn.js))
	case err != nil:
		return nil, fmt.Errorf("jetstream: consumer %s: %w", name, inner(err))
	}
	m.asked = false
	t.ledBy(c.CachedInfo())
	harmless, err := consumerDiffers(c.CachedInfo().Config, t.config)
	t.q.remark(name, harmless)
	return c.CachedInfo(), err
}

// late says whether an answer may still be on its way.
func late(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
