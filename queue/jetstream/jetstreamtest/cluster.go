// Package jetstreamtest starts real NATS clusters for tests, each server in a
// process of its own, so that it can be killed as real ones are.
//
//	func TestMain(m *testing.M) {
//		if jetstreamtest.Main() {
//			return
//		}
//		os.Exit(m.Run())
//	}
//
//	c := jetstreamtest.Start(t, 3)
//	u, err := queueurl.Parse(c.URL(), queueurl.Files{})
//	c.Kill(c.Leader("PROPELLER_JOBS")) // kill -9
//
// The servers are this test binary, executed again. They end with their test,
// and with the test process, however that ends.
package jetstreamtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"propeller/internal/heldport"
)

const (
	startTimeout = 60 * time.Second // generous, the machine may be busy
)

// Cluster is some servers on loopback ports of their own. Its methods fail the
// test when they fail; call them from the test's goroutine only.
type Cluster struct {
	t       testing.TB
	servers []*node
	ports   []*heldport.Port
}

// node is one server of a cluster.
type node struct {
	name string // n0, n1, …
	file string // its configuration
	addr string
	cmd  *exec.Cmd // nil when it does not run
}

// Start starts a cluster of n servers, 1 to 5, and waits until it can keep
// streams.
func Start(t testing.TB, n int) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	dir := t.TempDir() // before close, so that it is removed after it
	t.Cleanup(c.close)
	if err := c.start(dir, n); err != nil {
		t.Fatalf("jetstreamtest: %v", err)
	}
	return c
}

func (c *Cluster) start(dir string, n int) error {
	ports, err := c.takePorts(2 * n)
	if err != nil {
		return err
	}
	for i := range n {
		s := &node{
			name: fmt.Sprint("n", i), file: filepath.Join(dir, fmt.Sprintf("n%d.conf", i)),
			addr: fmt.Sprint("127.0.0.1:", ports[i]),
		}
		if err := os.WriteFile(s.file, []byte(serverConfig(dir, i, n, ports)), 0o600); err != nil {
			return err
		}
		c.servers = append(c.servers, s)
	}
	for _, s := range c.servers {
		if err := s.start(); err != nil {
			return err
		}
	}
	return c.ready()
}

// takePorts takes ports for servers that go away and come back.
func (c *Cluster) takePorts(n int) (numbers []int, err error) {
	for range n {
		p, err := heldport.New()
		if err != nil {
			return nil, err
		}
		c.ports = append(c.ports, p)
		numbers = append(numbers, p.Number())
	}
	return numbers, nil
}

// serverConfig is the configuration of server i of n: the first n ports are for
// clients, the others for the cluster.
func serverConfig(dir string, i, n int, ports []int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: n%d\nlisten: 127.0.0.1:%d\n", i, ports[i])
	fmt.Fprintf(&b, "jetstream { store_dir: %q, max_file: 4GB, max_mem: 64MB }\n", filepath.Join(dir, fmt.Sprint("n", i)))
	if n > 1 {
		fmt.Fprintf(&b, "cluster { name: c, listen: 127.0.0.1:%d, routes: [", ports[n+i])
		for _, p := range ports[n:] {
			fmt.Fprintf(&b, "nats://127.0.0.1:%d, ", p)
		}
		fmt.Fprint(&b, "] }\n")
	}
	return b.String()
}

// start starts the server's process.
func (s *node) start() error {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverVariable+"="+s.file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if _, err := cmd.StdinPipe(); err != nil { // see Main
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	said := make([]byte, len(readyWord))
	if _, err := out.Read(said); err != nil || string(said) != readyWord {
		s.kill()
		return fmt.Errorf("server %s: does not start; does TestMain call jetstreamtest.Main?", s.name)
	}
	return nil
}

func (s *node) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (c *Cluster) close() {
	for _, s := range c.servers {
		s.kill()
	}
	for _, p := range c.ports {
		p.Close()
	}
	c.ports = nil
}

// ready waits until a stream can be kept on all servers.
func (c *Cluster) ready() error {
	return c.ask(func(ctx context.Context, js jetstream.JetStream) error {
		const name = "JETSTREAMTEST"
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Replicas: len(c.servers)})
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err
		}
		return js.DeleteStream(ctx, name)
	})
}

// ask asks the cluster, until it answers.
func (c *Cluster) ask(f func(context.Context, jetstream.JetStream) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	nc, err := nats.Connect("nats://"+c.addrs(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for {
		once, end := context.WithTimeout(ctx, 2*time.Second)
		err := f(once, js)
		end()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func (c *Cluster) addrs() string {
	var addrs []string
	for _, s := range c.servers {
		addrs = append(addrs, s.addr)
	}
	return strings.Join(addrs, ",")
}

// URL is the cluster as propeller.yaml writes it: jobs are kept on all of its
// servers.
func (c *Cluster) URL() string {
	return fmt.Sprintf("nats://%s?replicas=%d", c.addrs(), len(c.servers))
}

// PIDs are the process ids of the servers that run.
func (c *Cluster) PIDs() (all []int) {
	for _, s := range c.servers {
		if s.cmd != nil {
			all = append(all, s.cmd.Process.Pid)
		}
	}
	return all
}

// Leader is the number of the server that leads a stream.
func (c *Cluster) Leader(stream string) int {
	c.t.Helper()
	leader := -1
	err := c.ask(func(ctx context.Context, js jetstream.JetStream) error {
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx)
		if err != nil {
			return err
		}
		for i, s := range c.servers {
			if info.Cluster != nil && info.Cluster.Leader == s.name {
				leader = i
				return nil
			}
		}
		return errors.New("no leader")
	})
	if err != nil {
		c.t.Fatalf("jetstreamtest: the leader of %s: %v", stream, err)
	}
	return leader
}

// Kill ends server i with kill -9 and waits for it.
func (c *Cluster) Kill(i int) { c.servers[i].kill() }

// Restart starts server i again, with its port and its files. It does not wait
// until it has caught up.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	s := c.servers[i]
	s.kill()
	if err := s.start(); err != nil {
		c.t.Fatalf("jetstreamtest: %v", err)
	}
}
