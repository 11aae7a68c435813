package jetstream

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"propeller/internal/heldport"
)

// accounts is how many tests can share a cluster, each with streams of its own.
const accounts = 96

// node is a NATS server inside the test, reached over TCP.
type node struct {
	file   string // its configuration
	addr   string
	mu     sync.Mutex
	server *server.Server
}

// nodes is a cluster, or a single server.
type nodes struct {
	all   []*node
	ports []*heldport.Port
	next  atomic.Int32 // account
}

// takePort takes a port for a server that goes away and comes back.
func (ns *nodes) takePort() (int, error) {
	p, err := heldport.New()
	if err != nil {
		return 0, err
	}
	ns.ports = append(ns.ports, p)
	return p.Number(), nil
}

// close ends the servers for good.
func (ns *nodes) close() {
	ns.down()
	for _, p := range ns.ports {
		p.Close()
	}
}

// nodesTest are servers of a test's own.
func nodesTest(t *testing.T, n int) *nodes {
	t.Helper()
	ns, err := startNodes(t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.close)
	return ns
}

// startNodes starts n servers in folders below dir.
func startNodes(dir string, n int) (*nodes, error) {
	ns := &nodes{}
	if err := ns.start(dir, n); err != nil {
		ns.close()
		return nil, err
	}
	return ns, nil
}

func (ns *nodes) start(dir string, n int) error {
	var client, route []int
	for range n {
		c, err := ns.takePort()
		if err != nil {
			return err
		}
		r, err := ns.takePort()
		if err != nil {
			return err
		}
		client, route = append(client, c), append(route, r)
	}
	for i := range n {
		nd := &node{
			file: filepath.Join(dir, fmt.Sprintf("n%d.conf", i)),
			addr: fmt.Sprintf("127.0.0.1:%d", client[i]),
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		text := serverConfig(dir, i, client[i], route, n > 1)
		if err := os.WriteFile(nd.file, []byte(text), 0o600); err != nil {
			return err
		}
		ns.all = append(ns.all, nd)
	}
	return ns.up()
}

func serverConfig(dir string, i, port int, routes []int, clustered bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: n%d\nlisten: 127.0.0.1:%d\n", i, port)
	fmt.Fprintf(&b, "jetstream { store_dir: %q, max_file: 4GB, max_mem: 64MB, limits: { default_max_consumers: 10 } }\n", filepath.Join(dir, fmt.Sprint("n", i)))
	fmt.Fprintf(&b, "server_tags: [from%d, from%d, from%d]\n", i, i-1, i-2) // three servers have a tag
	if clustered {
		fmt.Fprintf(&b, "cluster { name: c, listen: 127.0.0.1:%d, pool_size: -1, routes: [", routes[i])
		for _, r := range routes {
			fmt.Fprintf(&b, "%q, ", fmt.Sprintf("nats://127.0.0.1:%d", r))
		}
		fmt.Fprint(&b, "] }\n")
	}
	fmt.Fprint(&b, "accounts {\n  SYS { users: [ {user: sys, password: sys} ] }\n")
	for a := range accounts {
		fmt.Fprintf(&b, "  A%d { jetstream: enabled, users: [ {user: user%d, password: pass%d} ] }\n", a, a, a)
	}
	fmt.Fprint(&b, "  SMALL { jetstream: {max_file: 3MB}, users: [ {user: small, password: small} ] }\n")
	fmt.Fprint(&b, "  FEW { jetstream: {max_consumers: 1}, users: [ {user: few, password: few} ] }\n")
	fmt.Fprint(&b, "  ONE { jetstream: {max_streams: 1}, users: [ {user: one, password: one} ] }\n")
	fmt.Fprint(&b, "  NONE { users: [ {user: none, password: none} ] }\n")
	fmt.Fprint(&b, "}\nsystem_account: SYS\n")
	return b.String()
}

// up starts the servers that are down and waits until the cluster has a leader
// that knows them all.
func (ns *nodes) up() error {
	for _, nd := range ns.all {
		if err := nd.up(); err != nil {
			return err
		}
	}
	for end := time.Now().Add(patience); len(ns.all) > 1; time.Sleep(5 * time.Millisecond) {
		for _, nd := range ns.all {
			if nd.server.JetStreamIsLeader() && len(nd.server.JetStreamClusterPeers()) == len(ns.all) {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("the cluster has no leader")
		}
	}
	return nil
}

func (nd *node) up() error {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if nd.server != nil {
		return nil
	}
	o, err := server.ProcessConfigFile(nd.file)
	if err != nil {
		return err
	}
	o.NoSigs, o.NoLog, o.DisableJetStreamBanner = true, true, true
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	nd.server = s
	log := newServerLog(slog.New(slog.DiscardHandler), func(string) {}, nil)
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	if !s.ReadyForConnections(20*time.Second) || !s.JetStreamEnabled() {
		return fmt.Errorf("server does not start: %s", log.last())
	}
	return nil
}

func (nd *node) down() {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if nd.server != nil {
		nd.server.Shutdown()
		nd.server.WaitForShutdown()
		nd.server = nil
	}
}

// down ends all servers.
func (ns *nodes) down() {
	var wg sync.WaitGroup
	for _, nd := range ns.all {
		wg.Go(nd.down)
	}
	wg.Wait()
}

// options are those of a client with an account that nobody else has.
func (ns *nodes) options(t *testing.T) Options {
	t.Helper()
	a := ns.next.Add(1) - 1
	if a >= accounts {
		t.Fatal("no account left")
	}
	var addrs []string
	for _, nd := range ns.all {
		addrs = append(addrs, nd.addr)
	}
	o := Options{URL: serversAt(addrs...)}
	o.User, o.Password = fmt.Sprint("user", a), fmt.Sprint("pass", a)
	return o.with("replicas", fmt.Sprint(min(len(ns.all), 3)))
}
