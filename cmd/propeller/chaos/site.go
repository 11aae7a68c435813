package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"propeller/apnsconn/apnstest"
)

// app is one of the daemon's apps.
type app struct{ topic, tube string }

func apps() []app {
	return []app{
		{"com.example.one", "com.example.one"},
		{"com.example.two", "com.example.two"},
		{"com.example.three", "tube-of-three"},
		{"com.example.four", "com.example.four"},
	}
}

// site is the folder of a run, and what is fixed in it.
type site struct {
	dir                  string
	queueAddr, apnsAddr  string
	propeller, beanstalk string // binaries
	issuer               *apnstest.Server
	began                time.Time

	mu      sync.Mutex
	history *os.File // what the hands did, for people and stories
}

func newSite(ctx context.Context, race bool) (*site, error) {
	dir, err := os.MkdirTemp("", "propeller-chaos-")
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir, began: time.Now()}
	if s.history, err = os.Create(s.path("history.log")); err != nil {
		return s, err
	}
	if s.beanstalk, err = findBeanstalkd(); err != nil {
		return s, err
	}
	if err := s.build(ctx, race); err != nil {
		return s, err
	}
	if s.queueAddr, err = freeAddr(); err != nil {
		return s, err
	}
	if s.apnsAddr, err = freeAddr(); err != nil {
		return s, err
	}
	if err := os.Mkdir(s.path("binlog"), 0o700); err != nil {
		return s, err
	}
	if err := s.serverCertificate(); err != nil {
		return s, err
	}
	// Client certificates come from a stand-in that nobody dials: those of the
	// APNs process change their authority whenever it starts.
	if s.issuer, err = apnstest.Start(apnstest.Options{Record: -1}); err != nil {
		return s, err
	}
	for _, a := range apps() {
		if err := s.renew(a.topic); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *site) close() {
	if s.issuer != nil {
		s.issuer.Close()
	}
	if s.history != nil {
		s.history.Close()
	}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// note writes a line into the history.
func (s *site) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.history, "%s %s\n", time.Now().Format(time.RFC3339Nano), fmt.Sprintf(format, args...))
}

// write replaces a file at once, so that the daemon never reads half of one.
func (s *site) write(name string, data []byte) error {
	part := s.path(name + ".part")
	if err := os.WriteFile(part, data, 0o600); err != nil {
		return err
	}
	return os.Rename(part, s.path(name))
}

// renew puts a new certificate in the place of an app's old one.
func (s *site) renew(topic string) error {
	return s.write(topic+".pem", s.issuer.ClientCertPEM(topic))
}

func (s *site) build(ctx context.Context, race bool) error {
	s.propeller = s.path("propeller")
	args := []string{"build", "-o", s.propeller}
	if race {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "propeller/cmd/propeller")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// serverCertificate makes the certificate of the APNs side, which outlives its
// processes and is its own authority.
func (s *site) serverCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "propeller chaos"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 7),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := s.write("apns.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return err
	}
	return s.write("apns.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// freeAddr finds a loopback port that nobody listens on, below the range that
// systems hand out by themselves: it must still be free after a pause.
func freeAddr() (string, error) {
	var err error
	for range 50 {
		var l net.Listener
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(15000+mathrand.IntN(17000)))
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", fmt.Errorf("no free port: %w", err)
}
