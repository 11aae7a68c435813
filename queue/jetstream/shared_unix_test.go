//go:build unix

package jetstream

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"propeller/internal/files"
)

// A folder in which everybody may write holds no queue, and no link in the place of its
// own files is followed.
func TestFolderOfOthers(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	if q, err := open(Options{URL: embeddedIn(dir)}); !errors.Is(err, files.ErrShared) {
		t.Errorf("everybody may write: %v", err)
		if err == nil {
			_ = q.Close()
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{lockFile, tokenFile + ".new", listenFile + ".new", trialFile} {
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if q, err := open(Options{URL: embeddedIn(dir, "listen", "127.0.0.1:0")}); err == nil {
			_ = q.Close()
		}
		if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		_ = os.Remove(filepath.Join(dir, name))
	}
}
