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
	"path/filepath"
	"slices"
	"strings"
	"time"

	"propeller/internal/keysize"
	"propeller/internal/pemfile"
)

// Certificate is a client certificate with its private key, and what it says about itself. It
// does not change once loaded. Printed in any way, it shows only its file, UID and expiry, never
// the key.
type Certificate struct {
	TLS         tls.Certificate   // for Config.Certificate: the leaf, the other certificates of the file, the key
	Leaf        *x509.Certificate // the certificate itself
	File        string            // where it was read from
	UID         string            // the subject's user id: the bundle id, or the MDM topic; "" if it has none
	Topics      []string          // the topics that Apple listed in it; nil for none
	Production  bool              // Apple issued it for production
	Sandbox     bool              // Apple issued it for the sandbox
	VoIP        bool              // Apple issued it for VoIP services
	Apple       bool              // it has Apple's marks of a push certificate
	NotAfter    time.Time         // when it expires
	Fingerprint [sha256.Size]byte // SHA-256 of the leaf: it changes with a renewal

	all []*Certificate // all certificates of the file with a key, this one included
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

// Same reports whether both go over the wire the same: the leaf stands for its key, and a
// renewed intermediate is a difference too.
func (c *Certificate) Same(other *Certificate) bool {
	if c == nil || other == nil {
		return c == other
	}
	return c.Fingerprint == other.Fingerprint && slices.EqualFunc(c.TLS.Certificate, other.TLS.Certificate, bytes.Equal)
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
func (c *Certificate) readApple() {
	c.UID = userID(c.Leaf)
	for _, ext := range c.Leaf.Extensions {
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

// renewAhead is how long before the expiry Check begins to warn. Apple's certificates are valid
// for a year, and somebody has to renew them by hand.
const renewAhead = 30 * 24 * time.Hour

// Check says whether the certificate works for a topic and an environment at a time. The topic
// may be a bundle id, or have the suffix of a push type.
//
// It does not work if it is expired or not yet valid, if Apple made it for other topics or for
// the other environment, or if the topic's push type does not work with certificates. err then
// says why and what to do. Several faults are joined by errors.Join; each is a
// *CertificateError.
//
// The warnings are whole sentences that do not name the file: about an expiry within 30 days,
// about topics that are only partly served, and about a certificate without Apple's marks, such
// as one made for tests. Such a certificate is not checked for an environment, and for a topic
// only if it has a UID.
func (c *Certificate) Check(topic string, env Environment, now time.Time) (warnings []string, err error) {
	k := check{cert: c}
	k.apple()
	k.time(now)
	k.topic(topic)
	k.environment(env)
	return k.warnings, errors.Join(k.faults...)
}

// For returns the certificate of c's file that is best for a topic and an environment at a time.
// It prefers certificates that work, then those without a warning for the topic, then the one
// that expires last. If there was a choice, why is a sentence that says which one was chosen.
func (c *Certificate) For(topic string, env Environment, now time.Time) (best *Certificate, why string) {
	if len(c.all) < 2 {
		return c, ""
	}
	best = slices.MinFunc(c.all, func(a, b *Certificate) int {
		return cmp.Or(slices.Compare(a.misfits(topic, env, now), b.misfits(topic, env, now)), b.NotAfter.Compare(a.NotAfter))
	})
	return best, fmt.Sprintf("%.*q has %d certificates with their key: the one that expires on %s is used (serial number %.40s)",
		maxQuoted, filepath.Base(c.File), len(c.all), minute(best.NotAfter), best.Leaf.SerialNumber.Text(16))
}

// misfits counts what is wrong with a certificate: faults of the topic, then all faults, then
// warnings except the one about its expiry.
func (c *Certificate) misfits(topic string, env Environment, now time.Time) []int {
	k := check{cert: c}
	k.apple()
	k.topic(topic)
	ofTopic, warnings := len(k.faults), len(k.warnings)
	k.environment(env)
	k.time(now)
	return []int{ofTopic, len(k.faults), warnings}
}

// check collects what is found out about one certificate.
type check struct {
	cert     *Certificate
	warnings []string
	faults   []error
}

func (k *check) warn(format string, args ...any) {
	k.warnings = append(k.warnings, fmt.Sprintf(format, args...))
}

func (k *check) fault(format string, args ...any) {
	k.faults = append(k.faults, &CertificateError{File: k.cert.File, Why: fmt.Sprintf(format, args...)})
}

func (k *check) apple() {
	if !k.cert.Apple {
		k.warn("not an Apple push certificate: it has none of Apple's marks, and Apple's servers will not accept it")
	}
}

func (k *check) time(now time.Time) {
	from, until := k.cert.Leaf.NotBefore, k.cert.NotAfter
	left := until.Sub(now)
	switch {
	case now.Before(from):
		k.fault("is not valid before %s: check this machine's clock, which says %s", minute(from), minute(now))
	case now.After(until):
		k.fault("expired on %s: make a new one in Apple's developer account and put it in its place", minute(until))
	case left < renewAhead:
		k.warn("expires on %s, in %d days: renew it in Apple's developer account", minute(until), int(left/(24*time.Hour)))
	}
}

func (k *check) topic(topic string) {
	served := k.served()
	if t := pushTypeOfTopic(topic); t != nil && t.tokenOnly {
		k.fault("topic %q does not work with certificates: pushes of type %s need a provider token (.p8 key)", topic, t.name)
		return
	}
	if len(served) == 0 || slices.Contains(served, topic) {
		return
	}
	base := bundleOf(topic)
	switch {
	case slices.Contains(served, base):
		k.warn("topic %q is not listed in it, only %s: APNs may refuse pushes of that type", topic, quoted(served))
	case slices.ContainsFunc(served, func(s string) bool { return bundleOf(s) == base }):
		k.warn("serves only %s: APNs will refuse other pushes to %q", quoted(served), topic)
	default:
		set := "it"
		if len(served) > 1 {
			set = "one of these"
		}
		k.fault("is for %s, not for topic %q: use the certificate of that app, or set the topic to %s", quoted(served), topic, set)
	}
}

// served returns all topics that the certificate names.
func (k *check) served() []string {
	uid := k.cert.UID
	if uid == "" || slices.Contains(k.cert.Topics, uid) {
		return k.cert.Topics
	}
	return append([]string{uid}, k.cert.Topics...)
}

func (k *check) environment(env Environment) {
	c := k.cert
	switch {
	case !c.Production && !c.Sandbox: // it does not say
	case env == Production && !c.Production:
		k.fault("is for the sandbox only: use a production certificate, or the sandbox server")
	case env == Sandbox && !c.Sandbox:
		k.fault("is for production only: use a sandbox certificate, or the production server")
	}
}

// bundleOf returns a topic without the suffix of its push type.
func bundleOf(topic string) string {
	if t := pushTypeOfTopic(topic); t != nil {
		return strings.TrimSuffix(topic, t.suffix)
	}
	return topic
}

// maxQuoted bounds what is quoted of a name in a certificate, in characters. Such a name may be
// as long as the file, and goes into logs and answers.
const maxQuoted = 100

// quoted lists topics for people; of many, only the first few.
func quoted(topics []string) string {
	const most = 5
	var b strings.Builder
	for i, t := range topics {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(topics)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%.*q", maxQuoted, t)
	}
	return b.String()
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
