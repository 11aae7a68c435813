package config

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	for _, key := range slices.Sorted(maps.Keys(d.layer)) {
		e := d.layer[key]
		given := !e.broken && !strings.HasPrefix(e.key, "defaults.") // which may serve other apps
		if f := find(appFields, key); given && belongs(f) {
			p.misplaced(e, fmt.Errorf("does nothing without %s: give that, or remove this", d.name(without)))
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
	certFile, keyFile, password := d.Cert, d.CertKey, d.CertPassword.Reveal()
	cert, err := inTime(p.patience, func() (*apnsconn.Certificate, error) {
		return apnsconn.LoadCertificate(certFile, keyFile, password)
	})
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
	pool, err := x509.SystemCertPool()
	if err != nil {
		// A machine without roots of its own: those of the file must do.
		pool = x509.NewCertPool()
	}
	data, err := addRoots(pool, d.CAFile)
	if err != nil {
		e := d.at("ca_file")
		p.wrong(e, p.hint(e.text, err))
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

// source is where an app's credential comes from, to be read again.
type source struct {
	parser        // its time is when it was read
	app    App    // without what reading the credential finds out
	layer  layer  // the keys of the credential
	stamp  string // of its files, before they were read
	path   string
	line   int
}

// credentialOf loads the credential of d, and keeps what it takes to do so again.
func (p *parser) credentialOf(d *draft) {
	s := &source{parser: *p, app: d.App, path: d.path, line: d.line, layer: maps.Clone(d.layer)}
	maps.DeleteFunc(s.layer, func(key string, _ entry) bool { return credentialOf(key) == "" })
	s.faults, s.credential, s.app.Faults = nil, nil, nil
	if len(s.layer) > 0 {
		d.source, s.stamp = s, s.stampOf(&d.App)
	}
	before := len(p.credential)
	p.loadCredential(d)
	d.Faults = append(d.Faults, p.credential[before:]...)
}

// Reread returns the app with its credential as its files have it at now. Nothing else
// is read.
func (a *App) Reread(now time.Time) App {
	if a.source == nil {
		return *a
	}
	s := *a.source
	s.now, s.stamp = now, s.stampOf(a)
	d := &draft{App: s.app, layer: s.layer, path: s.path, line: s.line}
	d.source = &s
	p := s.parser
	d.bad = p.assign(d.layer, appFields, &d.App) // of which the layer has those of the credential
	p.loadCredential(d)
	d.Faults = slices.Concat(p.faults, p.credential).sorted()
	return d.App
}

// Changed reports whether Reread might find another credential: a file was written, or
// may be read now, or the time has come from which the certificate is valid.
func (a *App) Changed(now time.Time) bool {
	if a.source == nil {
		return false
	}
	if a.found != nil {
		if a.source.now.Before(a.found.Leaf.NotBefore) && !now.Before(a.found.Leaf.NotBefore) {
			return true
		}
		if best, _ := a.found.For(a.Topic, a.Env, now); best != a.found { // of several in its file
			return true
		}
	}
	return a.source.stampOf(a) != a.source.stamp
}

// stampOf is another one when a file of the app's credential has changed.
func (s *source) stampOf(a *App) string {
	paths := []string{a.Cert, a.CertKey, a.Key}
	if e, ok := s.layer["cert_password"+fileSuffix]; ok {
		path, err := e.text, error(nil)
		if !e.flag {
			path, err = expand(path, s.Getenv)
		}
		if err == nil && path != "" {
			paths = append(paths, s.parser.path(path))
		}
	}
	var b strings.Builder
	for _, path := range paths {
		if path != "" {
			fmt.Fprintln(&b, path, stampOf(path))
		}
	}
	return b.String()
}

// stampOf says what can be seen of a file without reading it.
func stampOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return fileError(err).Error()
	}
	stamp := fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano())
	if !info.Mode().IsRegular() {
		return stamp
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // the rights to it are not all in its mode
	if err != nil {
		return stamp + fileError(err).Error()
	}
	_ = f.Close()
	return stamp
}
