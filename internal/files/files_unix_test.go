//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// The process's own files are written to no link.
func TestOpenOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "l")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for at, good := range map[string]bool{path: true, link: false, dir: false, os.DevNull: false} {
		f, err := OpenOwn(at, os.O_WRONLY)
		if (err == nil) != good {
			t.Errorf("%s: %v", at, err)
		}
		if err == nil {
			f.Close()
		}
		if (at == link) != errors.Is(err, ErrLink) {
			t.Errorf("%s: %v", at, err)
		}
	}
}

func TestCheckFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	if err := CheckFolder(dir); err != nil {
		t.Errorf("one that is not there: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for mode, shared := range map[fs.FileMode]bool{
		0o700: false, 0o755: false, 0o775: false, 0o2770: false, 0o777: true, 0o702: true, fs.ModeSticky | 0o777: true, // as /tmp
	} {
		chmod(t, dir, mode)
		if err := CheckFolder(dir); errors.Is(err, ErrShared) != shared || err != nil != shared {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

// A file that everybody may read is not readable where a folder above it keeps them out.
func TestReadableByAll(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	above, dir := filepath.Dir(top), filepath.Join(top, "d")
	path := filepath.Join(dir, "f")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		above, dir, file fs.FileMode
		want             bool
	}{
		{0o755, 0o755, 0o644, true}, {0o711, 0o711, 0o604, true},
		{0o755, 0o755, 0o640, false}, {0o755, 0o750, 0o644, false}, {0o700, 0o755, 0o644, false}, {0o755, 0o754, 0o644, false},
	} {
		chmod(t, above, c.above)
		chmod(t, dir, c.dir)
		chmod(t, path, c.file)
		if got := ReadableByAll(path); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if ReadableByAll(path + "x") {
		t.Error("one that is not there")
	}
}

// A lock holds against others until it is closed, and its file says whose it is.
func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	if got := Holder(path); got != "" {
		t.Errorf("no file: %q", got)
	}
	if err := os.WriteFile(path, []byte("a longer text of another process\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Holder(path); got != "" {
		t.Errorf("another text: %q", got)
	}
	for range 2 {
		l, err := Lock(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Lock(path); !errors.Is(err, ErrLocked) {
			t.Errorf("locked: %v", err)
		}
		if got := Holder(path); got != strconv.Itoa(os.Getpid()) {
			t.Errorf("holder %q", got)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What is not the process's own file is not locked, and not waited for.
func TestLockOfAnotherFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("f"), nil, 0o600), os.Symlink(at("f"), at("link")), syscall.Mkfifo(at("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"link": ErrLink, "pipe": ErrNotRegular, "none/f": fs.ErrNotExist, ".": syscall.EISDIR} {
		if _, err := Lock(at(name)); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
