package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, size := range map[string]int{"empty": 0, "full": 1 << 10, "large": 1<<10 + 1} {
		if err := os.WriteFile(at(name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"empty": 0, "full": 1 << 10} {
		if data, err := Read(at(name), 1<<10); err != nil || len(data) != size {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
	if _, err := Read(at("large"), 1<<10); err == nil || err.Error() != "is larger than 1 KiB" {
		t.Errorf("large: %v", err)
	}
	if _, err := Read(dir, 1<<10); err != ErrFolder {
		t.Errorf("a folder: %v", err)
	}
	for _, path := range []string{at("pipe"), "/dev/zero"} {
		if _, err := Read(path, 1<<10); !errors.Is(err, ErrNotRegular) || strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Read(at("none"), 1<<10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}
