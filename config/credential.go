package config

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"propeller/apnsconn"
)

// loadCertificate loads the app's certificate and checks it against topic,
// server and clock. An app of the stand-in may go without one, and with one
// that Apple would not take.
func (p *parser) loadCertificate(d *draft) {
	if !d.has("cert") {
		p.checkNoCertificate(d)
		return
	}
	if d.bad["cert"] || d.bad["cert_key"] || d.bad["cert_password"] || !p.readable(d, "cert") || !p.readable(d, "cert_key") {
		return
	}
	cert, err := apnsconn.LoadCertificate(d.Cert, d.CertKey, d.CertPassword.Reveal())
	if err != nil {
		at, err := d.blame(err)
		p.wrong(at, err)
		return
	}
	d.Certificate = cert
	if d.bad["topic"] || d.bad["server"] {
		return
	}
	warnings, err := cert.Check(d.Topic, d.Env, p.now)
	for _, w := range warnings {
		d.Warnings = append(d.Warnings, oneLine(w))
	}
	for _, err := range split(err) {
		at, err := d.blame(err)
		if d.Mock() {
			d.Warnings = append(d.Warnings, "the certificate "+oneLine(err.Error())+" (server: mock takes it all the same)")
			continue
		}
		p.wrong(at, err)
	}
}

// checkNoCertificate is for an app that gives none.
func (p *parser) checkNoCertificate(d *draft) {
	if !d.Mock() && !d.bad["server"] {
		p.wrong(d.at("cert"), errors.New("no credential: give the .pem or .p12 of the app's APNs certificate, or server: mock to try without Apple"))
		return
	}
	for _, key := range []string{"cert_key", "cert_password", "cert_password" + fileSuffix} {
		e, ok := d.layer[key]
		if ok && !e.broken && !strings.HasPrefix(e.key, "defaults.") { // defaults may serve other apps
			p.wrong(e, errors.New("belongs to a cert, and there is none: remove it"))
		}
	}
}

// readable reports whether the file of a key can be read, if the key is given.
func (p *parser) readable(d *draft, key string) bool {
	e, ok := d.layer[key]
	if !ok {
		return true
	}
	path := map[string]string{"cert": d.Cert, "cert_key": d.CertKey}[key]
	if _, err := readFile(path, maxFile); err != nil {
		p.wrong(e, p.hint(e.text, err))
		return false
	}
	return true
}

// loadRoots makes the pool of the system's roots and those of ca_file.
func (p *parser) loadRoots(d *draft) {
	if !d.has("ca_file") || d.bad["ca_file"] {
		return
	}
	e := d.at("ca_file")
	data, err := readFile(d.CAFile, maxFile)
	if err != nil {
		p.wrong(e, p.hint(e.text, err))
		return
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		// A machine without roots of its own: those of the file must do.
		pool = x509.NewCertPool()
	}
	if err := addRoots(pool, data); err != nil {
		p.wrong(e, err)
		return
	}
	d.RootCAs, d.rootsHash = pool, sha256.Sum256(data)
}

// addRoots adds the certificates of a PEM file. x509's own AppendCertsFromPEM
// passes over what it cannot read; a root that is silently missing is found
// out at the first push only.
func addRoots(pool *x509.CertPool, data []byte) error {
	n := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		n++
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("its PEM block %d is no certificate: ca_file holds roots only", n)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return errCause{fmt.Sprintf("its certificate %d cannot be parsed", n), err}
		}
		pool.AddCert(cert)
	}
	if n == 0 {
		return errors.New("holds no certificate: it must be a .pem with CERTIFICATE blocks")
	}
	return nil
}

// split returns the parts of an error that was made by errors.Join.
func split(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		return joined.Unwrap()
	}
	return []error{err}
}

// blame returns which key an error of a certificate is about, and the error
// without the file's path, which the fault shows as the configuration has it.
func (d *draft) blame(err error) (entry, error) {
	var ce *apnsconn.CertificateError
	if !errors.As(err, &ce) {
		return d.at("cert"), err
	}
	key := "cert"
	if d.has("cert_key") && ce.File == d.CertKey && d.CertKey != d.Cert {
		key = "cert_key"
	}
	return d.at(key), errCause{ce.Why, err}
}
