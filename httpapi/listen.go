package httpapi

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
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
	if err := clearSocket(path); err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, fmt.Errorf("http.listen: %w", errors.Join(err, ln.Close()))
	}
	return ln, nil
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
