package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"propeller/internal/text"
)

// check measures `propeller check` of all apps with one key.
func (r *appsRig) check(ctx context.Context) error {
	took, err := r.checkTakes(ctx, r.config(r.p.apps, change{}))
	if err != nil {
		return err
	}
	r.judged(fmt.Sprintf("check of %s with one .p8", text.Plural(r.p.apps, "app")), seconds(took), "≤ 2 s", took <= 2*time.Second)
	return nil
}

// checkCerts measures it of apps that each have a .p12 file.
func (r *appsRig) checkCerts(ctx context.Context) error {
	const password = "the password of a rig"
	var b strings.Builder
	fmt.Fprintf(&b, "defaults: {server: \"https://%s\", ca_file: apns.pem, cert_password: %s}\napps:\n", r.arrivals.apns.Addr(), password)
	// One key for all: making one takes longer than reading it.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	for i := range r.p.certs {
		file, err := newP12(topic(i), key, password)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d.p12", i)
		if err := os.WriteFile(r.d.path(name), file, 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&b, "  - {topic: %s, cert: %s}\n", topic(i), name)
	}
	took, err := r.checkTakes(ctx, b.String())
	if err != nil {
		return err
	}
	r.judged(fmt.Sprintf("check of %s, each with a .p12 of its own", text.Plural(r.p.certs, "app")), seconds(took), "≤ 10 s", took <= 10*time.Second)
	return nil
}

func (r *appsRig) checkTakes(ctx context.Context, config string) (time.Duration, error) {
	if err := r.d.configure(config); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, daemonTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.bin, "check", "-c", r.d.path(configFile))
	cmd.SysProcAttr = child()
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begun)
	if err != nil {
		return 0, fmt.Errorf("propeller check: %w: %.300s", err, bytes.TrimSpace(out))
	}
	return took, nil
}

// newP8 makes a key for provider tokens.
func newP8() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// oidUserID is where Apple's push certificates have their topic (RFC 4519).
var oidUserID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}

// newP12 makes a push certificate for a topic, as the keychain of macOS exports it.
func newP12(topic string, key *rsa.PrivateKey, password string) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject: pkix.Name{CommonName: "Apple Push Services: " + topic,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidUserID, Value: topic}}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return pkcs12.LegacyDES.Encode(key, cert, nil, password)
}

// reload measures reloads that change one app, and all.
func (r *appsRig) reload(ctx context.Context) error {
	for _, c := range []struct {
		what   string
		change change
		most   time.Duration
	}{
		{"one app", change{one: ", in_flight: 400"}, time.Second},
		{"all apps", change{all: ", in_flight: 300"}, 10 * time.Second},
	} {
		if err := r.settle(ctx, min(r.p.settle, 10*time.Second)); err != nil {
			return err
		}
		if err := r.d.configure(r.config(r.p.apps, c.change)); err != nil {
			return err
		}
		begun := time.Now()
		if _, err := r.d.must(ctx, http.MethodPost, "/v1/reload", "", nil); err != nil {
			return err
		}
		took := time.Since(begun)
		r.judged("reload that changes "+c.what, seconds(took), fmt.Sprintf("≤ %v", c.most), took <= c.most)
		from := r.arrivals.begin()
		for _, app := range []int{0, r.p.apps - 1} {
			if err := r.put(ctx, app); err != nil {
				return err
			}
		}
		if _, err := r.arrivals.wait(ctx, overtime); err != nil {
			return err
		}
		r.row("a push after it", r.arrivals.delays(from).String())
	}
	return nil
}

// metrics measures a scrape.
func (r *appsRig) metrics(ctx context.Context) error {
	took, size, err := r.scrape(ctx)
	if err != nil {
		return err
	}
	r.row("scrape of all apps", fmt.Sprintf("%v, %.1f MiB", took.Round(time.Millisecond), size))
	return nil
}

// scrapes is how often /metrics is read: the slowest counts.
const scrapes = 3

func (r *appsRig) scrape(ctx context.Context) (took time.Duration, mib float64, err error) {
	for range scrapes {
		begun := time.Now()
		text, err := r.d.must(ctx, http.MethodGet, "/metrics", "", nil)
		if err != nil {
			return 0, 0, err
		}
		took, mib = max(took, time.Since(begun)), float64(len(text))/(1<<20)
	}
	return took, mib, nil
}

// unused measures a scrape of a daemon that leaves out the apps that have had no push.
func (r *appsRig) unused(ctx context.Context) error {
	if r.d.cmd != nil {
		return fmt.Errorf("the daemon with the usual metrics still runs")
	}
	if err := r.launch(ctx, change{daemon: "metrics: {unused_apps: false}\n"}); err != nil {
		return err
	}
	r.arrivals.begin()
	var apps []int
	for app := range r.p.burst {
		apps = append(apps, app)
	}
	if err := r.putAtOnce(ctx, apps); err != nil {
		return err
	}
	if _, err := r.arrivals.wait(ctx, r.p.settle); err != nil {
		return err
	}
	took, size, err := r.scrape(ctx)
	if err != nil {
		return err
	}
	r.judged(fmt.Sprintf("scrape without unused apps, %d used", r.p.burst), fmt.Sprintf("%v, %.1f MiB", took.Round(time.Millisecond), size),
		"≤ 1 s and ≤ 20 MiB", took <= time.Second && size <= 20)
	_, err = r.d.stop()
	return err
}
