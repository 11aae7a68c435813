//go:build unix

package httpapi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"propeller/internal/files"
)

// A folder in which everybody may write is no state_dir, and a link in the place of the
// lock leads nowhere.
func TestStateOfOthers(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, files.ErrShared) {
		t.Errorf("everybody may write: %v", err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, filepath.Join(dir, lockName))); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir); err == nil {
		t.Error("the lock is a link, and was followed")
		_ = s.Close()
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
}
