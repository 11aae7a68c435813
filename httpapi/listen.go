package httpapi

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

const socketScheme = "unix:"

// Listen opens a listener at host:port, or at unix: and the path of a socket,
// which takes the place of one that a dead process left behind and is for the
// process's user and group.
func Listen(addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, socketScheme)
	if !ok {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("http.listen: %w", err)
		}
		return ln, nil
	}
	ln, err := listenSocket(path)
	if err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	return ln, nil
}

// socketListener is one at a path, which goes with it.
type socketListener struct {
	*net.UnixListener
	path   string
	remove sync.Once
}

func listenSocket(path string) (net.Listener, error) {
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	// A name of its own, since another daemon may start, too; a short one, since
	// the path of a socket is bounded.
	fresh := filepath.Join(filepath.Dir(path), "."+rand.Text()[:4])
	if n := len(fresh) + len("/s"); n > maxSocketPath {
		return nil, fmt.Errorf("%q: the socket is made in a folder beside it first, and that path has %d bytes, at most %d: %w: choose another folder", path, n, maxSocketPath, ErrPath)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(fresh)
	ln, err := bindSocket(fresh, path, 0o660)
	if err != nil {
		return nil, err
	}
	return &socketListener{UnixListener: ln, path: path}, nil
}

// Addr is the path.
func (l *socketListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket, once: another may be there then.
func (l *socketListener) Close() error {
	l.remove.Do(func() { _ = os.Remove(l.path) }) // whoever starts next removes what is left
	return l.UnixListener.Close()
}

// clearSocket removes a socket on which nobody listens any more.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("%q is there and no socket: remove it, or choose another path", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%q: another process listens there", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}
