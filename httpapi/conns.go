package httpapi

import (
	"net"
	"net/http"
	"sync"
)

// conns bounds how many connections a server holds. One more takes the place of
// one that is idle; if none is, it is closed itself.
type conns struct {
	max int

	mu   sync.Mutex
	open map[net.Conn]bool // true: idle
}

// changed is for http.Server.ConnState.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
		return
	case http.StateNew:
		if len(c.open) >= c.max && !c.dropIdle() {
			conn.Close()
		}
	}
	c.open[conn] = state == http.StateIdle
}

// dropIdle closes a connection on which nothing is asked, and says whether there
// was one.
func (c *conns) dropIdle() bool {
	for conn, idle := range c.open {
		if idle {
			conn.Close()
			delete(c.open, conn)
			return true
		}
	}
	return false
}
