package config

import (
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// source is where an app's credential comes from, to be read again. Each app has one, so it
// holds little of its own.
type source struct {
	*origin
	given    []given           // the keys of the credential
	stamp    [sha256.Size]byte // of its files, before they were read
	read     time.Time
	path     string
	line     int
	warnings int // of the app's, how many are not about the credential
}

// given is a key with its entry.
type given struct {
	key string
	entry
}

// credentialOf loads the credential of d, and keeps what it takes to do so again.
func (p *parser) credentialOf(d *draft) {
	if keys := p.credentialKeys(d.layer); len(keys) > 0 {
		d.source = &source{
			origin: p.origin, given: keys, read: p.now,
			path: d.path, line: d.line, warnings: len(d.Warnings),
		}
		d.source.stamp = d.source.stampOf(&d.App, p.files.stamp)
	}
	before := len(p.credential)
	p.loadCredential(d)
	d.Faults = append(d.Faults, p.credential[before:]...)
}

// credentialKeys returns the keys in l of a credential. Apps without any of their own share
// those of the defaults.
func (p *parser) credentialKeys(l layer) (keys []given) {
	n, own := 0, false
	for key, e := range l {
		if credentialOf(key) != "" {
			n++
			own = own || !strings.HasPrefix(e.key, "defaults.")
		}
	}
	if !own && len(p.files.shared) == n {
		return p.files.shared
	}
	keys = make([]given, 0, n)
	for key, e := range l {
		if credentialOf(key) != "" {
			keys = append(keys, given{key, e})
		}
	}
	if !own {
		p.files.shared = keys
	}
	return keys
}

// Reread returns the app with its credential as its files have it at now. Nothing else
// is read.
func (a *App) Reread(now time.Time) App {
	if a.source == nil {
		return *a
	}
	p, s := newParser(a.source.file, a.source.Options), *a.source
	p.now, s.read = now, now
	s.stamp = s.stampOf(a, p.files.stamp)
	d := &draft{App: *a, layer: layer{}, path: s.path, line: s.line}
	for _, g := range s.given {
		d.layer[g.key] = g.entry
	}
	d.source, d.Certificate, d.SigningKey, d.found = &s, nil, nil, nil
	d.Warnings = slices.Clone(a.Warnings[:s.warnings])
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
		if a.source.read.Before(a.found.NotBefore) && !now.Before(a.found.NotBefore) {
			return true
		}
		if best, _ := a.found.For(a.Topic, a.Env, now); best != a.found { // of several in its file
			return true
		}
	}
	return a.source.stampOf(a, stampOf) != a.source.stamp
}

// stampOf is another one when a file of the app's credential has changed. each is the stamp of
// one file.
func (s *source) stampOf(a *App, each func(path string) string) (all [sha256.Size]byte) {
	h := sha256.New()
	for _, path := range append([]string{a.Cert, a.CertKey, a.Key}, s.passwordFile()) {
		if path != "" {
			fmt.Fprintln(h, path, each(path))
		}
	}
	h.Sum(all[:0])
	return all
}

// passwordFile is the path that cert_password_file gives; "" for none.
func (s *source) passwordFile() string {
	for _, g := range s.given {
		if g.key != "cert_password"+fileSuffix {
			continue
		}
		text, err := g.text, error(nil)
		if !g.flag {
			text, err = expand(text, s.Getenv)
		}
		if err == nil && text != "" {
			return s.origin.path(text)
		}
	}
	return ""
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
