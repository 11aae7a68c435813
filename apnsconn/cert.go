package apnsconn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"propeller/internal/keysize"
	"propeller/internal/pemfile"
)

// Certificate is a client certificate with its private key, and what it says
// about itself. It is not changed once loaded. However it is printed, only its
// file, UID and expiry show: never the key.
type Certificate struct {
	TLS         tls.Certificate   // for Config.Certificate: the leaf, the other certificates of the file, the key
	Leaf        *x509.Certificate // the certificate itself
	File        string            // where it was read from
	UID         string            // the subject's user id: the bundle id, or the MDM topic; "" if it has none
	Topics      []string          // the topics Apple listed in it; nil if it lists none
	Production  bool              // Apple issued it for production
	Sandbox     bool              // Apple issued it for the sandbox
	VoIP        bool              // Apple issued it for VoIP services
	Apple       bool              // it has Apple's marks of a push certificate
	NotAfter    time.Time         // when it expires
	Fingerprint [sha256.Size]byte // SHA-256 of the leaf: a renewed certificate has another

	all []*Certificate // the file's, itself among them: it may have several for a key
}

// CertificateError says what is wrong with a certificate, or with the files it
// was to be read from. It never holds a password or key.
type CertificateError struct {
	File string // as given to LoadCertificate
	Why  string // what is wrong, and what to do if that is known
	Err  error  // the cause, if there is one to unwrap: ErrPassword, fs.ErrNotExist …
}

func (e *CertificateError) Error() string {
	return fmt.Sprintf("apnsconn: certificate %q: %s", e.File, e.Why)
}

// Unwrap returns the cause, or nil.
func (e *CertificateError) Unwrap() error { return e.Err }

// ErrPassword is wrapped by LoadCertificate's error when the password is wrong
// or was needed and not given.
var ErrPassword = errors.New("password wrong or missing")

// LoadCertificate reads a client certificate and its private key.
//
// certFile is either PEM or DER, with the key in it as well or in keyFile, or PKCS#12
// (.p12, .pfx) as Keychain Access and all versions of OpenSSL write it; then
// keyFile must be "". The form is told by the content, not by the name; package
// pemfile says what else is undone. The
// password opens what is encrypted: the PKCS#12 file, or the key in a PEM file
// (PKCS#8 with PBES2, or the old Proc-Type headers); it is ignored by files
// that are not.
//
// The certificate is the first one that belongs to a key, wherever it stands in the
// file; For chooses another of them. Certificates of other keys are sent along as its
// chain, in their order. A file may have up to 1 MiB.
//
// The error is a *CertificateError. Whether the certificate is fit for a topic
// is for Check to say.
func LoadCertificate(certFile, keyFile, password string) (*Certificate, error) {
	b, err := readBundle(certFile, password, keyFile == "")
	if err != nil {
		return nil, inFile(certFile, err)
	}
	if b.pkcs12 && keyFile != "" {
		return nil, inFile(certFile, errors.New("is a PKCS#12 file, which has its key inside: give no key file beside it"))
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
		all[i] = newCertificate(certFile, b.certs, p)
		all[i].all = all
	}
	return all[0], nil
}

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// match finds the certificates that one of the keys belongs to.
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

// mismatch is the error of keys that belong to none of the certificates.
func mismatch(certs []*x509.Certificate, keys []crypto.Signer) error {
	kinds := ""
	if theirs, ours := certs[0].PublicKeyAlgorithm.String(), keyKind(keys[0]); theirs != ours {
		kinds = " (the certificate is for " + theirs + ", the key is " + ours + ")"
	}
	return errors.New("the private key does not belong to the certificate" + kinds + ": give the key that its signing request was made with")
}

// keyKind is a key's kind in the words that x509 has for that of a certificate.
func keyKind(key crypto.Signer) string {
	switch key.(type) {
	case *rsa.PrivateKey:
		return x509.RSA.String()
	case *ecdsa.PrivateKey:
		return x509.ECDSA.String()
	}
	return x509.Ed25519.String()
}

func newCertificate(file string, certs []*x509.Certificate, own pair) *Certificate {
	cert := own.cert
	raw := [][]byte{cert.Raw}
	for _, other := range certs {
		if !belongs(other, own.key.Public()) {
			raw = append(raw, other.Raw)
		}
	}
	c := &Certificate{
		TLS:         tls.Certificate{Certificate: raw, PrivateKey: own.key, Leaf: cert},
		Leaf:        cert,
		File:        file,
		NotAfter:    cert.NotAfter,
		Fingerprint: sha256.Sum256(cert.Raw),
	}
	c.readApple()
	return c
}

// inFile makes err a *CertificateError about the file.
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
