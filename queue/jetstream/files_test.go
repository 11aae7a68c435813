package jetstream

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// A pipe in the place of a file that is named, at any time, is told and not waited for.
func TestFileIsPipe(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"ca later": func() error {
			_, err := Options{}.with("ca", pipe).roots()
			return err
		},
		"creds later": func() error {
			var o nats.Options
			if err := credentials(pipe)(&o); err != nil {
				return err
			}
			_, err := o.SignatureCB(nil)
			if _, other := o.UserJWT(); other == nil {
				t.Error("a pipe holds a token")
			}
			return err
		},
		"a folder's token": func() error {
			_, err := ownToken(pipe)
			return err
		},
	} {
		done := make(chan error, 1)
		go func() { done <- do() }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "is not a regular file") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: waits for the pipe", name)
		}
	}
}
