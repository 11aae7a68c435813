//go:build unix && !solaris && !illumos && !aix

package jetstream

import (
	"errors"
	"os"
	"syscall"
)

// lock takes f for this process; the system lets it go when the process ends,
// however it ends.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// unlock lets f go. Closing it would not do: a child that is just being started
// has a copy of it until it runs its program, and with it the lock.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
