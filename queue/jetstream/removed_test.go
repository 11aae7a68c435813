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

// soon is when work must go on that nothing stands in the way of: long for a busy
// machine, and shorter than who waits for ever takes.
const soon = 20 * time.Second

// The stream of jobs is removed while a consumer waits for a job, and somebody
// puts none: it is made anew, and the log says so.
func TestStreamIsRemoved(t *testing.T) {
	t.Parallel()
	for _, name := range []string{jobsStream, buriedStream} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := cluster.options(t)
			js := rawClient(t, o)
			log, lines := newLog()
			o.Log = log
			q := openReady(t, o)
			// The queue is there without the stream of buried jobs, which a busy cluster makes later.
			eventually(t, "both streams have been seen", q.link.buried.seen.Load)
			c := consumeTest(t, q, "removed")
			got := make(chan error, 1)
			go func() {
				jobs, err := c.Receive(ctxOf(t), 1)
				if err == nil {
					err = jobs[0].Bury(ctxOf(t), nil)
				}
				got <- err
			}()
			for range 3 { // while it pulls, and while it knocks
				time.Sleep(pullExpires)
				if err := js.DeleteStream(ctxOf(t), name); err != nil {
					t.Fatal(err)
				}
				if name == buriedStream {
					break // nothing asks for it until a job is buried
				}
				within(t, "it is there again", func() bool {
					ctx, end := context.WithTimeout(ctxOf(t), time.Second) // amid changes a server may not answer
					defer end()
					_, err := js.Stream(ctx, name)
					return err == nil
				})
			}
			within(t, "a put is accepted", func() bool {
				_, err := q.Put(ctxOf(t), "removed", []byte("x"), queue.PutOptions{})
				return err == nil
			})
			if err := <-got; err != nil {
				t.Fatal(err)
			}
			if text := lines.String(); !strings.Contains(text, "a stream was missing") || !strings.Contains(text, name) {
				t.Errorf("the log does not say that the stream was made:\n%s", text)
			}
		})
	}
}

// within is eventually with an end that counts.
func within(t *testing.T, what string, cond func() bool) {
	t.Helper()
	began := time.Now()
	eventually(t, what, cond)
	if took := time.Since(began); took > soon {
		t.Errorf("%s, after %v only", what, took)
	}
}

// A tube's consumer is removed again and again while there is work.
func TestConsumerIsRemovedUnderLoad(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	js := rawClient(t, o)
	log, lines := newLog()
	o.Log = log
	q := openReady(t, o)
	ctx, stop := context.WithCancel(ctxOf(t))
	l := newLedger()
	var all sync.WaitGroup
	all.Go(func() { daemon(ctx, t, q, "load", l) })
	for p := range 4 {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_, _ = q.Put(ctx, "load", fmt.Append(nil, p, ".", i), queue.PutOptions{})
			}
		})
	}
	defer all.Wait()
	defer stop()
	for range 5 {
		before := l.count()
		within(t, "work goes on", func() bool { return l.count() > before+20 })
		if err := js.DeleteConsumer(ctx, jobsStream, durable("load")); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			t.Fatal(err)
		}
	}
	before := l.count()
	within(t, "work goes on", func() bool { return l.count() > before+20 })
	if !strings.Contains(lines.String(), "consumer was missing") {
		t.Errorf("the log does not say that the consumer was made:\n%s", lines)
	}
}

// A server that is started again still has its consumers, and the log does not say otherwise.
func TestRestartRemovesNoConsumer(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 1)
	o := ns.options(t)
	log, lines := newLog()
	o.Log = log
	first := openReady(t, o)
	mustPut(t, first, "kept", "old")
	mustDone(t, mustReceive(t, consumeTest(t, first, "kept"), 1)...)
	again := func() {
		t.Helper()
		ns.down()
		if err := ns.up(); err != nil {
			t.Fatal(err)
		}
	}
	again() // the second queue has not seen the consumer as it was before
	second := openReady(t, o)
	for range 2 {
		for _, q := range []*client{first, second} {
			awaitReady(t, q)
			mustPut(t, q, "kept", "new")
			c := consumeTest(t, q, "kept") // which asks for the server's
			mustDone(t, mustReceive(t, c, 1)...)
			endNow(t, c)
		}
		again()
	}
	if text := lines.String(); strings.Contains(text, "consumer was missing") {
		t.Errorf("a consumer that was there all the time:\n%s", text)
	}
}

// Jobs that are held when their stream is removed are gone with it. What is then
// said of them must not concern those that have their numbers in the new one.
func TestHeldWhenTheStreamIsRemoved(t *testing.T) {
	t.Parallel()
	o := cluster.options(t)
	js := rawClient(t, o)
	q := openReady(t, o)
	c := consumeTest(t, q, "held")
	for i := range 3 {
		mustPut(t, q, "held", fmt.Sprint("old ", i))
	}
	old := mustReceive(t, c, 3)
	if err := js.DeleteStream(ctxOf(t), jobsStream); err != nil {
		t.Fatal(err)
	}
	within(t, "puts are accepted", func() bool {
		_, err := q.Put(ctxOf(t), "held", []byte("new"), queue.PutOptions{})
		return err == nil
	})
	for range 2 {
		mustPut(t, q, "held", "new")
	}
	other := consumeTest(t, openReady(t, o), "held") // it holds them
	held := mustReceive(t, other, 3)
	for _, j := range old {
		_ = j.Done(ctxOf(t))
	}
	st, err := q.TubeStats(ctxOf(t), "held")
	if err != nil || st.Reserved != 3 {
		t.Errorf("%+v, %v; want 3 reserved", st, err)
	}
	mustDone(t, held...)
}
