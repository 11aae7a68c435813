package httpapi

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/time/rate"
)

// Bounds of an unauthenticated connection of HTTP/2.
const (
	// maxAside bounds what comes for later streams while one is under way, in bytes.
	maxAside = 16 << 10
	// frameRate and frameBurst bound the frames a second: the answers to
	// them wait in memory for a client that does not read. WINDOW_UPDATE, which has no answer,
	// counts as a tenth.
	frameRate  = 100
	frameBurst = 200
)

// gate is a connection of HTTP/2 that has one stream at a time, and of that no body
// but what is asked for, until a key is shown. What comes too early is not refused:
// it waits here, or with the peer. The limits of the server behind it cannot change
// while a connection lasts.
type gate struct {
	*tls.Conn
	of     *openConn
	frames *rate.Limiter

	// For the reader; there is one at a time.
	preface int    // bytes of it to come
	head    []byte // of the frame that comes next, as much as has come
	next    []byte // bytes to be read before those of the connection
	left    int    // bytes of the frame at hand that the connection still has
	aside   []byte // whole frames of later streams
	open    bool   // a key has been shown, and all that waited is read

	mu            sync.Mutex
	moved         sync.Cond // what follows has changed
	authenticated bool      // a key has been shown
	stream        uint32    // the last that was let in
	busy          bool      // it is not answered yet
	body          int       // bytes of its body that may still come
	ended         bool
	// reads: the reader waits for the peer, though a frame aside may pass once
	// something changes; woken: that has happened.
	reads, woken bool
}

// serveGate answers HTTP/2 on a connection until it ends.
//
//lint:ignore SA1019 net/http has no other way to have something stand before a connection of HTTP/2
func serveGate(server *http2.Server, base *http.Server, conn *tls.Conn, h http.Handler) {
	ctx := context.Background()
	if of, ok := h.(interface{ BaseContext() context.Context }); ok { // what net/http has for x/net/http2
		ctx = of.BaseContext()
	}
	g := &gate{Conn: conn, of: connOf(ctx), frames: rate.NewLimiter(10*frameRate, 10*frameBurst), preface: len(http2.ClientPreface)}
	if g.of == nil { // it was cut as soon as it came
		conn.Close()
		return
	}
	g.moved.L = &g.mu
	g.of.gate.Store(g)
	//lint:ignore SA1019 net/http has no other way to have something stand before a connection of HTTP/2
	server.ServeConn(g, &http2.ServeConnOpts{Context: ctx, BaseConfig: base, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer g.answered()
		h.ServeHTTP(w, r)
		if !g.of.authenticated.Load() { // else the answer's last bytes would wait for the window beside the next stream
			_ = http.NewResponseController(w).Flush()
		}
	})})
}

// askBody lets n bytes of the body of an unauthenticated request come.
func askBody(r *http.Request, n int) {
	if h := connOf(r.Context()); h != nil {
		if g := h.gate.Load(); g != nil {
			g.change(func() { g.body = n })
		}
	}
}

func (g *gate) answered() { g.change(func() { g.busy = false }) }
func (g *gate) end()      { g.change(func() { g.ended = true }) }

func (g *gate) change(how func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	how()
	g.moved.Broadcast()
	if g.reads {
		g.woken = true
		_ = g.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Close also ends a Read that waits.
func (g *gate) Close() error {
	g.end()
	return g.Conn.Close()
}

func (g *gate) Read(p []byte) (n int, err error) {
	if !g.open && g.preface == 0 && len(g.next) == 0 && g.left == 0 {
		if err := g.pick(); err != nil {
			return 0, err
		}
	}
	switch {
	case g.open:
		return g.Conn.Read(p)
	case g.preface > 0:
		n, err = g.Conn.Read(p[:min(len(p), g.preface)])
		g.preface -= n
	case len(g.next) > 0:
		n = copy(p, g.next)
		g.next = g.next[n:]
	default:
		n, err = g.Conn.Read(p[:min(len(p), g.left)])
		g.left -= n
	}
	return n, err
}

// frameHead is the length of a frame's head (RFC 9113, section 4.1).
const frameHead = 9

func lengthOf(head []byte) int { return int(head[0])<<16 | int(head[1])<<8 | int(head[2]) }

// pick finds the frame that is read next, and waits until there is one.
func (g *gate) pick() error {
	for {
		switch done, err := g.tryPick(); {
		case err != nil:
			return err
		case done:
			return nil
		}
		if err := g.fetch(); err != nil {
			return err
		}
	}
}

// tryPick finds the frame that is read next among those that have come. If there is
// none it returns when more may come.
func (g *gate) tryPick() (done bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.ended {
		if g.pickAside() {
			return true, nil
		}
		if len(g.head) < frameHead {
			g.open = len(g.head) == 0 && len(g.aside) == 0 && g.authenticated
			g.reads = len(g.aside) > 0
			return g.open, nil
		}
		switch g.actionFor(g.head) {
		case pass:
			g.next, g.left, g.head = g.head, lengthOf(g.head), nil
			return true, nil
		case putAside:
			if len(g.aside)+frameHead+lengthOf(g.head) <= maxAside {
				return false, nil
			}
		}
		g.moved.Wait()
	}
	return false, net.ErrClosed
}

// fetch reads the head of a frame; if it is there already, the frame is put aside.
func (g *gate) fetch() error {
	if len(g.head) == frameHead {
		if g.aside == nil {
			g.aside = make([]byte, 0, maxAside)
		}
		at := len(g.aside) + frameHead
		g.aside = append(g.aside, g.head...)[:at+lengthOf(g.head)]
		g.head = nil
		_, err := io.ReadFull(g.Conn, g.aside[at:])
		return err
	}
	if g.head == nil {
		g.head = make([]byte, 0, frameHead)
	}
	n, err := g.Conn.Read(g.head[len(g.head):frameHead])
	if g.head = g.head[:len(g.head)+n]; len(g.head) == frameHead && !g.of.authenticated.Load() {
		cost := 10
		if http2.FrameType(g.head[3]) == http2.FrameWindowUpdate {
			cost = 1
		}
		time.Sleep(g.frames.ReserveN(time.Now(), cost).Delay())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.woken {
		_ = g.Conn.SetReadDeadline(time.Time{}) // nobody else has set one
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	g.reads, g.woken = false, false
	return err
}

// pickAside has the first frame aside be read next that may be. The frames of one
// stream, and all heads, stay in their order.
func (g *gate) pickAside() bool {
	for at := 0; at < len(g.aside); {
		end := at + frameHead + lengthOf(g.aside[at:])
		switch g.actionFor(g.aside[at:]) {
		case pass:
			g.next = slices.Clone(g.aside[at:end])
			if g.aside = slices.Delete(g.aside, at, end); len(g.aside) == 0 {
				g.aside = nil
			}
			return true
		case stays: // those behind it are of later streams, or wait as it does
			return false
		}
		at = end
	}
	return false
}

// frameAction is what is done with a frame of an unauthenticated connection.
type frameAction int

const (
	pass     frameAction = iota
	putAside             // until the stream under way is answered
	stays                // and all that comes after it: until its body is asked for
)

// actionFor says what is done with a frame, which goes on if it passes.
func (g *gate) actionFor(head []byte) frameAction {
	kind, id := http2.FrameType(head[3]), binary.BigEndian.Uint32(head[5:])&(1<<31-1)
	switch {
	case g.authenticated, id == 0:
	case g.busy && id > g.stream:
		return putAside
	case g.busy && id == g.stream && kind == http2.FrameHeaders && len(g.aside) > 0: // a trailer, after other heads
		return stays
	case g.busy && id == g.stream && kind == http2.FrameData:
		if g.body <= 0 {
			return stays
		}
		g.body -= max(1, lengthOf(head))
	case !g.busy && id > g.stream && kind == http2.FrameHeaders:
		g.stream, g.busy, g.body = id, true, 0
		g.of.begun()
	}
	return pass
}
