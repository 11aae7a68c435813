package jetstream

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"propeller/queue"
	"propeller/queue/queuetest"
)

// cluster are three servers that many tests share, each with an account of its
// own.
var cluster *nodes

func TestMain(m *testing.M) {
	if os.Getenv(helperDir) != "" {
		os.Exit(helper())
	}
	if os.Getenv(helperDisk) != "" {
		os.Exit(disk())
	}
	if os.Getenv(helperEnd) != "" {
		os.Exit(endOnFullDisk())
	}
	if os.Getenv(helperBegin) != "" {
		os.Exit(beginOnFullDisk())
	}
	if os.Getenv(helperStill) != "" {
		os.Exit(still())
	}
	if os.Getenv(helperIdle) != "" {
		os.Exit(idle())
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "jetstream-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if cluster, err = startNodes(dir, 3); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// The tests wait more than they work.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	cluster.close()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

func TestConformanceEmbedded(t *testing.T) {
	t.Parallel()
	e := traits
	e.New = newEmbedded
	queuetest.Run(t, e)
}

func newEmbedded(t *testing.T) queuetest.Instance {
	const ackWait = 6 * time.Second
	o := Options{URL: embeddedIn(t.TempDir(), "listen", "127.0.0.1:0"), AckWait: ackWait}
	q, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Attach = true // another daemon could not have the folder
	return queuetest.Instance{Queue: q, Lease: ackWait, Other: func(t *testing.T) queue.Queue { return openOther(t, o) }}
}

// A cluster of three, each job on all of them.
func TestConformanceCluster(t *testing.T) {
	t.Parallel()
	e := traits
	e.New = func(t *testing.T) queuetest.Instance { return newInstance(t, cluster) }
	queuetest.Run(t, e)
}

// A server that goes away and comes back.
func TestConformanceServer(t *testing.T) {
	t.Parallel()
	e := traits
	e.New = func(t *testing.T) queuetest.Instance {
		ns := nodesTest(t, 1)
		in := newInstance(t, ns)
		in.Down = func(*testing.T) { ns.down() }
		in.Up = func(t *testing.T) {
			if err := ns.up(); err != nil {
				t.Fatal(err)
			}
		}
		return in
	}
	queuetest.Run(t, e)
}

// traits are the differences from other engines; docs/queues.md lists them.
var traits = queuetest.Engine{
	MaxBody: 1<<20 - headerRoom, // NATS's default max_payload
}

// openOther opens another queue, which the suite closes.
func openOther(t *testing.T, o Options) queue.Queue {
	t.Helper()
	q, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func newInstance(t *testing.T, ns *nodes) queuetest.Instance {
	o := ns.options(t)
	o.AckWait = 8 * time.Second
	q := openTest(t, o)
	awaitReady(t, q)
	return queuetest.Instance{Queue: q, Lease: o.AckWait, PauseTube: pauseTube(q), Other: func(t *testing.T) queue.Queue { return openOther(t, o) }}
}

func pauseTube(q *client) func(*testing.T, string, time.Duration) {
	return func(t *testing.T, tube string, d time.Duration) {
		t.Helper()
		cn, err := q.link.get(t.Context(), untilTried)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cn.js.PauseConsumer(t.Context(), jobsStream, durable(tube), time.Now().Add(d)); err != nil {
			t.Fatal(err)
		}
		// A cluster answers before the consumer's leader has heard of it (nats-server:
		// jetstream_api.go, jsConsumerPauseRequest).
		eventually(t, "the consumer is as asked", func() bool {
			c, err := cn.js.Consumer(t.Context(), jobsStream, durable(tube))
			return err == nil && c.CachedInfo().Paused == (d > 0)
		})
	}
}
