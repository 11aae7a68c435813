package jetstream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"propeller/internal/files"
)

// The files of an embedded queue are written only where there are regular files, see
// files.go for reading: to open a named pipe, of which there may be one by mistake or by
// malice, takes for ever.

// maxWalk is how many of the server's files are looked at before a start.
const maxWalk = 1_000_000

// writeFile writes a file that only its owner can read, in one step.
func writeFile(path, text string) error {
	tmp := path + ".new"
	f, err := files.OpenOwn(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		_, err = f.WriteString(text + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// checkFiles says what is neither a file nor a folder among the server's files, which it
// would open.
func checkFiles(dir string) error {
	n := 0
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		n++
		switch {
		case n > maxWalk:
			return fs.SkipAll
		case err != nil:
			return nil // the server says so, or does not need it
		}
		mode := d.Type()
		if mode&fs.ModeSymlink != 0 { // to another disk, for example
			if info, err := os.Stat(path); err == nil {
				mode = info.Mode()
			} else {
				return nil
			}
		}
		if !mode.IsRegular() && !mode.IsDir() {
			return fmt.Errorf("%s: %w, nor a folder: remove it", path, files.ErrNotRegular)
		}
		return nil
	})
}
