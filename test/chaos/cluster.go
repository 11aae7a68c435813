package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// clusterSize is the number of servers; each keeps each job.
const clusterSize = 3

// cluster is an engine: NATS servers in separate processes.
type cluster struct {
	at    *site
	nodes [clusterSize]*node

	mu       sync.Mutex
	removals []removal   // streams removed by the hand
	troubles []time.Time // when each ended
}

// node is one server. wires are its routes to the others.
type node struct {
	name, config      string
	addr, clusterAddr string
	wires             [clusterSize]*wire // by target; nil for itself
	p                 *process
}

func newCluster(at *site) (*cluster, error) {
	c := &cluster{at: at}
	for i := range c.nodes {
		n := &node{name: fmt.Sprint("n", i), config: at.path(fmt.Sprintf("n%d.conf", i))}
		c.nodes[i] = n
		var err error
		if n.addr, err = at.freeAddr(); err != nil {
			return nil, err
		}
		if n.clusterAddr, err = at.freeAddr(); err != nil {
			return nil, err
		}
	}
	for i, n := range c.nodes {
		if err := c.wireUp(i, n); err != nil {
			c.kill()
			return nil, err
		}
	}
	return c, nil
}

// wireUp creates a server's wires and its configuration.
func (c *cluster) wireUp(i int, n *node) error {
	var routes []string
	for j, to := range c.nodes {
		if i == j {
			continue
		}
		w, err := newWire(to.clusterAddr)
		if err != nil {
			return err
		}
		n.wires[j] = w
		routes = append(routes, w.addr())
	}
	text, err := natsConfig(i, n.addr, n.clusterAddr, c.at.path(n.name), routes)
	if err != nil {
		return err
	}
	return os.WriteFile(n.config, []byte(text), 0o600)
}

func (c *cluster) addrs() (all []string) {
	for _, n := range c.nodes {
		all = append(all, n.addr)
	}
	return all
}

func (c *cluster) url() string {
	return fmt.Sprintf("nats://%s?replicas=%d", strings.Join(c.addrs(), ","), clusterSize)
}

// late: see docs/queues.md, after 120 s.
func (c *cluster) late() bool { return true }

func (c *cluster) upset() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.troubles
}

func (c *cluster) removed() []removal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.removals
}

func (c *cluster) orphan() {}

// start starts the servers and waits until they can store a stream together.
func (c *cluster) start(ctx context.Context) error {
	for _, n := range c.nodes {
		if err := c.launch(n); err != nil {
			return err
		}
	}
	var err error
	for end := time.Now().Add(startTimeout); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 50*time.Millisecond) {
		if err = c.ready(); err == nil {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("the NATS cluster does not start: %w", err), ctx.Err())
}

// ready creates a stream on all servers.
func (c *cluster) ready() error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer conn.close()
	ctx, cancel := within(askTimeout)
	defer cancel()
	const name = "CHAOS"
	_, err = conn.js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Replicas: clusterSize})
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return err
	}
	return conn.js.DeleteStream(ctx, name)
}

// launch starts a server's process without waiting for the server.
func (c *cluster) launch(n *node) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if n.p, err = start(n.name, exec.Command(self, natsCommand, n.config), c.at.path(n.name+".log")); err != nil {
		return err
	}
	c.at.note("nats %s started, pid %d", n.name, n.p.pid())
	return nil
}

// revive starts a server until it accepts connections. For a moment the port may still be
// held by connections of the previous process.
func (c *cluster) revive(ctx context.Context, n *node) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 50*time.Millisecond) {
		if n.p.ended() {
			if err := c.launch(n); err != nil {
				return err
			}
		}
		if nc, err := nats.Connect("nats://"+n.addr, nats.Timeout(time.Second), nats.NoReconnect()); err == nil {
			nc.Close()
			return nil
		}
	}
	return errors.Join(fmt.Errorf("nats %s does not start again; see %s.log", n.name, n.name), ctx.Err())
}

func (c *cluster) kill() {
	for _, n := range c.nodes {
		if n.p != nil {
			n.p.kill()
		}
		for _, w := range n.wires {
			if w != nil {
				w.close()
			}
		}
	}
}

func (c *cluster) dial() (client, error) { return c.connect() }

func (c *cluster) connect() (*natsClient, error) {
	return dialNATS(strings.Join(c.addrs(), ","))
}

func dialNATS(addrs string) (*natsClient, error) {
	nc, err := nats.Connect("nats://"+addrs, nats.Timeout(time.Second), nats.NoReconnect(), nats.PingInterval(time.Second))
	if err != nil {
		return nil, err
	}
	return newNATS(nc, nil)
}

// setWires sets the state of all wires from and to some servers.
func (c *cluster) setWires(s wireState, cutOff ...int) {
	for i, n := range c.nodes {
		for j, w := range n.wires {
			for _, k := range cutOff {
				if w != nil && (i == k || j == k) {
					w.set(s)
				}
			}
		}
	}
}

// some picks a server: half the time the leader of the stream of jobs, if it is known.
func (c *cluster) some(rng *rand.Rand) int {
	i, leader := rng.IntN(clusterSize), rng.IntN(2) == 0
	if !leader {
		return i
	}
	conn, err := c.connect()
	if err != nil {
		return i
	}
	defer conn.close()
	ctx, cancel := within(askTimeout)
	defer cancel()
	s, err := conn.js.Stream(ctx, jobsStream)
	if err != nil {
		return i
	}
	for k, n := range c.nodes {
		if of := s.CachedInfo().Cluster; of != nil && of.Leader == n.name {
			return k
		}
	}
	return i
}
