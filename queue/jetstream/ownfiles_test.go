//go:build unix

package jetstream

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A named pipe in the folder makes no start wait: it is refused, or replaced.
func TestNamedPipes(t *testing.T) {
	t.Parallel()
	stream := filepath.Join("jetstream", "$G", "streams", jobsStream)
	for file, want := range map[string]string{
		tokenFile: "not a regular file", lockFile: "not a regular file",
		filepath.Join(stream, "meta.inf"):              "not a regular file",
		filepath.Join(stream, "meta.sum"):              "not a regular file",
		filepath.Join(stream, "obs", "t", "o.dat"):     "not a regular file",
		filepath.Join(stream, "msgs", "1.blk"):         "not a regular file",
		filepath.Join("jetstream", "of whatever name"): "not a regular file",
		storedFile: "", storedFile + ".new": "", listenFile: "", listenFile + ".new": "", tokenFile + ".new": "", trialFile: "",
	} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := Options{URL: embeddedIn(dir, "listen", "127.0.0.1:0")}
			q := openReady(t, o)
			c := consumeTest(t, q, "t")
			mustPut(t, q, "t", "x")
			mustDone(t, mustReceive(t, c, 1)...)
			endNow(t, c)
			closeNow(t, q)
			path := filepath.Join(dir, file)
			_ = os.Remove(path)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil { // a consumer's ends with the server
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				q, err := open(o)
				if err == nil {
					err = q.Close()
				}
				done <- err
			}()
			select {
			case err := <-done:
				if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
					t.Errorf("%v, want %q", err, want)
				}
			case <-time.After(patience / 2):
				t.Error("the start waits")
				if f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0); err == nil {
					f.Close() // lets it go on
				}
			}
		})
	}
}
