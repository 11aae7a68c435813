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
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/internal/heldport"
)

// app is one of the daemon's apps.
type app struct {
	topic, tube string
	feedback    string // its feedback tube; "": none, the log is the only record
	webhook     bool   // the daemon itself reads that tube
}

func apps() []app {
	return []app{
		{topic: "com.example.one", tube: "com.example.one", feedback: "one.records"},
		{topic: "com.example.two", tube: "com.example.two", feedback: "two.records"},
		{topic: "com.example.three", tube: "tube-of-three", feedback: "tube-of-three.feedback", webhook: true},
		{topic: "com.example.four", tube: "com.example.four"},
	}
}

// sleeperTopic begins the topics of the apps that mostly sleep. Their indexes follow those of
// the others. They have no feedback, so the log is their record.
const sleeperTopic = "com.example.sleeper."

// appAt is the app of an index.
func appAt(i int) app {
	if busy := apps(); i < len(busy) {
		return busy[i]
	}
	topic := sleeperTopic + strconv.Itoa(i)
	return app{topic: topic, tube: topic}
}

// allApps are the busy apps and the sleepers, n together.
func allApps(n int) []app {
	all := apps()
	for i := len(all); i < n; i++ {
		all = append(all, appAt(i))
	}
	return all
}

// appOf is the index of a topic's app.
func appOf(topic string) (int, bool) {
	i := slices.IndexFunc(apps(), func(a app) bool { return a.topic == topic })
	if number, ok := strings.CutPrefix(topic, sleeperTopic); ok {
		var err error
		if i, err = strconv.Atoi(number); err != nil || i < len(apps()) {
			return -1, false
		}
	}
	return i, i >= 0
}

// tubes are those of some apps.
func tubes(of []app) []string {
	var out []string
	for _, a := range of {
		out = append(out, a.tube)
		if a.feedback != "" {
			out = append(out, a.feedback)
		}
	}
	return out
}

// site is the folder of a run, and what is fixed in it.
type site struct {
	dir       string
	apps      int // the busy ones and the sleepers
	apnsAddr  string
	wrongAddr string // where every device token is of another environment
	hookAddr  string // of the webhook's receiver
	ports     []*heldport.Port
	propeller string // the binary
	queueURL  string // for the configuration
	disk      *disk  // of the embedded queue; nil if there is none
	issuer    *apnstest.Server
	began     time.Time

	// Streams are not removed while buried jobs are kicked: what would be removed is read before.
	kicks sync.Mutex

	mu       sync.Mutex
	history  *os.File // what the hands did, for people and stories
	troubles []span
}

// span is a time in which something was wrong.
type span struct {
	what     string
	from, to time.Time // to is zero while it lasts
}

// meets says whether s has a moment in common with from … to.
func (s span) meets(from, to time.Time) bool {
	return !s.from.After(to) && (s.to.IsZero() || !s.to.Before(from))
}

func newSite(ctx context.Context, o options) (*site, error) {
	dir, err := os.MkdirTemp("", "propeller-chaos-")
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir, apps: o.apps, began: time.Now()}
	if s.history, err = os.Create(s.path("history.log")); err != nil {
		return s, err
	}
	if o.bin != "" {
		s.propeller, err = filepath.Abs(o.bin)
	} else {
		s.propeller, err = build(ctx, dir, o.race)
	}
	if err != nil {
		return s, err
	}
	for _, addr := range []*string{&s.apnsAddr, &s.wrongAddr, &s.hookAddr} {
		if *addr, err = s.freeAddr(); err != nil {
			return s, err
		}
	}
	if err := s.serverCertificate(); err != nil {
		return s, err
	}
	// Client certificates come from a stand-in that nobody dials: those of the
	// APNs process change their authority whenever it starts.
	if s.issuer, err = apnstest.Start(apnstest.Options{Record: -1}); err != nil {
		return s, err
	}
	for _, a := range allApps(s.apps) {
		if err := s.renew(a.topic); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *site) close() {
	for _, p := range s.ports {
		p.Close()
	}
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

// trouble notes that something is wrong from now on, until over is called: it
// may have records and pushes repeated.
func (s *site) trouble(what string) (over func()) {
	s.note("%s", what)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := len(s.troubles)
	s.troubles = append(s.troubles, span{what: what, from: time.Now()})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.troubles[i].to = time.Now()
	}
}

// diskFull says whether the queue's disk was full at any time since from.
func (s *site) diskFull(from time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.troubles, func(t span) bool {
		return strings.HasPrefix(t.what, diskFullTrouble) && t.meets(from, time.Now())
	})
}

// troubled is trouble afterwards.
func (s *site) troubled(t span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles = append(s.troubles, t)
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

// build builds the daemon's binary in a folder.
func build(ctx context.Context, dir string, race bool) (bin string, err error) {
	bin = filepath.Join(dir, "propeller")
	args := []string{"build", "-o", bin}
	if race {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "propeller/cmd/propeller")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	return bin, nil
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

// freeAddr takes a loopback port for a server that goes away and comes back, and keeps
// it from others until close.
func (s *site) freeAddr() (string, error) {
	p, err := heldport.New()
	if err != nil {
		return "", err
	}
	s.ports = append(s.ports, p)
	return p.Addr(), nil
}
