package httpapi

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of connections. One is unauthenticated until a key has been shown on it; the docs
// call its client a stranger.
const (
	// maxConns is for all, and at most half of the process's descriptors: the others
	// are the queue's and APNs'.
	maxConns = 4096
	// maxUnauthenticated is for unauthenticated ones, and at most half of those for all. Each costs up
	// to some 600 kB (test/strangers) with what the garbage collector leaves.
	maxUnauthenticated = 128
	// unauthenticatedStay is how long one may stay unauthenticated for sure: long enough to show a
	// key. With more of them than that allows the next ones are accepted later.
	unauthenticatedStay = time.Second
	// herdTime is how long the next of a network that has its share may hold up all
	// others: when the clients of one host come at once, somebody shows a key soon.
	// If nobody does they need not wait for that network for unauthenticatedStay.
	herdTime = 100 * time.Millisecond
	// unauthenticatedTime is how long an unauthenticated request may take, from its first byte
	// to the last of its form, and the answer a second more.
	unauthenticatedTime = 5 * time.Second
)

// limits returns how many connections there may be in a process that may have this many
// files; 0: unknown.
func limits(files uint64) (all, unauthenticated int) {
	all = maxConns
	if files > 0 && files/2 < maxConns {
		all = int(files / 2)
	}
	return all, min(maxUnauthenticated, all/2)
}

// conns bounds how many connections a server holds, and how many unauthenticated ones: in
// sum, and of one network three quarters. One more takes the place of the unauthenticated
// one that is idle longest.
type conns struct {
	all, maxUnauthenticated int
	shared                  func(netip.Addr) bool // very many clients have this address: no share is for it

	mu              sync.Mutex
	open            map[net.Conn]*openConn
	unauthenticated int            // how many there are
	from            map[string]int // unauthenticated ones of a network
	left            chan struct{}  // an unauthenticated one may have left
	vain            time.Time      // until then no network is waited for
}

// openConn is an open connection.
type openConn struct {
	of            *conns
	conn          net.Conn
	from          string // a network; "" for one that has no share
	came          time.Time
	since         time.Time // of the last change
	active        bool      // a request is under way; false, too, before its head is whole
	gone          bool      // cut or closed
	late          *time.Timer
	gate          atomic.Pointer[gate] // of HTTP/2; else nil
	authenticated atomic.Bool
}

func newConns(all, maxUnauthenticated int, shared func(netip.Addr) bool) *conns {
	return &conns{all: all, maxUnauthenticated: maxUnauthenticated, shared: shared, open: make(map[net.Conn]*openConn), from: make(map[string]int), left: make(chan struct{}, 1)}
}

// connKey is that of the *openConn in a request's context.
type connKey struct{}

func connOf(ctx context.Context) *openConn {
	h, _ := ctx.Value(connKey{}).(*openConn)
	return h // nil where there is no server, in tests
}

// markAuthenticated notes that the client of a request has shown a key on its connection.
func markAuthenticated(r *http.Request) {
	h := connOf(r.Context())
	if h == nil || h.authenticated.Load() {
		return
	}
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	if h.gone || h.authenticated.Load() {
		return
	}
	h.of.leaveLocked(h)
	h.authenticated.Store(true)
	if g := h.gate.Load(); g != nil {
		g.change(func() { g.authenticated = true })
	}
}

// sendAway ends the connection of a request, if it is unauthenticated.
func sendAway(r *http.Request) {
	if h := connOf(r.Context()); h != nil && !h.authenticated.Load() {
		h.cut()
	}
}

// begin is for http.Server.ConnContext, where it also holds up those that come next.
func (c *conns) begin(ctx context.Context, conn net.Conn) context.Context {
	h := &openConn{of: c, conn: conn, from: c.network(conn), came: time.Now()}
	for {
		admitted, wait := c.admit(h)
		switch {
		case admitted:
			return context.WithValue(ctx, connKey{}, h)
		case wait == 0:
			h.cut()
			return ctx
		}
		select {
		case <-c.left:
		case <-time.After(wait):
		}
	}
}

// admit takes in one more unauthenticated connection, for which another may have to go. If it does not, it
// returns how long to wait at most before trying again; 0: not at all.
func (c *conns) admit(h *openConn) (admitted bool, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	unauthenticated := func(h *openConn) bool { return !h.authenticated.Load() }
	switch {
	case h.from != "" && c.from[h.from] >= max(1, c.maxUnauthenticated*3/4):
		if c.dropLocked(func(other *openConn) bool { return unauthenticated(other) && other.from == h.from }) > 0 {
			return false, c.herdLocked(h)
		}
	case c.unauthenticated >= c.maxUnauthenticated:
		wait = c.dropLocked(unauthenticated)
	case len(c.open) >= c.all:
		wait = c.dropLocked(func(other *openConn) bool { return unauthenticated(other) || !other.active })
	}
	if wait > 0 {
		return false, wait
	}
	h.late = time.AfterFunc(time.Hour, func() {
		if unauthenticated(h) {
			h.cut()
		}
	})
	h.late.Stop()
	h.came, h.since = time.Now(), time.Now()
	c.open[h.conn] = h
	c.unauthenticated++
	if h.from != "" {
		c.from[h.from]++
	}
	return true, 0
}

// herdLocked says how long a connection may wait whose network has its share.
func (c *conns) herdLocked(h *openConn) time.Duration {
	now := time.Now()
	if now.Before(c.vain) {
		return 0
	}
	if wait := herdTime - now.Sub(h.came); wait > 0 {
		return wait
	}
	c.vain = now.Add(unauthenticatedStay)
	return 0
}

// changed is for http.Server.ConnState.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	if g, ok := conn.(*gate); ok {
		conn = g.Conn
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.open[conn]
	switch {
	case h == nil: // it has been cut
		return
	case state == http.StateClosed, state == http.StateHijacked:
		c.forgetLocked(h)
		return
	case state == http.StateActive:
		h.begun()
	default:
		h.late.Stop()
	}
	h.active, h.since = state == http.StateActive, time.Now()
}

// begun gives an unauthenticated connection the time for one request.
func (h *openConn) begun() {
	if !h.authenticated.Load() {
		h.late.Reset(unauthenticatedTime + time.Second)
	}
}

// network is what one client has: an IPv4 address, or the /64 of an IPv6 one. It
// is "" for a socket, for this machine and for trusted proxies, from which many come.
func (c *conns) network(conn net.Conn) string {
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

func network(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Unmap().Is4() {
		return addr
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
}

// dropLocked cuts the connection that is missed least, of those that are meant, or
// says when the first of them may be. It looks at all of them, and only when there is
// no place.
func (c *conns) dropLocked(meant func(*openConn) bool) (wait time.Duration) {
	var least *openConn
	wait = unauthenticatedStay
	for _, h := range c.open {
		if !meant(h) {
			continue
		}
		if young := unauthenticatedStay - time.Since(h.came); young > 0 && !h.authenticated.Load() {
			wait = min(wait, young)
		} else if least == nil || h.before(least) {
			least = h
		}
	}
	if least == nil {
		return wait
	}
	least.cut()
	c.forgetLocked(least)
	return 0
}

func (c *conns) forgetLocked(h *openConn) {
	delete(c.open, h.conn)
	h.gone = true
	if !h.authenticated.Load() {
		c.leaveLocked(h)
	}
}

// leaveLocked takes a connection off the unauthenticated ones.
func (c *conns) leaveLocked(h *openConn) {
	h.late.Stop()
	c.unauthenticated--
	select {
	case c.left <- struct{}{}:
	default:
	}
	if h.from == "" {
		return
	}
	if c.from[h.from]--; c.from[h.from] == 0 {
		delete(c.from, h.from)
	}
}

// before says that h is missed less than other: unauthenticated ones go first, and of those
// that are alike the one that has changed longest ago.
func (h *openConn) before(other *openConn) bool {
	if a, b := h.authenticated.Load(), other.authenticated.Load(); a != b {
		return b
	}
	return h.since.Before(other.since)
}

// cut closes a connection at once. With TLS its own Close would wait up to 5 s
// until the peer takes one record more (crypto/tls, Conn.Close).
func (h *openConn) cut() {
	conn := h.conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
	if g := h.gate.Load(); g != nil {
		g.end()
	}
}
