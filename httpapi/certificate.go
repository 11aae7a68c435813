package httpapi

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"propeller/internal/files"
	"propeller/internal/keysize"
)

// certificate is a TLS certificate in files, read anew when they change.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex // held for moments only: every handshake takes it
	current *tls.Certificate
	looked  time.Time

	renewing sync.Mutex // held by who looks at the files; guards what follows
	stamp    [2]fileStamp
	failed   bool // the last reading, which has been logged
}

type fileStamp struct {
	changed time.Time
	size    int64
}

// maxCertificateFile bounds what is read of a file, in bytes.
const maxCertificateFile = 1 << 20

// lookEvery is how often the files are looked at while clients connect.
const lookEvery = 5 * time.Second

func newCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	if err := c.read(); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

// get is for tls.Config. A renewal that cannot be read leaves the certificate
// before in use. One handshake looks at the files, which may take its time: the
// others do not wait for it.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.due() && c.renewing.TryLock() {
		c.renew()
		c.renewing.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current, nil
}

// due reports whether the files are to be looked at, once.
func (c *certificate) due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.looked) < lookEvery {
		return false
	}
	c.looked = now
	return true
}

func (c *certificate) renew() {
	if stamp, err := c.stamps(); err == nil && stamp == c.stamp && !c.failed {
		return
	}
	switch err := c.read(); {
	case err == nil:
		c.failed = false
		c.log.Info("http: certificate renewed", "file", c.cert)
	case !c.failed:
		c.failed = true
		c.log.Error("http: the renewed certificate cannot be used; the one before stays", "err", err)
	}
}

func (c *certificate) read() error {
	stamp, err := c.stamps()
	if err != nil {
		return fmt.Errorf("http.tls_cert: %w", err)
	}
	var text [2][]byte
	for i, name := range []string{c.cert, c.key} {
		if text[i], err = files.Read(name, maxCertificateFile); err != nil {
			return fmt.Errorf("http.tls_cert, http.tls_key: %q: %w", name, err)
		}
	}
	pair, err := keysize.Pair(text[0], text[1])
	if err != nil {
		return fmt.Errorf("http.tls_cert %q: %w", c.cert, err)
	}
	c.stamp = stamp
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = &pair
	return nil
}

func (c *certificate) stamps() (out [2]fileStamp, err error) {
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return out, nil
}
