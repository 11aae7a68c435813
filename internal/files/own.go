package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

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

// CheckFolder refuses a folder in which every user of the machine may write. One that
// is not there is none. That its group may write is its owner's choice: volumes of
// Kubernetes are such.
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
