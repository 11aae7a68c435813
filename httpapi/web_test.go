package httpapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/supervisor"
)

func withLocal(r *http.Request, addr net.Addr) context.Context {
	return context.WithValue(r.Context(), http.LocalAddrContextKey, addr)
}

var quiet = slog.New(slog.DiscardHandler)

// serveWeb runs a server until the test ends, and returns its address.
func serveWeb(t *testing.T, w Web, h http.Handler) string {
	t.Helper()
	s, err := NewWeb(w, quiet)
	if err != nil {
		t.Fatal(err)
	}
	s.Answer(h)
	addr := s.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(ctx) })
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return addr
}

// newClient is a client that leaves nothing behind.
func newClient(t *testing.T) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func TestListenTaken(t *testing.T) {
	t.Parallel()
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, http.NotFoundHandler())
	if _, err := NewWeb(Web{Listen: addr}, quiet); err == nil || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("%v", err)
	}
	if _, err := NewWeb(Web{Listen: "127.0.0.1:0", TLSCert: "none", TLSKey: "none"}, quiet); err == nil {
		t.Error("no certificate, and it listens")
	}
}

// A socket takes the place of a dead one, and of nothing else.
func TestListenSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	// Another test's child has the listener, too, until its program begins.
	waitFor(t, func() bool {
		ln, err := listen("unix:" + path)
		if err == nil {
			ln.Close()
		}
		return err == nil
	})
	serveWeb(t, Web{Listen: "unix:" + path}, http.NotFoundHandler())
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another process is listening") {
		t.Errorf("%v", err)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen("unix:" + file); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("%v", err)
	}
}

// A socket has its rights from the first moment, and leaves nothing behind.
func TestListenSocketRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			if info, err := os.Lstat(path); err == nil && info.Mode().Perm() != 0o660 {
				t.Errorf("a socket with %v is seen", info.Mode())
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 300 {
		ln, err := listen("unix:" + path)
		if err != nil {
			t.Fatal(err)
		}
		if ln.Addr().String() != path {
			t.Errorf("listens at %s", ln.Addr())
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	looking.Wait()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := listen("unix:/" + strings.Repeat("d", maxSocketPath-3) + "/s"); !errors.Is(err, ErrPath) {
		t.Errorf("%v", err)
	}
}

// A renewed certificate is used without a restart; one that cannot be read
// leaves the one before.
func TestCertificateRenewed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "c.pem")
	issue := func(name string) {
		t.Helper()
		apns, err := apnstest.Start(apnstest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer apns.Close()
		if err := os.WriteFile(file, apns.ClientCertPEM(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	issue("one")
	c, err := newCertificate(file, file, quiet)
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		t.Helper()
		c.looked = time.Time{}
		got, err := c.get(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(got.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Subject.String()
	}
	if !strings.Contains(name(), "one") {
		t.Errorf("at first %s", name())
	}
	if err := os.WriteFile(file, []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(name(), "one") || !c.failed {
		t.Errorf("after a bad one %s", name())
	}
	issue("two-is-longer")
	if !strings.Contains(name(), "two-is-longer") || c.failed {
		t.Errorf("renewed: %s", name())
	}
}

// TLS, with HTTP/2.
func TestTLS(t *testing.T) {
	t.Parallel()
	apns, err := apnstest.Start(apnstest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer apns.Close()
	file := filepath.Join(t.TempDir(), "c.pem")
	if err := os.WriteFile(file, apns.ClientCertPEM("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0", TLSCert: file, TLSKey: file}, New(new(fakeTree), Options{}).Network())
	client := newClient(t)
	tr := client.Transport.(*http.Transport)
	tr.ForceAttemptHTTP2, tr.TLSClientConfig = true, &tls.Config{InsecureSkipVerify: true} // its name is no host's
	resp, err := client.Get("https://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("%+v", resp)
	}
}

// A panic ends its request only.
func TestPanic(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	api := New(panicTree{}, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	addr := serveWeb(t, Web{Listen: "127.0.0.1:0"}, api.Network())
	client := newClient(t)
	for _, want := range []int{500, 200} {
		path := map[int]string{500: "/v1/apps", 200: "/healthz"}[want]
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if !strings.Contains(log.String(), "panic") || !strings.Contains(log.String(), "web_test.go") {
		t.Errorf("log: %s", &log)
	}
}

type panicTree struct{ appTree }

func (panicTree) Status() (out []supervisor.AppStatus) { panic("on purpose") }

func (panicTree) UnknownTubes() []supervisor.UnknownTube { return nil }
