package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The cluster's servers are processes of this test binary, as they are of the program
// elsewhere.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == natsCommand {
		if err := natsMain(os.Args[2:]); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func newTestCluster(t *testing.T) *cluster {
	t.Helper()
	at := &site{dir: t.TempDir()}
	var err error
	if at.history, err = os.Create(at.path("history.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.history.Close() })
	c, err := newCluster(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// patience is long enough for a busy machine.
const patience = 60 * time.Second

// eventually waits until so returns true.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// A server that is cut off from its peers loses a stream's leadership to them, cannot take it
// back, and follows again once the wires are whole.
func TestServersCanBeCutOff(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]wireState{"cut": cut, "held": held} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTestCluster(t)
			conn, err := c.connect()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.close()
			if _, err := conn.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: jobsStream, Subjects: []string{"a"}, Replicas: clusterSize}); err != nil {
				t.Fatal(err)
			}
			// leader asks all servers, some of which may be out of date.
			leader := func(but int) int {
				for i, n := range c.nodes {
					if i == but {
						continue
					}
					if k := leaderOf(t.Context(), n.addr); k >= 0 && k != but {
						return k
					}
				}
				return -1
			}
			first := -1
			eventually(t, "a leader", func() bool { first = leader(-1); return first >= 0 })
			c.setWires(how, first)
			eventually(t, "another leader", func() bool { return leader(first) >= 0 })
			c.setWires(whole, first)
			eventually(t, "the first one knows its successor", func() bool {
				k := leaderOf(t.Context(), c.nodes[first].addr)
				return k >= 0 && k == leader(-1)
			})
		})
	}
}

// leaderOf returns what one server says about the stream's leader; -1 if it cannot tell.
func leaderOf(ctx context.Context, addr string) int {
	c, err := dialNATS(addr)
	if err != nil {
		return -1
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := c.js.Stream(ctx, jobsStream)
	if err != nil || s.CachedInfo().Cluster == nil {
		return -1
	}
	return slices.Index([]string{"n0", "n1", "n2"}, s.CachedInfo().Cluster.Leader)
}

// A removal notes what was in the stream, and a removed stream is empty.
func TestARemovalKnowsWhatItTook(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t)
	conn, err := c.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	if _, err := conn.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: jobsStream, Subjects: []string{"propeller.>"}, Replicas: clusterSize}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"one", "two"} {
		if _, err := conn.put("t", []byte(body), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.removeStream(jobsStream)(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	all := c.removed()
	if len(all) != 1 || !slices.Equal(all[0].bodies, []string{"one", "two"}) || all[0].to.Before(all[0].from) {
		t.Errorf("removed: %+v", all)
	}
	if _, err := conn.js.Stream(t.Context(), jobsStream); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the stream: %v", err)
	}
	if rest, err := takeRest(c, "t"); err != nil || len(rest) != 0 {
		t.Errorf("rest of a stream that is gone: %v, %v", rest, err)
	}
}
