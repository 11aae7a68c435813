package apnsconn

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unique"

	"propeller/internal/keysize"
	"propeller/internal/pemfile"
)

// Certificate is a client certificate with its private key, and what it says about itself. It
// does not change once loaded. Printed in any way, it shows only its file, UID and expiry, never
// the key.
type Certificate struct {
	File        string            // where it was read from
	UID         string            // the subject's user id: the bundle id, or the MDM topic; "" if it has none
	Topics      []string          // the topics that Apple listed in it; nil for none
	Production  bool              // Apple issued it for production
	Sandbox     bool              // Apple issued it for the sandbox
	VoIP        bool              // Apple issued it for VoIP services
	Apple       bool              // it has Apple's marks of a push certificate
	NotBefore   time.Time         // from when it is valid
	NotAfter    time.Time         // when it expires
	Fingerprint [sha256.Size]byte // SHA-256 of the leaf: it changes with a renewal

	der    *certificateDER
	serial string         // the leaf's number, hexadecimal, its beginning
	all    []*Certificate // all certificates of the file with a key, this one included
}

// CertificateError says what is wrong with a certificate or with its files. It never holds a
// password or key.
type CertificateError struct {
	File string // as given to LoadCertificate
	Why  string // what is wrong, and what to do if that is known
	Err  error  // the cause, such as ErrPassword or fs.ErrNotExist; nil for none
}

func (e *CertificateError) Error() string {
	return fmt.Sprintf("apnsconn: certificate %q: %s", e.File, e.Why)
}

// Unwrap returns the cause, or nil.
func (e *CertificateError) Unwrap() error { return e.Err }

// ErrPassword is wrapped by LoadCertificate's error when the password is wrong, or is needed and
// was not given.
var ErrPassword = errors.New("password wrong or missing")

// LoadCertificate reads a client certificate and its private key.
//
// certFile is PEM or DER, with the key in the same file or in keyFile; or PKCS#12 (.p12, .pfx) as
// Keychain Access and all versions of OpenSSL write it, and then keyFile must be "". The form is
// recognized by content, not by name; package pemfile says which damage it repairs. The password
// opens what is encrypted: the PKCS#12 file, or the key in a PEM file (PKCS#8 with PBES2, or the
// old Proc-Type headers). It is ignored if nothing is encrypted.
//
// The certificate is the first one in the file that belongs to a key; For chooses another one.
// Certificates of other keys are sent along as its chain, in their order. A file may have up to
// 1 MiB.
//
// The error is a *CertificateError. Check says whether the certificate fits a topic.
func LoadCertificate(certFile, keyFile, password string) (*Certificate, error) {
	b, err := readBundle(certFile, password, keyFile == "")
	if err != nil {
		return nil, inFile(certFile, err)
	}
	if b.pkcs12 && keyFile != "" {
		return nil, inFile(certFile, errors.New("is a PKCS#12 file, which has its key inside: do not give a key file as well"))
	}
	if len(b.certs) == 0 {
		return nil, inFile(certFile, errors.New(uselessCert(&b)))
	}
	keys := b.keys
	if keyFile != "" {
		k, err := readBundle(keyFile, password, true)
		if err != nil {
			return nil, inFile(keyFile, err)
		}
		if keys = k.keys; len(keys) == 0 {
			return nil, inFile(keyFile, errors.New("holds no private key: give the key that the certificate's signing request was made with"))
		}
	}
	if len(keys) == 0 {
		return nil, inFile(certFile, errors.New("holds a certificate but no private key: export both together from Keychain Access as .p12, or give the key's file as cert_key"))
	}
	pairs := match(b.certs, keys)
	if len(pairs) == 0 {
		return nil, inFile(certFile, mismatch(b.certs, keys))
	}
	all := make([]*Certificate, len(pairs))
	for i, p := range pairs {
		if all[i], err = newCertificate(certFile, b.certs, p); err != nil {
			return nil, inFile(cmp.Or(keyFile, certFile), err)
		}
		all[i].all = all
	}
	return all[0], nil
}

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// match returns the certificates that belong to one of the keys.
func match(certs []*x509.Certificate, keys []crypto.Signer) (pairs []pair) {
	for _, cert := range certs {
		for _, key := range keys {
			if belongs(cert, key.Public()) && !slices.ContainsFunc(pairs, func(p pair) bool { return p.cert.Equal(cert) }) {
				pairs = append(pairs, pair{cert, key})
			}
		}
	}
	return pairs
}

func belongs(cert *x509.Certificate, key crypto.PublicKey) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key)
}

// mismatch is the error for keys of which none belongs to a certificate.
func mismatch(certs []*x509.Certificate, keys []crypto.Signer) error {
	kinds := ""
	if theirs, ours := certs[0].PublicKeyAlgorithm.String(), keyKind(keys[0]); theirs != ours {
		kinds = " (the certificate is for " + theirs + ", the key is " + ours + ")"
	}
	return errors.New("the private key does not belong to the certificate" + kinds + ": give the key that its signing request was made with")
}

// keyKind is a key's kind in x509's words for certificates.
func keyKind(key crypto.Signer) string {
	switch key.(type) {
	case *rsa.PrivateKey:
		return x509.RSA.String()
	case *ecdsa.PrivateKey:
		return x509.ECDSA.String()
	}
	return x509.Ed25519.String()
}

func newCertificate(file string, certs []*x509.Certificate, own pair) (*Certificate, error) {
	cert := own.cert
	key, err := x509.MarshalPKCS8PrivateKey(own.key)
	if err != nil {
		return nil, cause{"its private key cannot be encoded", err}
	}
	der := &certificateDER{leaf: bytes.Clone(cert.Raw), key: key}
	for _, other := range certs {
		if !belongs(other, own.key.Public()) {
			der.chain = append(der.chain, unique.Make(string(other.Raw)))
		}
	}
	c := &Certificate{
		File:        file,
		NotBefore:   cert.NotBefore,
		NotAfter:    cert.NotAfter,
		Fingerprint: sha256.Sum256(cert.Raw),
		der:         der,
		serial:      fmt.Sprintf("%.40s", cert.SerialNumber.Text(16)),
	}
	c.readApple(cert)
	return c, nil
}

// certificateDER is what goes over the wire, and the key that signs there. Parsed they take four
// times the memory. A pointer leads to it because fmt does not call methods on unexported fields:
// of a Certificate in somebody's unexported field it shows an address, not the key.
type certificateDER struct {
	leaf  []byte
	chain []unique.Handle[string] // the other certificates of the file, which many apps have in common
	key   []byte                  // PKCS#8
}

// TLS returns the certificate for Config.Certificate: the leaf, the other certificates of the
// file, the key. They are parsed by each call, since a Certificate that nobody uses should cost
// little memory.
func (c *Certificate) TLS() (tls.Certificate, error) {
	leaf, err := x509.ParseCertificate(c.der.leaf)
	if err != nil {
		return tls.Certificate{}, inFile(c.File, cause{"its certificate cannot be parsed", err})
	}
	key, err := x509.ParsePKCS8PrivateKey(c.der.key)
	if err != nil {
		return tls.Certificate{}, inFile(c.File, cause{"its private key cannot be parsed", err})
	}
	raw := [][]byte{leaf.Raw}
	for _, other := range c.der.chain {
		raw = append(raw, []byte(other.Value()))
	}
	return tls.Certificate{Certificate: raw, PrivateKey: key, Leaf: leaf}, nil
}

// Same reports whether both go over the wire the same: the leaf stands for its key, and a
// renewed intermediate is a difference too.
func (c *Certificate) Same(other *Certificate) bool {
	if c == nil || other == nil || c == other {
		return c == other
	}
	return c.Fingerprint == other.Fingerprint && slices.Equal(c.chain(), other.chain())
}

// chain is what goes over the wire after the leaf.
func (c *Certificate) chain() []unique.Handle[string] {
	if c.der == nil {
		return nil
	}
	return c.der.chain
}

// inFile turns err into a *CertificateError about the file.
func inFile(file string, err error) error {
	return &CertificateError{File: file, Why: keysize.Short(pemfile.InFile(err.Error(), file)), Err: errors.Unwrap(err)}
}

// String is one line for people: file, UID and expiry.
func (c Certificate) String() string {
	return fmt.Sprintf("certificate %q (UID %.*q, expires %s)", c.File, maxQuoted, c.UID, day(c.NotAfter))
}

// Format prints String for every verb, since the fields hold the private key.
func (c Certificate) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// MarshalText keeps the private key out of JSON and of log/slog.
func (c Certificate) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

// Object identifiers. Apple documents those for push in its WWDR certification practice
// statement.
var (
	oidUserID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1} // RFC 4519 §2.39

	// oidApplePush is the prefix of all extensions of push certificates.
	oidApplePush           = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3}
	oidApplePushSandbox    = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	oidApplePushProduction = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
	oidApplePushVoIPTopics = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 4}
	oidApplePushTopics     = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 6}
)

// readApple reads from the leaf what Apple writes into push certificates.
func (c *Certificate) readApple(leaf *x509.Certificate) {
	c.UID = userID(leaf)
	for _, ext := range leaf.Extensions {
		switch id := ext.Id; {
		case id.Equal(oidApplePushSandbox):
			c.Sandbox, c.Apple = true, true
		case id.Equal(oidApplePushProduction):
			c.Production, c.Apple = true, true
		case id.Equal(oidApplePushTopics):
			c.Topics, c.Apple = append(c.Topics, parseTopics(ext.Value)...), true
		case id.Equal(oidApplePushVoIPTopics):
			c.Topics, c.Apple, c.VoIP = append(c.Topics, parseTopics(ext.Value)...), true, true
		case len(id) > len(oidApplePush) && id[:len(oidApplePush)].Equal(oidApplePush):
			c.Apple = true
		}
	}
}

func userID(cert *x509.Certificate) string {
	for _, name := range cert.Subject.Names {
		if s, ok := name.Value.(string); ok && name.Type.Equal(oidUserID) {
			return s
		}
	}
	return ""
}

// parseTopics reads the topic list: a SEQUENCE in which a UTF8String, the topic, alternates with
// a SEQUENCE of UTF8Strings, its kinds (app, voip, complication). Anything else counts as an
// empty list.
func parseTopics(der []byte) []string {
	var items []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &items); err != nil || len(rest) > 0 {
		return nil
	}
	var topics []string
	for _, item := range items {
		if item.Class == asn1.ClassUniversal && item.Tag == asn1.TagUTF8String {
			topics = append(topics, string(item.Bytes))
		}
	}
	return topics
}
