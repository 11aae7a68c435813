package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"propeller/apnsconn"
	"propeller/internal/neterr"
)

// loadCredential loads the app's certificate or key, of which it must give one.
func (p *parser) loadCredential(d *draft) {
	cert, key := d.has("cert"), d.has("key")
	switch {
	case cert && key:
		p.misplaced(d.at("key"), errors.New("given together with cert: an app uses only one of them; remove the other"))
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
		p.orphans(d, "cert", func(f *field) bool { return f.credential == "cert" })
	}
	if !key {
		p.orphans(d, "key", func(f *field) bool { return f.credential == "key" })
	}
}

// credentialOf is "cert" or "key" for a key, or KEY_file, of such a credential, else "".
func credentialOf(key string) string {
	if f := find(appFields, key); f != nil && f.ofCredential() {
		return f.credential
	}
	return ""
}

// orphans finds keys that do nothing without another one.
func (p *parser) orphans(d *draft, without string, belongs func(*field) bool) {
	var found []string
	for key, e := range d.layer {
		given := !e.broken && !strings.HasPrefix(e.key, "defaults.") // which may serve other apps
		if given && belongs(find(appFields, key)) {
			found = append(found, key)
		}
	}
	slices.Sort(found)
	for _, key := range found {
		p.misplaced(d.layer[key], fmt.Errorf("does nothing without %s: give that, or remove this", d.name(without)))
	}
}

// loadKey loads the app's key for provider tokens.
func (p *parser) loadKey(d *draft) {
	file := d.Key
	readable := !d.bad["key"] && p.readable(d, "key")
	if !readable {
		file = "" // which no file is called: only the faults of the ids are of interest
	}
	key, err := p.files.key(keyFile{file, d.KeyID, d.TeamID}, p.patience)
	for _, err := range split(err) {
		var ke *apnsconn.KeyError
		if !errors.As(err, &ke) {
			p.wrong(d.at("key"), err)
			continue
		}
		if !d.bad[ke.Field] && (ke.Field != "key" || readable) {
			p.wrong(d.at(ke.Field), neterr.Reworded(ke.Why, err))
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
	password := d.CertPassword.Reveal()
	cert, err := p.files.certificate(certFiles{d.Cert, d.CertKey, password}, p.patience)
	if err != nil {
		at, why := d.blame(err)
		if password == "" && errors.Is(err, apnsconn.ErrPassword) {
			why = neterr.Reworded(fmt.Sprintf("%v: give %s or %s", why, d.name("cert_password"), d.name("cert_password"+fileSuffix)), err)
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
	if err := p.files.readable(path, p.patience); err != nil {
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
	found, err := p.files.roots(d.CAFile)
	if err != nil {
		e := d.at("ca_file")
		p.wrong(e, p.hint(e.text, err))
		return
	}
	d.RootCAs, d.rootsHash = found.pool, found.hash
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
	return d.at(key), neterr.Reworded(ce.Why, err)
}

// Broken reports whether the app has no credential that it could use, because of its
// Faults.
func (a *App) Broken() bool {
	return len(a.Faults) > 0 && a.Certificate == nil && a.SigningKey == nil
}

// Fault says in one line what is wrong with the credential, without the place in the
// file; "" if nothing is.
func (a *App) Fault() string {
	texts := make([]string, len(a.Faults))
	for i, f := range a.Faults {
		f.File = ""
		if _, key, ok := strings.Cut(f.Key, "]."); ok { // apps[3].cert
			f.Key = key
		}
		texts[i] = f.Error()
	}
	return strings.Join(texts, "; ")
}

// CredentialExpiry is when the certificate expires, or has: also one that cannot be
// used. Zero without one.
func (a *App) CredentialExpiry() time.Time {
	switch {
	case a.Certificate != nil:
		return a.Certificate.NotAfter
	case a.found != nil:
		return a.found.NotAfter
	}
	return time.Time{}
}

// Keep returns a with the credential of the app that runs in its place, if a is broken
// and that credential is for the same topic at the same server: an app that works goes
// on working whatever has become of its files. Elsewhere APNs could take the credential
// for another environment's, and tokens for dead.
func (a *App) Keep(running *App) App {
	out := *a
	if a.Broken() && a.Topic == running.Topic && a.Server == running.Server && a.Addr == running.Addr {
		out.Certificate, out.SigningKey = running.Certificate, running.SigningKey
	}
	return out
}
