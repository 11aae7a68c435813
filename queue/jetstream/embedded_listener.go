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
	// maxMembers and maxStrangers are how many connections of other programs there
	// are at once, with the token shown and before; less where the process may have
	// few files: all together have a quarter at most.
	maxMembers   = 512
	maxStrangers = 64
	minFiles     = 64 // of the process, below which it is no use to be limitedLog
	filesShare   = 4

	// strangerTime is how long a connection has to show the token, in seconds, and
	// maxControlLine how long a line of its may be.
	strangerTime   = 2
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

	maxMembers, maxStrangers int

	mu        sync.Mutex
	closed    bool
	members   map[*guest]struct{}
	strangers *list.List // of *guest, the oldest first
}

// guest is a connection of another program, and the one to the server for it.
type guest struct {
	nc, server net.Conn
	at         *list.Element // of strangers
}

func (g *guest) close() {
	_ = g.nc.Close()
	_ = g.server.Close()
}

// listen takes the port. Connections wait until accept is called.
func listen(addr, token string, dial func() (net.Conn, error), log *slog.Logger) (*listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	ln := &listener{
		l: l, token: token, dial: dial, said: newLimitedLog(log, time.Minute, 1),
		members: make(map[*guest]struct{}), strangers: list.New(),
	}
	ln.maxMembers, ln.maxStrangers = connLimits(files.MaxOpen())
	return ln, nil
}

// connLimits are how many members and strangers there may be in a process that may have
// so many files; 0: nobody knows.
func connLimits(files uint64) (members, strangers int) {
	if files == 0 {
		return maxMembers, maxStrangers
	}
	all := int(min(max(files, minFiles)/filesShare, maxMembers+maxStrangers))
	strangers = min(maxStrangers, all/filesShare)
	return all - strangers, strangers
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
	for g := range ln.members {
		g.close()
	}
	for e := ln.strangers.Front(); e != nil; e = e.Next() {
		e.Value.(*guest).close()
	}
	ln.mu.Unlock()
	ln.wg.Wait()
	ln.said.end()
}

// enter takes a stranger in, for whom the oldest one may have to go: who has the token
// shows it at once, long before there are so many newer ones.
func (ln *listener) enter(nc net.Conn) {
	inner, err := ln.dial()
	if err != nil { // the client tries again
		_ = nc.Close()
		return
	}
	g := &guest{nc: nc, server: inner}
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.closed {
		g.close()
		return
	}
	if ln.strangers.Len() >= ln.maxStrangers {
		ln.strangers.Remove(ln.strangers.Front()).(*guest).close()
	}
	g.at = ln.strangers.PushBack(g)
	ln.wg.Go(func() { ln.serve(g) })
}

func (ln *listener) leave(g *guest) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.strangers.Remove(g.at) // which does nothing if it has gone
	delete(ln.members, g)
}

var errMembers = errors.New("too many connections from other programs")

// admit makes a stranger a member.
func (ln *listener) admit(g *guest) error {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.strangers.Remove(g.at)
	switch {
	case ln.closed:
		return net.ErrClosed
	case len(ln.members) >= ln.maxMembers:
		ln.said.note(line{level: slog.LevelWarn, text: "queue server: " + errMembers.Error()})
		return errMembers
	}
	ln.members[g] = struct{}{}
	return nil
}

// serve passes on what a client and the server say, until one of them ends it.
func (ln *listener) serve(g *guest) {
	defer ln.leave(g)
	var wg sync.WaitGroup
	wg.Go(func() {
		relay(g.nc, g.server, writeTime)
		g.close()
	})
	if ln.introduce(g) == nil {
		relay(g.server, g.nc, 0)
	}
	_ = g.server.Close() // the client still gets what it has said
	wg.Wait()
}

// introduce passes on what a client says first, and makes it a member if that has the
// token. Otherwise the server ends the connection.
func (ln *listener) introduce(g *guest) error {
	var first []byte
	b := make([]byte, maxControlLine)
	for {
		n, err := g.nc.Read(b)
		if err != nil {
			return err
		}
		first = append(first, b[:n]...)
		text, _, whole := bytes.Cut(first, []byte("\n"))
		if whole && ln.shows(text) {
			if err := ln.admit(g); err != nil {
				_, _ = io.WriteString(g.nc, "-ERR '"+server.ErrTooManyConnections.Error()+"'\r\n")
				return err
			}
		}
		if _, err := g.server.Write(b[:n]); err != nil || whole {
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
