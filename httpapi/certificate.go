package httpapi

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is a TLS certificate in files, read anew when they change.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]fileStamp
	looked  time.Time
	failed  bool // the last reading, which has been logged
}

type fileStamp struct {
	changed time.Time
	size    int64
}

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
// before in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		c.renew()
	}
	return c.current, nil
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
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("http.tls_cert %q: %w", c.cert, err)
	}
	c.current, c.stamp = &pair, stamp
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
