package httpapi

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // they wait more than they work
	goleak.VerifyTestMain(m)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// hold takes dir until the test ends.
func hold(t *testing.T, dir string) *State {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// serve serves h on the socket of s until the test ends; stop ends it before.
func serve(t *testing.T, s *State, h http.Handler) (server *Server, stop func()) {
	t.Helper()
	server, err := NewServer(s, h, discard())
	if err != nil {
		t.Fatal(err)
	}
	return server, run(t, server)
}

func run(t *testing.T, server *Server) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// get asks the socket in dir, over a connection of its own.
func get(dir, path string) (status int, contentType, body string, err error) {
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, socketName))
		},
	}}
	resp, err := c.Get("http://propeller" + path)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(text), err
}

// A folder has one daemon; when that has gone, in whatever way, another may
// have it, whatever it has left there.
func TestOneDaemonForAFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "for it")
	first := hold(t, dir)
	_, stop := serve(t, first, New(new(fakeTree), Options{}).Socket())
	_, err := Open(dir)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "(process ") {
		t.Errorf("%v", err)
	}
	if status, _, _, err := get(dir, "/healthz"); status != 200 || err != nil {
		t.Errorf("the first daemon's socket: %d, %v", status, err)
	}
	for name, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, socketName): 0o600, filepath.Join(dir, lockName): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	stop()
	if _, err := os.Stat(filepath.Join(dir, socketName)); err != nil {
		t.Errorf("as after a kill the socket should be left: %v", err)
	}
	if err := first.lock.Close(); err != nil { // as its process's end does
		t.Fatal(err)
	}
	var second *State
	waitFor(t, func() bool { // another test's child has the lock, too, until its program begins
		second, err = Open(dir)
		return !errors.Is(err, ErrInUse)
	})
	if err != nil {
		t.Fatal(err)
	}
	_, stop = serve(t, second, New(new(fakeTree), Options{}).Socket())
	if status, _, _, err := get(dir, "/healthz"); status != 200 || err != nil {
		t.Errorf("the second daemon's socket: %d, %v", status, err)
	}
	stop()
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != lockName {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

func TestPathTooLong(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	longest := filepath.Join(root, strings.Repeat("d", maxSocketPath-len(root)-len("//"+socketName)))
	if _, _, _, err := get(longest, "/"); err == nil {
		t.Fatal("there is a socket")
	}
	s := hold(t, longest)
	serve(t, s, New(new(fakeTree), Options{}).Socket())
	if status, _, _, err := get(longest, "/healthz"); status != 200 || err != nil {
		t.Errorf("the longest path: %d, %v", status, err)
	}
	if _, err := Open(longest + "d"); !errors.Is(err, ErrPath) || !strings.Contains(err.Error(), "104 bytes, at most 103") {
		t.Errorf("%v", err)
	}
}

func TestFolderThatCannotBe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "dir")); err == nil || errors.Is(err, ErrInUse) || errors.Is(err, ErrPath) {
		t.Errorf("%v", err)
	}
}

// suture starts a service again that has ended: so can this one.
func TestServedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server, stop := serve(t, hold(t, dir), New(new(fakeTree), Options{}).Socket())
	for range 3 {
		if status, _, _, err := get(dir, "/healthz"); status != 200 || err != nil {
			t.Fatalf("%d, %v", status, err)
		}
		stop()
		if _, _, _, err := get(dir, "/healthz"); err == nil {
			t.Fatal("still answers")
		}
		stop = run(t, server)
		waitFor(t, func() bool { _, _, _, err := get(dir, "/healthz"); return err == nil })
	}
	if server.String() != "socket" {
		t.Error(server.String())
	}
}
