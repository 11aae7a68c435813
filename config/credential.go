package config

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/keysize"
	"propeller/internal/pemfile"
)

// loadCredential loads the app's certificate or key, of which it must give one.
func (p *parser) loadCredential(d *draft) {
	cert, key := d.has("cert"), d.has("key")
	switch {
	case cert && key:
		p.misplaced(d.at("key"), errors.New("is given beside a cert: an app uses one of them, remove the other"))
		return
	case cert:
		p.loadCertificate(d)
	case key:
		p.loadKey(d)
	case !d.Mock() && !d.bad["server"]:
		mock := "server: mock"
		if d.path == flagPath {
			mock = "--server mock"
		}
		p.misplaced(d.at("cert"), fmt.Errorf("no credential: give the .pem or .p12 of the app's APNs certificate, or a .p8 key by %s, %s and %s, or %s to try without Apple",
			d.name("key"), d.name("key_id"), d.name("team_id"), mock))
		return
	}
	if !cert {
		p.orphans(d, "a cert", certKeys)
	}
	if !key {
		p.orphans(d, "a key", keyKeys)
	}
}

// The keys of the two kinds of credential, never written to; the first is the
// one that the others belong to.
var (
	certKeys = []string{"cert", "cert_key", "cert_password", "cert_password" + fileSuffix}
	keyKeys  = []string{"key", "key_id", "team_id"}
)

// ofCredential reports whether a key is part of a credential.
func ofCredential(key string) bool {
	return slices.Contains(certKeys, key) || slices.Contains(keyKeys, key)
}

// orphans finds keys that belong to a credential which is not given.
func (p *parser) orphans(d *draft, to string, keys []string) {
	for _, key := range keys {
		e, ok := d.layer[key]
		if ok && !e.broken && !strings.HasPrefix(e.key, "defaults.") { // defaults may serve other apps
			p.misplaced(e, fmt.Errorf("belongs to %s, and there is none: remove it", to))
		}
	}
}

// loadKey loads the app's key for provider tokens.
func (p *parser) loadKey(d *draft) {
	file := d.Key
	readable := !d.bad["key"] && p.readable(d, "key")
	if !readable {
		file = "" // which no file is called: only the faults of the ids are of interest
	}
	key, err := inTime(p.patience, func() (*apnsconn.Key, error) { return apnsconn.LoadKey(file, d.KeyID, d.TeamID) })
	for _, err := range split(err) {
		var ke *apnsconn.KeyError
		if !errors.As(err, &ke) {
			p.wrong(d.at("key"), err)
			continue
		}
		if !d.bad[ke.Field] && (ke.Field != "key" || readable) {
			p.wrong(d.at(ke.Field), errCause{ke.Why, err})
		}
	}
	if err != nil {
		return
	}
	d.SigningKey = key
	if id, ok := keyIDInName(d.Key); ok && id != key.ID {
		d.Warnings = append(d.Warnings, fmt.Sprintf(
			"key_id is %s, and the file's name says %s: APNs refuses a key with another one's id", key.ID, id))
	}
}

// keyIDInName takes the key id out of the name that Apple gives the file:
// AuthKey_ABC123DEFG.p8.
func keyIDInName(path string) (id string, ok bool) {
	name, ok := strings.CutPrefix(filepath.Base(path), "AuthKey_")
	id = strings.TrimSuffix(name, ".p8")
	return id, ok && len(id) == 10 && id != name
}

// loadCertificate loads the app's certificate and checks it against topic,
// server and clock. An app of the stand-in may go without one, and with one
// that Apple would not take.
func (p *parser) loadCertificate(d *draft) {
	// Each is looked at, so that a bad password does not hide a missing file.
	ready := !d.bad["cert_password"]
	for _, key := range []string{"cert", "cert_key"} {
		ready = !d.bad[key] && p.readable(d, key) && ready
	}
	if !ready {
		return
	}
	certFile, keyFile, password := d.Cert, d.CertKey, d.CertPassword.Reveal()
	cert, err := inTime(p.patience, func() (*apnsconn.Certificate, error) {
		return apnsconn.LoadCertificate(certFile, keyFile, password)
	})
	if err != nil {
		at, why := d.blame(err)
		if password == "" && errors.Is(err, apnsconn.ErrPassword) {
			why = errCause{fmt.Sprintf("%v: give %s or %s", why, d.name("cert_password"), d.name("cert_password"+fileSuffix)), err}
		}
		p.wrong(at, why)
		return
	}
	d.found = cert
	if d.bad["topic"] || d.bad["server"] {
		return
	}
	cert, choice := cert.For(d.Topic, d.Env, p.now)
	if d.found = cert; choice != "" {
		d.Warnings = append(d.Warnings, choice)
	}
	warnings, err := cert.Check(d.Topic, d.Env, p.now)
	if err == nil || d.Mock() {
		d.Certificate = cert
	}
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

// readable reports whether the file of a key can be read, if the key is given.
func (p *parser) readable(d *draft, key string) bool {
	e, ok := d.layer[key]
	if !ok {
		return true
	}
	path := map[string]string{"cert": d.Cert, "cert_key": d.CertKey, "key": d.Key}[key]
	if _, err := inTime(p.patience, func() ([]byte, error) { return readFile(path, maxFile) }); err != nil {
		p.wrong(e, p.hint(e.text, err))
		return false
	}
	return true
}

// credentialTime is how long one credential may take to be read and decrypted. What
// a file may ask for takes some seconds; a disk may not answer at all.
const credentialTime = 30 * time.Second

// inTime does f, which reads files, and waits for it no longer than limit: other apps'
// credentials come next. What takes longer is left to end by itself.
func inTime[T any](limit time.Duration, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
		var none T
		return none, fmt.Errorf("takes longer than %s to read and decrypt: ask for fewer rounds of key derivation, or look at the disk", limit)
	}
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
	if err := keysize.Roots(pool, data); err != nil {
		p.wrong(e, errCause{pemfile.InFile(err.Error(), d.CAFile), err})
		return
	}
	d.RootCAs, d.rootsHash = pool, sha256.Sum256(data)
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
