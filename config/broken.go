package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

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

// SameCredential reports whether both use the same credential.
func (a *App) SameCredential(other *App) bool {
	return sameCertificate(a.Certificate, other.Certificate) && a.SigningKey.Same(other.SigningKey)
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
	maps.DeleteFunc(s.layer, func(key string, _ entry) bool { return !ofCredential(key) })
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
	var fields []field[App]
	for _, f := range appFields() {
		if ofCredential(f.key) {
			fields = append(fields, f)
		}
	}
	p := s.parser
	d.bad = assign(&p, d.layer, fields, &d.App)
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
			path, err = expand(path, s.getenv)
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
