// Package files reads files that somebody else may have put in place of what
// belongs there.
package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
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
