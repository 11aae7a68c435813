package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// deed is the work of an act.
type deed func(life, faults context.Context) error

// hand kills, stops, freezes and cuts off servers, one at a time; sometimes it freezes two,
// or removes what the daemon keeps in them.
func (c *cluster) hand(rng *rand.Rand) *hand {
	h := &hand{rng: rng, mean: 4 * time.Second}
	h.acts = []act{
		{name: "nats server killed", weight: 22, last: true, do: c.end(h, syscall.SIGKILL)},
		{name: "nats server stopped", weight: 12, do: c.end(h, syscall.SIGTERM)},
		{name: "nats server frozen", weight: 18, do: c.freeze(h, 1, 0, 5*time.Second)},
		// Longer than Raft's election timeout and all of the daemon's timeouts.
		{name: "nats server frozen for long", weight: 6, do: c.freeze(h, 1, 9*time.Second, 15*time.Second)},
		{name: "two nats servers frozen", weight: 5, do: c.freeze(h, 2, 0, 9*time.Second)},
		{name: "nats server cut off from its peers", weight: 12, last: true, do: c.part(h, cut)},
		{name: "nats server's peers silent", weight: 8, do: c.part(h, held)},
		{name: "nats consumer removed", weight: 12, last: true, do: c.removeConsumer(h)},
		{name: "nats stream of jobs removed", weight: 9, last: true, do: c.removeStream(jobsStream)},
		{name: "nats stream of buried jobs removed", weight: 4, last: true, do: c.removeStream(buriedStream)},
	}
	return h
}

// trouble is the site's trouble; jobs that are held come later because of it.
func (c *cluster) trouble(what string) (over func()) {
	end := c.at.trouble(what)
	return func() {
		end()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.troubles = append(c.troubles, time.Now())
	}
}

func (c *cluster) end(h *hand, sig syscall.Signal) deed {
	return func(life, faults context.Context) error {
		n := c.nodes[c.some(h.rng)]
		defer c.trouble("nats " + n.name + " " + sig.String())()
		n.p.signal(sig)
		if !n.p.wait(endTimeout) {
			n.p.kill()
		}
		sleep(faults, h.upTo(6*time.Second))
		return c.revive(life, n)
	}
}

func (c *cluster) freeze(h *hand, count int, least, most time.Duration) deed {
	return func(_, faults context.Context) error {
		first, t := c.some(h.rng), least+h.upTo(most-least)
		defer c.trouble(fmt.Sprintf("%d nats servers frozen for %v, from %s on", count, t, c.nodes[first].name))()
		for i := range count {
			p := c.nodes[(first+i)%clusterSize].p
			p.signal(syscall.SIGSTOP)
			defer p.signal(syscall.SIGCONT)
		}
		sleep(faults, t)
		return nil
	}
}

// part cuts or holds a server's wires.
func (c *cluster) part(h *hand, how wireState) deed {
	return func(_, faults context.Context) error {
		i, t := c.some(h.rng), time.Second+h.upTo(14*time.Second)
		defer c.trouble("nats " + c.nodes[i].name + " cut off for " + t.String())()
		c.setWires(how, i)
		defer c.setWires(whole, i)
		sleep(faults, t)
		return nil
	}
}

// removeConsumer removes a tube's consumer. Its jobs stay.
func (c *cluster) removeConsumer(h *hand) deed {
	return func(context.Context, context.Context) error {
		tube := pick(h.rng, tubes(apps())...)
		defer c.trouble("nats consumer of " + tube + " removed")()
		conn, err := c.connect()
		if err == nil {
			defer conn.close()
			ctx, cancel := within(askTimeout)
			defer cancel()
			err = conn.js.DeleteConsumer(ctx, jobsStream, consumerName(tube))
		}
		c.at.note("nats consumer of %s: %v", tube, err)
		return nil // it does not matter if the server or the consumer is away
	}
}

// consumerName returns the name of a tube's consumer.
func consumerName(tube string) string { return strings.ReplaceAll(tube, ".", "=") }

// removeStream removes a stream with everything in it, after it has read all of that. If
// reading fails it leaves the stream alone.
func (c *cluster) removeStream(stream string) deed {
	return func(life, _ context.Context) error {
		c.at.kicks.Lock()
		defer c.at.kicks.Unlock()
		defer c.trouble("nats stream " + stream + " removed")()
		conn, err := c.connect()
		if err != nil {
			c.at.note("nats stream %s: %v", stream, err)
			return nil
		}
		defer conn.close()
		r := removal{stream: stream, span: span{what: stream, from: time.Now()}}
		made, err := conn.madeAt(stream)
		if err == nil {
			r.bodies, err = conn.bodies(stream)
		}
		if err != nil {
			c.at.note("nats stream %s is left alone: %v", stream, err)
			return nil
		}
		ctx, cancel := within(askTimeout)
		defer cancel()
		if err = conn.js.DeleteStream(ctx, stream); err != nil {
			c.awaitRemoval(life, stream, made)
		}
		r.to = time.Now()
		c.at.note("nats stream %s with %d jobs: %v", stream, len(r.bodies), err)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.removals = append(c.removals, r)
		return nil
	}
}

// removalTime is how long an unanswered removal may still be carried out.
const removalTime = 30 * time.Second

// awaitRemoval waits until the stream created at that time is gone, or certainly stays.
func (c *cluster) awaitRemoval(ctx context.Context, stream string, made time.Time) {
	for end := time.Now().Add(removalTime); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		conn, err := c.connect()
		if err != nil {
			continue
		}
		now, err := conn.madeAt(stream)
		conn.close()
		if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && !now.Equal(made) {
			return
		}
	}
}

// madeAt returns when a stream was created.
func (c *natsClient) madeAt(stream string) (time.Time, error) {
	ctx, cancel := within(askTimeout)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return time.Time{}, err
	}
	return s.CachedInfo().Created, nil
}

// bodies returns the bodies of all messages in a stream.
func (c *natsClient) bodies(stream string) (all []string, err error) {
	ctx, cancel := within(4 * askTimeout)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	for seq := uint64(1); ; seq++ {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(">"))
		switch {
		case err == nil:
			all, seq = append(all, string(m.Data)), m.Sequence
		case isNoMessage(err):
			return all, nil
		default:
			return nil, err
		}
	}
}
