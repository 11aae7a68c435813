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

	"github.com/gofrs/flock"

	"propeller/internal/files"
)

// Names in state_dir.
const (
	socketName = "propeller.sock"
	lockName   = "propeller.lock"
	// freshName is the folder in which a socket is made before it takes its
	// place. Its path with the socket's, which is one letter there, is not
	// longer than the final one.
	freshName = ".socket-new"
)

// maxSocketPath is the longest path that fits sockaddr_un with the byte that
// ends it, in bytes: 108 on Linux (unix(7)), 104 on BSD and macOS.
const maxSocketPath = 103

var (
	// ErrInUse: another daemon that lives has the folder.
	ErrInUse = errors.New("another propeller is using this folder")
	// ErrPath: the folder's path is too long to hold a socket.
	ErrPath = errors.New("the path is too long for a socket")
)

// State is a state_dir that this process has locked, until Close or its end.
type State struct {
	dir  string
	lock *flock.Flock
}

// Open locks dir, creating it if it is missing, for this process. Errors: one
// that wraps ErrInUse if another process has it, one that wraps ErrPath, or
// files.ErrShared, or one of the file system. None names the key that dir is from.
func Open(dir string) (*State, error) {
	if path := filepath.Join(dir, socketName); len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket %q: %d bytes, at most %d: %w: choose another folder", path, len(path), maxSocketPath, ErrPath)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := files.CheckFolder(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, lockName)
	lock, err := files.Lock(path)
	if errors.Is(err, files.ErrLocked) {
		holder := files.Holder(path)
		if holder != "" {
			holder = " (process " + holder + ")"
		}
		return nil, fmt.Errorf("%q: %w%s: stop it, or give this one a folder of its own", dir, ErrInUse, holder)
	}
	if err != nil {
		return nil, err
	}
	return &State{dir: dir, lock: lock}, nil
}

// Close releases the folder.
func (s *State) Close() error {
	err := os.Remove(s.path())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.lock.Close()) // the lock ends with it
}

func (s *State) path() string { return filepath.Join(s.dir, socketName) }

// Listen makes the socket, in place of one that a dead process left behind. It
// can be reached by the process's own user only: from the first moment, since
// it is made in a folder that nobody else can enter.
func (s *State) Listen() (net.Listener, error) {
	fresh := filepath.Join(s.dir, freshName)
	if err := os.RemoveAll(fresh); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer os.RemoveAll(fresh)
	ln, err := bindSocket(fresh, s.path(), 0o600)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return ln, nil
}

// bindSocket makes a socket at path that has its rights from the first moment:
// it is made in the folder fresh, which nobody else can enter, and moved. It does
// not go when the listener is closed.
func bindSocket(fresh, path string, mode os.FileMode) (*net.UnixListener, error) {
	made := filepath.Join(fresh, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it knows the first name only
	if err = os.Chmod(made, mode); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

const socketScheme = "unix:"

// listen opens a listener at host:port, or at unix: and the path of a socket,
// which takes the place of one that a dead process left behind and is for the
// process's user and group.
func listen(addr string) (net.Listener, error) {
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
		return nil, fmt.Errorf("%q: the socket is first made in a folder beside it, and that path has %d bytes, at most %d: %w: choose another folder", path, n, maxSocketPath, ErrPath)
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
	l.remove.Do(func() { _ = os.Remove(l.path) }) // the next start removes what is left
	return l.UnixListener.Close()
}

// clearSocket removes a socket that no longer has a listener.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("%q exists and is not a socket: remove it, or choose another path", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("%q: another process is listening on it", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}
