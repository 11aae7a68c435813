package httpapi

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
)

// conns bounds how many connections a server holds, how many of one address, and
// how many of strangers: on which nobody has shown a key. One more takes the
// place of the one that is missed least (rank); if none may go, it is closed
// itself.
type conns struct {
	max    int                   // of strangers a quarter
	each   int                   // of one address
	shared func(netip.Addr) bool // very many clients have this address: each is not for it

	mu        sync.Mutex
	open      map[net.Conn]*held // at most max
	from      map[string]int     // how many of an address, as network has it
	strangers int                // how many are of strangers
	tick      int                // counts changes
}

// held is an open connection.
type held struct {
	of     *conns
	from   string // an address, as network has it; "" for one that is not bounded
	active bool   // a request is under way; false, too, before its head is whole
	since  int    // the tick of the last change
	gone   bool   // cut or closed
	known  atomic.Bool
}

func newConns(max, each int, shared func(netip.Addr) bool) *conns {
	return &conns{max: max, each: each, shared: shared, open: make(map[net.Conn]*held), from: make(map[string]int)}
}

// heldKey is that of the *held in a request's context.
type heldKey struct{}

// known notes that who made a request has shown who they are: their connection is
// kept before those of strangers.
func known(r *http.Request) {
	h, _ := r.Context().Value(heldKey{}).(*held)
	if h == nil || h.known.Load() {
		return
	}
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	if !h.gone && !h.known.Swap(true) {
		h.of.strangers--
	}
}

// begin is for http.Server.ConnContext. It holds the lock of nobody who waits: to
// cut takes no time.
func (c *conns) begin(ctx context.Context, conn net.Conn) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := &held{of: c, from: c.bounded(conn)}
	if !c.room(h.from) {
		cut(conn)
		return ctx
	}
	c.tick++
	h.since = c.tick
	c.open[conn] = h
	c.strangers++
	if h.from != "" {
		c.from[h.from]++
	}
	return context.WithValue(ctx, heldKey{}, h)
}

// changed is for http.Server.ConnState.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.open[conn]
	switch {
	case h == nil: // it has been cut
	case state == http.StateClosed, state == http.StateHijacked:
		c.forget(conn, h)
	default:
		c.tick++
		h.active, h.since = state == http.StateActive, c.tick
	}
}

// bounded is the address of a connection, if it is bounded. Through a socket,
// from this machine and from trusted proxies come the requests of many.
func (c *conns) bounded(conn net.Conn) string {
	peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	addr := peer.Addr().Unmap()
	if addr.IsLoopback() || c.shared != nil && c.shared(addr) {
		return ""
	}
	return network(addr.String())
}

// room says whether there is room for one more connection of a stranger at an
// address, for which another may have to go.
func (c *conns) room(from string) bool {
	switch {
	case from != "" && c.from[from] >= c.each:
		return c.drop(func(h *held) bool { return h.from == from })
	case c.strangers >= c.max/4:
		return c.drop(func(h *held) bool { return !h.known.Load() })
	case len(c.open) >= c.max:
		return c.drop(func(*held) bool { return true })
	}
	return true
}

// drop cuts the connection that is missed least, of those that are meant, and
// says whether there was one. It looks at all of them, 4096 at most, and only when
// there is no place.
func (c *conns) drop(meant func(*held) bool) bool {
	var least net.Conn
	for conn, h := range c.open {
		if meant(h) && h.rank() < mayStay && (least == nil || h.before(c.open[least])) {
			least = conn
		}
	}
	if least == nil {
		return false
	}
	cut(least)
	c.forget(least, c.open[least])
	return true
}

func (c *conns) forget(conn net.Conn, h *held) {
	delete(c.open, conn)
	if h.gone = true; !h.known.Load() {
		c.strangers--
	}
	if h.from == "" {
		return
	}
	if c.from[h.from]--; c.from[h.from] == 0 {
		delete(c.from, h.from)
	}
}

// mayStay is the rank of connections that are not cut for others.
const mayStay = 3

// rank says how much a connection is missed.
func (h *held) rank() int {
	switch known := h.known.Load(); {
	case !known && !h.active: // among them those that send no whole request
		return 0
	case !h.active:
		return 1
	case !known:
		return 2
	}
	return mayStay
}

// before says that h goes before other: of those that are missed alike the one
// that has changed longest ago.
func (h *held) before(other *held) bool {
	if a, b := h.rank(), other.rank(); a != b {
		return a < b
	}
	return h.since < other.since
}

// cut closes a connection at once. With TLS its own Close would wait up to 5 s
// until the peer takes one record more (crypto/tls, Conn.Close).
func cut(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}
