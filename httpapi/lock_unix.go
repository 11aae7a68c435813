//go:build unix && !solaris && !aix

package httpapi

import (
	"errors"
	"os"
	"syscall"
)

var errLocked = errors.New("locked")

// lockFile locks f until it is closed, or the process ends, in whatever way:
// flock(2) leaves nothing behind. It does not wait.
func lockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}
