package httpapi

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

// Whatever is put in the place of the certificate's file, clients get the one before
// at once, and the next good one when it is there.
func TestCertificateFileIsSomethingElse(t *testing.T) {
	t.Parallel()
	apns, err := apnstest.Start(apnstest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer apns.Close()
	file := filepath.Join(t.TempDir(), "c.pem")
	write := func() {
		if err := os.WriteFile(file, apns.ClientCertPEM("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	c, err := newCertificate(file, file, quiet)
	if err != nil {
		t.Fatal(err)
	}
	first := c.current
	get := func() *tls.Certificate {
		t.Helper()
		c.mu.Lock()
		c.looked = time.Time{}
		c.mu.Unlock()
		out := make(chan *tls.Certificate, 1)
		go func() {
			got, _ := c.get(nil)
			out <- got
		}()
		select {
		case got := <-out:
			return got
		case <-time.After(10 * time.Second):
			t.Fatal("the handshake waits for the file")
			return nil
		}
	}
	for name, put := range map[string]func() error{
		"a pipe":   func() error { return syscall.Mkfifo(file, 0o600) },
		"a folder": func() error { return os.Mkdir(file, 0o700) },
		"a huge file": func() error {
			return os.WriteFile(file, append(apns.ClientCertPEM("y"), make([]byte, maxCertificateFile)...), 0o600)
		},
	} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if get() != first || !c.failed {
			t.Errorf("%s: another certificate, or not noticed: %v", name, c.failed)
		}
	}
	c.renewing.Lock() // somebody reads, and does not come back
	if get() != first {
		t.Error("another certificate while it is read")
	}
	c.renewing.Unlock()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	write()
	if got := get(); got == first || c.failed {
		t.Errorf("not healed: %v", c.failed)
	}
}
