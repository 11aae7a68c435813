package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

const (
	fileName = "buried.db"
	dirMode  = 0o700
	fileMode = 0o600 // it names jobs, reasons and references of customers

	// lockWait is how long another process is waited for: one that just ends.
	lockWait = time.Second

	// pageSize is bbolt's, fixed so that the file means the same on every
	// machine; bbolt would take the kernel's.
	pageSize = 4096

	// maxAside is how many damaged files are kept for who wants to look.
	maxAside = 3

	// maxRenewals is how often a running process begins the file anew before it
	// goes on without: a disk that damages it again and again is no place for it.
	maxRenewals = 3
)

// errDamaged: the file is no journal of ours that can be read.
var errDamaged = errors.New("damaged")

func isDamage(err error) bool { return errors.Is(err, errDamaged) }

// store is an open database.
type store struct {
	db     *bbolt.DB
	file   *os.File // the database's own
	counts *counts
}

// openStore opens dir's database. Its error wraps errDamaged when a new one is
// to be begun.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	path := filepath.Join(dir, fileName)
	if err := checkPath(path); err != nil {
		return nil, fmt.Errorf("journal: %q: %w", path, err)
	}
	s := new(store)
	err := guard(func() (err error) {
		s.db, err = openDB(path, false, &s.file)
		if err != nil {
			return err
		}
		return s.prepare()
	})
	if err != nil {
		s.abandon()
		return nil, fmt.Errorf("journal: %q: %w", path, err)
	}
	return s, nil
}

// checkPath checks the structure of the database, which bbolt trusts: a page
// that names a wrong one can make it recurse without end or ask for all memory,
// neither of which can be recovered from. It is opened for reading, which
// keeps writers out and reads no more than its two head pages.
func checkPath(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a file")
	case info.Size() == 0: // a crash between creating and writing it
		return nil
	}
	var file *os.File
	return guard(func() error {
		defer func() { file.Close() }() // ends the lock, should bbolt panic; else it has been closed
		db, err := openDB(path, true, &file)
		if err != nil {
			return err
		}
		defer db.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		return checkFile(file, info.Size())
	})
}

// openDB opens and locks the database, and puts its file in *file as soon as
// there is one.
func openDB(path string, readOnly bool, file **os.File) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{
		Timeout:  lockWait,
		ReadOnly: readOnly,
		PageSize: pageSize,
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(name, flag, mode)
			*file = f
			return f, err
		},
	})
	if err == nil {
		return db, nil
	}
	var sys *fs.PathError
	var errno syscall.Errno
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, ErrLocked
	case errors.As(err, &sys), errors.As(err, &errno): // the system's, not the file's
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", errDamaged, err)
}

// guard runs f, which works on the database, and turns a panic into damage:
// bbolt panics on pages that it cannot make sense of. The file is mapped into
// memory, so that one which becomes shorter gives a fault, which Go only lets
// be recovered from when asked to.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return f()
}

func (s *store) update(f func(*bbolt.Tx) error) error {
	return guard(func() error { return s.db.Update(f) })
}

func (s *store) view(f func(*bbolt.Tx) error) error {
	return guard(func() error { return s.db.View(f) })
}

func (s *store) close() error {
	if err := guard(s.db.Close); err != nil {
		return fmt.Errorf("journal: close: %w", err)
	}
	return nil
}

// abandon lets a store go after a panic, which may have left bbolt's own locks
// taken: closing the file frees it for others. What is lost is the mapping, as
// much address space as the file is long.
func (s *store) abandon() { s.file.Close() }

// anew puts the file that is damaged aside and begins a new one.
func (j *Journal) anew(why error) (*store, error) {
	path := filepath.Join(j.dir, fileName)
	aside := path + asideSuffix + strconv.FormatInt(time.Now().UnixNano(), 10)
	if err := os.Rename(path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; putting it aside: %w", why, err)
	}
	tidyAside(path)
	j.log.Error("journal of buried jobs is damaged, it is begun anew: the reasons of jobs buried before are lost, the jobs are not",
		"err", why, "kept_as", aside)
	j.rebuilt.Add(1)
	return openStore(j.dir)
}

const asideSuffix = ".corrupt-"

// tidyAside removes the oldest of the files put aside when there are too many.
func tidyAside(path string) {
	aside, err := filepath.Glob(globQuote(path+asideSuffix) + "*")
	if err != nil || len(aside) <= maxAside {
		return
	}
	slices.Sort(aside) // their times have as many digits until 2286
	for _, old := range aside[:len(aside)-maxAside] {
		_ = os.Remove(old) // it stays: nothing depends on that
	}
}

// globQuote makes a path match itself.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
