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

// conns bounds how many connections a server holds, and how many of one address.
// One more takes the place of the one that is missed least (rank); if none may
// go, it is closed itself.
type conns struct {
	max    int
	each   int                   // of one address
	shared func(netip.Addr) bool // very many clients have this address: each is not for it

	mu   sync.Mutex
	open map[net.Conn]*held // at most max
	from map[string]int     // how many of an address, as network has it
	tick int                // counts changes
}

// held is an open connection.
type held struct {
	from   string // an address, as network has it; "" for one that is not bounded
	active bool   // a request is under way; false, too, before its head is whole
	since  int    // the tick of the last change
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
	if h, _ := r.Context().Value(heldKey{}).(*held); h != nil {
		h.known.Store(true)
	}
}

// begin is for http.Server.ConnContext. It holds the lock of nobody who waits: to
// cut takes no time.
func (c *conns) begin(ctx context.Context, conn net.Conn) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := &held{from: c.bounded(conn)}
	switch {
	case h.from != "" && c.from[h.from] >= c.each:
		if !c.drop(h.from) {
			cut(conn)
			return ctx
		}
	case len(c.open) >= c.max:
		if !c.drop("") {
			cut(conn)
			return ctx
		}
	}
	c.tick++
	h.since = c.tick
	c.open[conn] = h
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

// drop cuts the connection that is missed least, of an address or, for "", of
// all. It says whether there was one. It looks at all of them, 4096 at most, and
// only when there is no place.
func (c *conns) drop(from string) bool {
	var least net.Conn
	for conn, h := range c.open {
		if (from == "" || h.from == from) && h.rank() < mayStay && (least == nil || h.before(c.open[least])) {
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
