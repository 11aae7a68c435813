package jetstream

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// The stream of buried jobs loses its leader for longer than an election takes,
// and the one of jobs does not: jobs are put and served, by who is there and by
// who comes, and those to be buried wait.
func TestBuriedStreamHasNoLeader(t *testing.T) {
	t.Parallel()
	ns := nodesTest(t, 5)
	log, lines := newLog()
	o := ns.options(t)
	o.Log, o.Servers = log, o.Servers[:3] // who is connected to another one has to go elsewhere first
	js := rawClient(t, o)
	for tag, config := range map[string]jetstream.StreamConfig{"from0": jobsConfig(3), "from2": buriedConfig(3)} {
		config.Placement = &jetstream.Placement{Tags: []string{tag}}
		eventually(t, "the stream is made", func() bool {
			_, err := js.CreateStream(ctxOf(t), config)
			return err == nil
		})
	}
	q := openReady(t, o)
	c := consumeTest(t, q, "tube")
	mustPut(t, q, "tube", "to be buried")
	bad := mustReceive(t, c, 1)[0]

	for _, nd := range ns.all[3:] {
		nd.down()
	}
	buried := make(chan error, 1)
	go func() {
		ctx, err := ctxOf(t), queue.ErrUnavailable
		for errors.Is(err, queue.ErrUnavailable) { // a leader without the others says nothing, which counts as refused
			err = bad.Bury(ctx, nil)
		}
		buried <- err
	}()
	began := time.Now()
	late := openTest(t, o)
	serveWhile(t, late, c, func() bool { return time.Since(began) < 5*time.Second })
	const wait, again = "cannot bury jobs", "jobs can be buried again"
	serveWhile(t, q, c, func() bool { return time.Since(began) < patience && !strings.Contains(lines.String(), wait) })
	select {
	case err := <-buried:
		t.Errorf("buried without a leader: %v", err)
	default:
	}
	if !strings.Contains(lines.String(), wait) {
		t.Error("nothing says that burials wait")
	}
	if strings.Contains(lines.String(), "queue unavailable") {
		t.Errorf("not only burials had to wait:\n%s", lines)
	}
	if err := ns.up(); err != nil {
		t.Fatal(err)
	}
	t.Logf("all servers are there after %v", time.Since(began))
	if err := <-buried; err != nil {
		t.Error(err)
	}
	t.Logf("buried after %v", time.Since(began))
	eventually(t, "the log says that it is over", func() bool {
		return strings.Count(lines.String(), again) == strings.Count(lines.String(), wait)
	})
}

// serveWhile puts and finishes jobs; none may be refused.
func serveWhile(t *testing.T, q queue.Queue, c queue.Consumer, more func() bool) {
	t.Helper()
	for more() {
		mustPut(t, q, "tube", "x")
		mustDone(t, mustReceive(t, c, 1)...)
		time.Sleep(20 * time.Millisecond)
	}
}

// Daemons that start together make the same streams, and some of them are told
// of a stream before it has a leader. None of them refuses a job for that.
func TestStartedTogether(t *testing.T) {
	t.Parallel()
	for range 8 {
		o := cluster.options(t)
		o.timeout = 20 * time.Second
		var wg sync.WaitGroup
		for range 4 {
			q := openTest(t, o)
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if _, err := q.Put(ctx, "tube", []byte("x"), queue.PutOptions{}); err != nil {
					t.Errorf("put: %v", err)
				}
			})
		}
		wg.Wait()
	}
}
