package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// natsCommand is the first argument of a NATS server's process; the second is its
// configuration file.
const natsCommand = "nats"

// natsMain is the process of one server. It ends by a signal, which the server
// handles.
func natsMain(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: want one argument, a file", natsCommand)
	}
	o, err := server.ProcessConfigFile(args[0])
	if err != nil {
		return fmt.Errorf("%s: %w", natsCommand, err)
	}
	s, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("%s: %w", natsCommand, err)
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	return nil
}

// deadEnd is the address that a server advertises to others. Nobody listens there, so they
// connect only through their own wires.
const deadEnd = "127.0.0.1:1"

// natsConfig returns the configuration of server i. Its routes to the others go through
// wires.
func natsConfig(i int, addr, clusterAddr, store string, routes []string) (string, error) {
	var b strings.Builder
	for _, a := range []string{addr, clusterAddr} {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return "", err
		}
	}
	fmt.Fprintf(&b, "server_name: n%d\nlisten: %q\n", i, addr)
	fmt.Fprintf(&b, "jetstream { store_dir: %q, max_file: 4GB, max_mem: 64MB }\n", store)
	fmt.Fprintf(&b, "cluster {\n  name: chaos\n  listen: %q\n  advertise: %q\n  no_advertise: true\n  pool_size: -1\n  routes: [", clusterAddr, deadEnd)
	for _, r := range routes {
		fmt.Fprintf(&b, "%q, ", "nats://"+r)
	}
	b.WriteString("]\n}\n")
	return b.String(), nil
}
