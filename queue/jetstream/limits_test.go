package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// A server gives a stream 1,000 consumers unless it is told otherwise, and
// none for the rest of the tubes. This stream is as older versions made it.
func TestManyTubesEmbedded(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	js := q.link.cn.js
	old := jobsConfig(1)
	old.MaxConsumers = 0
	if _, err := js.UpdateStream(ctxOf(t), old); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		c := consumerConfig(fmt.Sprint("other", i), DefaultEmbeddedAckWait)
		c.MemoryStorage = true // of files, each takes 10 ms to close
		if _, err := js.CreateConsumer(ctxOf(t), jobsStream, c); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, q, "one-more", "x")
	mustDone(t, mustReceive(t, consumeTest(t, q, "one-more"), 1)...)
}

// A cluster has limits of its own. The server's (10 here) does not hold for a
// stream that we make, and whoever is at another is told whose it is.
func TestManyTubesCluster(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	ours, few, old := ns.options(t), ns.options(t), ns.options(t)
	few.User, few.Password = "few", "few"
	without, set := jobsConfig(1), jobsConfig(1)
	without.MaxConsumers, set.MaxConsumers = 0, 3
	oldSet := ns.options(t)
	for _, s := range []struct {
		o Options
		c jetstream.StreamConfig
	}{{old, without}, {oldSet, set}} {
		if _, err := rawClient(t, s.o).CreateStream(ctxOf(t), s.c); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		o      Options
		served int
		want   string
	}{
		"made by us":           {ours, 12, ""},
		"the account's":        {few, 1, "the account may have 1 for a stream: raise max_consumers of the account"},
		"the stream's":         {oldSet, 3, "max_consumers of stream PROPELLER_JOBS is 3: raise it"},
		"the server's default": {old, 10, "set max_consumers of stream PROPELLER_JOBS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := openReady(t, tt.o)
			for i := range tt.served {
				tube := fmt.Sprint("tube", i)
				mustPut(t, q, tube, "x")
				mustDone(t, mustReceive(t, consumeTest(t, q, tube), 1)...)
			}
			if tt.want == "" {
				return
			}
			c := consumeTest(t, q, "one-more")
			ctx, cancel := context.WithCancel(ctxOf(t))
			defer cancel()
			go func() { _, _ = c.Receive(ctx, 1) }()
			eventually(t, "the limit is named", func() bool { return c.Err() != nil })
			if err := c.Err(); !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// Many tubes that are opened at once, as by a reload, are made one after the
// other in the server, and the last of them takes longer than a request may. It
// is not asked for again meanwhile: that would be behind all others, too.
func TestManyTubesAtOnce(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t)
	openReady(t, o) // makes the streams, which may take longer
	o.timeout = 250 * time.Millisecond
	q := openReady(t, o)
	acc, err := ns.all[0].server.LookupAccount("A0")
	if err != nil {
		t.Fatal(err)
	}
	before := acc.JetStreamUsage().API.Total
	const tubes, workers = 300, 2
	ctx, cancel := context.WithCancel(ctxOf(t))
	var all []*consumer
	var wg sync.WaitGroup
	for i := range tubes {
		for range workers {
			c := consumeTest(t, q, fmt.Sprint("tube", i))
			all = append(all, c)
			wg.Go(func() { _, _ = c.Receive(ctx, 1) })
		}
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	for _, c := range all {
		eventually(t, "the tube is open", c.asks)
	}
	n := acc.JetStreamUsage().API.Total - before
	t.Logf("%d requests for %d tubes", n, tubes)
	if n > 3*tubes {
		t.Error("too many")
	}
}

// What was asked for and not answered is looked for before it is asked for again.
func TestUnansweredIsLookedFor(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	calls := func() uint64 { return q.embedded.server.GlobalAccount().JetStreamUsage().API.Total }
	tube := newTube(q, "tube")
	cn := q.link.cn
	<-q.swept // it asks, too
	late, cancel := context.WithTimeout(ctxOf(t), 0)
	defer cancel()
	if _, err := tube.makeOrFind(late, cn); err == nil || !tube.making.asked {
		t.Fatalf("%v, asked %v", err, tube.making.asked)
	}
	for i, want := range []uint64{2, 1} { // it is not there, and is made; it is there
		before := calls()
		tube.making.asked = true
		if _, err := tube.make(ctxOf(t), cn); err != nil || tube.making.asked {
			t.Fatal(err)
		}
		if n := calls() - before; n != want {
			t.Errorf("%d: %d requests, want %d", i, n, want)
		}
	}
}
