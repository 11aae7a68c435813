package main

import (
	"net"
	"sync"
	"time"
)

// wire is the route from one server to another: a proxy that can be cut or held. Cut, it
// closes its connections and accepts no others. Held, its connections stay but nothing
// passes.
type wire struct {
	target string
	l      net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	state wireState
	eased *sync.Cond // when the state is no longer held
	conns map[net.Conn]bool
}

type wireState int

const (
	whole wireState = iota
	cut
	held
	gone // for good
)

func newWire(target string) (*wire, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{target: target, l: l, conns: make(map[net.Conn]bool)}
	w.eased = sync.NewCond(&w.mu)
	w.wg.Go(w.accept)
	return w, nil
}

func (w *wire) addr() string { return w.l.Addr().String() }

func (w *wire) accept() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			return // closed
		}
		w.wg.Go(func() { w.join(c) })
	}
}

// join carries a connection until one side ends it.
func (w *wire) join(c net.Conn) {
	defer c.Close()
	if !w.add(c) {
		return
	}
	defer w.drop(c)
	far, err := net.DialTimeout("tcp", w.target, time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	if !w.add(far) {
		return
	}
	defer w.drop(far)
	var back sync.WaitGroup
	back.Go(func() { w.pump(c, far) })
	w.pump(far, c)
	back.Wait()
}

// pump copies until a side ends, and ends both then.
func (w *wire) pump(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		w.pass()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits while the wire is held.
func (w *wire) pass() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.state == held {
		w.eased.Wait()
	}
}

// add registers a connection; false if the wire accepts none.
func (w *wire) add(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == cut || w.state == gone {
		return false
	}
	w.conns[c] = true
	return true
}

func (w *wire) drop(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// set changes the state.
func (w *wire) set(s wireState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	if s != held {
		w.eased.Broadcast()
	}
	if s == cut || s == gone {
		for c := range w.conns {
			c.Close()
		}
	}
}

// close ends the wire for good.
func (w *wire) close() {
	w.set(gone)
	w.l.Close()
	w.wg.Wait()
}
