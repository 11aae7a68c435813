package apnsconn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certSpec describes a certificate to be made for a test.
type certSpec struct {
	uid       string
	oids      []asn1.ObjectIdentifier // extensions with the value NULL, as Apple's are
	topics    []byte                  // DER of the topic list; nil for none
	notBefore time.Time               // default: an hour ago
	notAfter  time.Time               // default: in a year
}

func (s certSpec) template() *x509.Certificate {
	subject := pkix.Name{CommonName: "Apple Push Services: " + s.uid}
	if s.uid != "" {
		subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidUserID, Value: s.uid}}
	}
	if s.notBefore.IsZero() {
		s.notBefore = time.Now().Add(-time.Hour)
	}
	if s.notAfter.IsZero() {
		s.notAfter = time.Now().AddDate(1, 0, 0)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, NotBefore: s.notBefore, NotAfter: s.notAfter}
	for _, oid := range s.oids {
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oid, Value: asn1.NullBytes})
	}
	if s.topics != nil {
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oidApplePushTopics, Value: s.topics})
	}
	return t
}

func newTestKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newTestCert makes a self-signed certificate for a key.
func newTestCert(t *testing.T, s certSpec, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := s.template()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// topicList encodes topics as Apple does, each with its kind after it.
func topicList(t *testing.T, topics ...string) []byte {
	t.Helper()
	var items []asn1.RawValue
	add := func(value any, params string) {
		der, err := asn1.MarshalWithParams(value, params)
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, asn1.RawValue{FullBytes: der})
	}
	type kinds struct {
		Kind string `asn1:"utf8"`
	}
	for _, topic := range topics {
		add(topic, "utf8")
		add(kinds{"app"}, "")
	}
	der, err := asn1.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certPEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func keyPEM(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// inTempFile writes parts, one after the other, into a file of the given name.
func inTempFile(t *testing.T, name string, parts ...[]byte) string {
	t.Helper()
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parsedTLS is c as a connection uses it.
func parsedTLS(t *testing.T, c *Certificate) tls.Certificate {
	t.Helper()
	pair, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// asSigners is the private key of c, as match takes keys.
func asSigners(t *testing.T, c *Certificate) []crypto.Signer {
	t.Helper()
	return []crypto.Signer{parsedTLS(t, c).PrivateKey.(crypto.Signer)}
}

// ecdsaSecret is the secret number of the key of c, big-endian.
func ecdsaSecret(t *testing.T, c *Certificate) []byte {
	t.Helper()
	raw, err := parsedTLS(t, c).PrivateKey.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func ids(oids ...asn1.ObjectIdentifier) []asn1.ObjectIdentifier { return oids }
