// Package heldport keeps loopback ports for servers of tests that go away and come
// back: nobody else is given such a port meanwhile.
package heldport

import (
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// Port is bound, and nobody listens on it: a connection is refused until a server
// listens. A server may if it sets SO_REUSEADDR, as beanstalkd, nats-server and
// everything in Go do. The system gives the port to no other listener that asks for any
// port, and to no outgoing connection.
type Port struct {
	fd   int
	addr string
}

// New takes a port that the system chooses.
func New() (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("heldport: socket: %w", err)
	}
	p := &Port{fd: fd}
	if err := p.bind(); err != nil {
		p.Close()
		return nil, fmt.Errorf("heldport: %w", err)
	}
	return p, nil
}

func (p *Port) bind() error {
	syscall.CloseOnExec(p.fd)
	if err := syscall.SetsockoptInt(p.fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := syscall.Bind(p.fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	name, err := syscall.Getsockname(p.fd)
	if err != nil {
		return err
	}
	p.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	return nil
}

// Addr is host:port.
func (p *Port) Addr() string { return p.addr }

// Number is the port's number.
func (p *Port) Number() int {
	_, port, _ := net.SplitHostPort(p.addr)
	n, _ := strconv.Atoi(port)
	return n
}

// Close gives the port back to the system.
func (p *Port) Close() { _ = syscall.Close(p.fd) }
