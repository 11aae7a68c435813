package jetstream

import (
	"bytes"
	"container/list"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"propeller/internal/files"
)

const (
	// maxAuthenticated and maxUnauthenticated are how many connections of other programs
	// there are at once, with the token shown and before; less where the process may have
	// few files: all together have a quarter at most.
	maxAuthenticated   = 512
	maxUnauthenticated = 64
	minFiles           = 64 // of the process, below which it is no use to save them
	filesShare         = 4

	// authTime is how long a connection has to show the token, in seconds, and
	// maxControlLine how long its lines may be.
	authTime       = 2
	maxControlLine = 4 << 10
	// writeTime is how long a client may take nothing.
	writeTime = 10 * time.Second
	// relayBuffer is what a connection has, once for each direction.
	relayBuffer = 16 << 10
	// acceptPause is how long none is accepted when the system has no more files.
	acceptPause = 100 * time.Millisecond
)

// listener lets other programs in. It stays while the server is restarted: else
// somebody else could take the port then, and be shown the token. So connections are
// taken here, and passed to the server that runs.
type listener struct {
	l     net.Listener
	token string
	// dial connects to the server that runs.
	dial func() (net.Conn, error)
	said *limitedLog
	once sync.Once
	wg   sync.WaitGroup

	maxAuthenticated, maxUnauthenticated int

	mu              sync.Mutex
	closed          bool
	authenticated   map[*clientConn]struct{}
	unauthenticated *list.List // of *clientConn, the oldest first
}

// clientConn is a connection of another program, and the one to the server for it.
type clientConn struct {
	nc, server net.Conn
	at         *list.Element // of unauthenticated
}

func (c *clientConn) close() {
	_ = c.nc.Close()
	_ = c.server.Close()
}

// listen takes the port. Connections wait until accept is called.
func listen(addr, token string, dial func() (net.Conn, error), log *slog.Logger) (*listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	ln := &listener{
		l: l, token: token, dial: dial, said: newLimitedLog(log, time.Minute, 1),
		authenticated: make(map[*clientConn]struct{}), unauthenticated: list.New(),
	}
	ln.maxAuthenticated, ln.maxUnauthenticated = connLimits(files.MaxOpen())
	return ln, nil
}

// connLimits are how many authenticated and unauthenticated connections there may be in a
// process that may have so many files; 0: nobody knows.
func connLimits(files uint64) (authenticated, unauthenticated int) {
	if files == 0 {
		return maxAuthenticated, maxUnauthenticated
	}
	all := int(min(max(files, minFiles)/filesShare, maxAuthenticated+maxUnauthenticated))
	unauthenticated = min(maxUnauthenticated, all/filesShare)
	return all - unauthenticated, unauthenticated
}

// accept lets connections in from now on; it does not wait.
func (ln *listener) accept() {
	ln.once.Do(func() { ln.wg.Go(ln.acceptAll) })
}

func (ln *listener) acceptAll() {
	for {
		nc, err := ln.l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			ln.said.note(line{level: slog.LevelWarn, text: "queue server: no connection can be accepted", err: brief(err.Error())})
			time.Sleep(acceptPause)
		default:
			ln.enter(nc)
		}
	}
}

// close ends all connections and gives the port free.
func (ln *listener) close() {
	_ = ln.l.Close()
	ln.mu.Lock()
	ln.closed = true
	for c := range ln.authenticated {
		c.close()
	}
	for e := ln.unauthenticated.Front(); e != nil; e = e.Next() {
		e.Value.(*clientConn).close()
	}
	ln.mu.Unlock()
	ln.wg.Wait()
	ln.said.end()
}

// enter takes in a connection, for which the oldest unauthenticated one may have to go: who
// has the token shows it at once, long before there are so many newer ones.
func (ln *listener) enter(nc net.Conn) {
	inner, err := ln.dial()
	if err != nil { // the client tries again
		_ = nc.Close()
		return
	}
	c := &clientConn{nc: nc, server: inner}
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.closed {
		c.close()
		return
	}
	if ln.unauthenticated.Len() >= ln.maxUnauthenticated {
		ln.unauthenticated.Remove(ln.unauthenticated.Front()).(*clientConn).close()
	}
	c.at = ln.unauthenticated.PushBack(c)
	ln.wg.Go(func() { ln.serve(c) })
}

func (ln *listener) leave(c *clientConn) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.unauthenticated.Remove(c.at) // which does nothing if it has gone
	delete(ln.authenticated, c)
}

var errTooManyConns = errors.New("too many connections from other programs")

// admit notes that a connection is authenticated.
func (ln *listener) admit(c *clientConn) error {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.unauthenticated.Remove(c.at)
	switch {
	case ln.closed:
		return net.ErrClosed
	case len(ln.authenticated) >= ln.maxAuthenticated:
		ln.said.note(line{level: slog.LevelWarn, text: "queue server: " + errTooManyConns.Error()})
		return errTooManyConns
	}
	ln.authenticated[c] = struct{}{}
	return nil
}

// serve passes on what a client and the server say, until one of them ends it.
func (ln *listener) serve(c *clientConn) {
	defer ln.leave(c)
	var wg sync.WaitGroup
	wg.Go(func() {
		relay(c.nc, c.server, writeTime)
		c.close()
	})
	if ln.authenticate(c) == nil {
		relay(c.server, c.nc, 0)
	}
	_ = c.server.Close() // the client still gets what it has said
	wg.Wait()
}

// authenticate passes on what a client says first, and admits it if that has the
// token. Otherwise the server ends the connection.
func (ln *listener) authenticate(c *clientConn) error {
	var first []byte
	b := make([]byte, maxControlLine)
	for {
		n, err := c.nc.Read(b)
		if err != nil {
			return err
		}
		first = append(first, b[:n]...)
		text, _, whole := bytes.Cut(first, []byte("\n"))
		if whole && ln.shows(text) {
			if err := ln.admit(c); err != nil {
				_, _ = io.WriteString(c.nc, "-ERR '"+server.ErrTooManyConnections.Error()+"'\r\n")
				return err
			}
		}
		if _, err := c.server.Write(b[:n]); err != nil || whole {
			return err
		}
		if len(first) > maxControlLine {
			return nil // the server says what is wrong with it
		}
	}
}

// shows says whether a client's first line has the token.
func (ln *listener) shows(text []byte) bool {
	const verb = "CONNECT"
	if len(text) < len(verb) || !bytes.EqualFold(text[:len(verb)], []byte(verb)) {
		return false
	}
	var with struct {
		Token string `json:"auth_token"`
	}
	err := json.Unmarshal(text[len(verb):], &with)
	return err == nil && subtle.ConstantTimeCompare([]byte(with.Token), []byte(ln.token)) == 1
}

// relay copies until one side has ended, or takes nothing for a time; 0: for ever.
func relay(to, from net.Conn, patience time.Duration) {
	b := make([]byte, relayBuffer)
	for {
		n, err := from.Read(b)
		if err != nil {
			return // neither side of ours gives something with it
		}
		if patience > 0 {
			_ = to.SetWriteDeadline(time.Now().Add(patience))
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
