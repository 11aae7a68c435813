package files

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
)

// ErrLocked is for a file that another process has locked.
var ErrLocked = errors.New("locked by another process")

// Lock locks a file of the process's own, made when missing, and writes the process's id
// into it. Unlock it with its Close. The system unlocks it when the process ends, however
// it ends. The error is ErrLocked, or an *fs.PathError.
func Lock(path string) (*flock.Flock, error) {
	l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|ownFlags), flock.SetPermissions(0o600))
	switch ok, err := l.TryLock(); {
	case errors.Is(err, syscall.ELOOP):
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrLink}
	case err != nil:
		if _, ok := errors.AsType[*fs.PathError](err); !ok {
			err = &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		return nil, err
	case !ok:
		return nil, ErrLocked
	}
	info, err := l.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	// A full disk may not take it: then Holder cannot tell.
	if f, err := OpenOwn(path, os.O_WRONLY|os.O_TRUNC); err == nil {
		_, _ = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
		_ = f.Close()
	}
	return l, nil
}

// maxHolder bounds what is read of a lock's file.
const maxHolder = 64

// Holder is the id of the process that locked the file last; "" if the file does not say.
func Holder(path string) string {
	data, _ := Read(path, maxHolder)
	line, _, _ := strings.Cut(string(data), "\n")
	if _, err := strconv.Atoi(line); err != nil {
		return ""
	}
	return line
}
