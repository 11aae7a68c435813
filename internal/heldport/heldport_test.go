package heldport

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// A server comes and goes on the port, and while it is away nobody else gets it.
func TestPort(t *testing.T) {
	t.Parallel()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 3 {
		if nc, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				nc.Close()
			}
			t.Fatalf("dial while nobody listens: %v", err)
		}
		l, err := net.Listen("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		nc, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
		l.Close()
	}
}

// The system does not hand out a held port.
func TestPortIsNotHandedOut(t *testing.T) {
	t.Parallel()
	held := make(map[int]bool)
	for range 300 {
		p, err := New()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if held[p.Number()] {
			t.Fatalf("port %d twice", p.Number())
		}
		held[p.Number()] = true
	}
	for range 300 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for _, a := range []net.Addr{l.Addr(), nc.LocalAddr()} {
			if n := a.(*net.TCPAddr).Port; held[n] {
				t.Fatalf("port %d is held and was handed out", n)
			}
		}
	}
}
