package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every testdata/bad-*.yaml has, in bad-*.err beside it, the whole error that
// loading it must give.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil || len(files) < 25 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".err")
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := Load(file, Options{})
			if err == nil {
				t.Fatalf("loaded: %+v", cfg)
			}
			if got := err.Error() + "\n"; got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the password")
			}
		})
	}
}
