// Package files opens, reads and locks files that somebody else may have replaced,
// and checks who may read and write them.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
)

var (
	// ErrFolder is for a folder in the place of a file.
	ErrFolder = errors.New("is a folder")
	// ErrNotRegular is for what else is no regular file: a pipe would block for ever.
	ErrNotRegular = errors.New("is not a regular file")
)

// Read reads a regular file of at most limit bytes. It waits for no writer, and
// what it looks at is what it reads. Errors of the system are *fs.PathError; the
// others do not hold the path.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, ErrFolder
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("is larger than %d KiB", limit>>10)
	}
	return data, nil
}

// ErrLink is for a link in the place of a file of the process's own.
var ErrLink = errors.New("is a symbolic link: remove it")

// OpenOwn is os.OpenFile for a regular file of the process's own, which is made
// for its user alone: it follows no link, and waits for no pipe.
func OpenOwn(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|ownFlags, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrLink}
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

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

// The rights of everybody.
const (
	mayRead  fs.FileMode = 0o004
	mayWrite fs.FileMode = 0o002
	mayEnter fs.FileMode = 0o001
)

// ErrShared is for a folder in which every user of the machine may write: there
// nothing is the process's own.
var ErrShared = errors.New("every user of this machine may write there: remove that right (chmod o-w), or choose a folder inside it, which propeller makes for itself")

// Folder says why dir cannot be a folder of the process's own; nil if it can be, now or
// when it is made.
func Folder(dir string) error {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return errors.New("is not a folder")
	}
	if errors.Is(CheckFolder(dir), ErrShared) {
		return ErrShared
	}
	return nil
}

// CheckFolder refuses a folder in which every user of the machine may write. A
// missing one is fine. That its group may write is its owner's choice, as with volumes of
// Kubernetes.
func CheckFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), runtime.GOOS == "windows": // which has no such rights
		return nil
	case err != nil:
		return err
	case info.IsDir() && info.Mode()&mayWrite != 0:
		return fmt.Errorf("%q: %w", dir, ErrShared)
	}
	return nil
}

// ReadableByAll says that every user of the machine can read a file: that it lets them,
// and every folder above it, too.
func ReadableByAll(path string) bool {
	path, err := filepath.Abs(path)
	if err != nil || !allows(path, mayRead) || runtime.GOOS == "windows" {
		return false
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if !allows(dir, mayEnter) {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func allows(path string, right fs.FileMode) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&right != 0
}
