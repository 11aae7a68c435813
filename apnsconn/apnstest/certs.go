package apnstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// The object identifiers of Apple's push certificates (Apple Worldwide
// Developer Relations certification practice statement; RFC 4519 for the UID).
var (
	oidUID        = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	oidSandbox    = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 1}
	oidProduction = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
	oidTopics     = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 6}
)

// authority is the stand-in's own certificate authority: it signs the
// server's certificate and the client certificates.
type authority struct {
	cert *x509.Certificate
	der  []byte
	key  *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "apnstest CA"},
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              time.Now().AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, der: der, key: key}, nil
}

// serial returns a random serial number of 64 bits.
func serial() *big.Int {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return new(big.Int).SetBytes(b[:])
}

// issue makes a key, and a certificate for it from tmpl, signed by a, or by
// itself when a is nil.
func (a *authority) issue(tmpl *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	parent, signer := tmpl, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// serverCert issues the server's certificate, for the loopback names and hosts.
func (a *authority) serverCert(hosts []string) (tls.Certificate, error) {
	tmpl := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "apnstest"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	return a.issue(tmpl)
}

// CertOption changes a client certificate that [Server.ClientCert] makes.
type CertOption func(*certSpec)

type certSpec struct {
	tmpl       *x509.Certificate
	selfSigned bool
	foreign    bool
	err        error
}

// ForProduction marks the certificate as usable in production
// (extension 1.2.840.113635.100.6.3.2), as Apple does.
func ForProduction() CertOption { return func(s *certSpec) { s.addNull(oidProduction) } }

// ForSandbox marks the certificate as usable in the sandbox
// (extension 1.2.840.113635.100.6.3.1), as Apple does.
func ForSandbox() CertOption { return func(s *certSpec) { s.addNull(oidSandbox) } }

// ForTopics lists the certificate's topics (extension
// 1.2.840.113635.100.6.3.6): for each a name and its kind, "app", "voip" or
// "complication", as in Apple's certificates.
func ForTopics(kindOf ...[2]string) CertOption {
	return func(s *certSpec) {
		der, err := marshalTopics(kindOf)
		s.err = err
		s.tmpl.ExtraExtensions = append(s.tmpl.ExtraExtensions, pkix.Extension{Id: oidTopics, Value: der})
	}
}

// ValidUntil sets the end of the certificate's validity. The default is one
// year from now. Its beginning moves to the day before when t is in the past.
func ValidUntil(t time.Time) CertOption {
	return func(s *certSpec) {
		s.tmpl.NotAfter = t
		if !s.tmpl.NotBefore.Before(t) {
			s.tmpl.NotBefore = t.Add(-24 * time.Hour)
		}
	}
}

// SelfSigned makes a certificate that is its own issuer.
func SelfSigned() CertOption { return func(s *certSpec) { s.selfSigned = true } }

// OtherAuthority makes a certificate whose issuer only has the name of the stand-in's authority:
// where certificates are verified, it is refused as from an unknown authority.
func OtherAuthority() CertOption { return func(s *certSpec) { s.foreign = true } }

// WithoutUID leaves the topic out of the subject: a home-made certificate
// that is not bound to any topic.
func WithoutUID() CertOption {
	return func(s *certSpec) { s.tmpl.Subject = pkix.Name{CommonName: "home-made"} }
}

func (s *certSpec) addNull(oid asn1.ObjectIdentifier) {
	s.tmpl.ExtraExtensions = append(s.tmpl.ExtraExtensions, pkix.Extension{Id: oid, Value: asn1.NullBytes})
}

// utf8String returns the DER of s as a UTF8String.
func utf8String(s string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: []byte(s)}
}

// marshalTopics writes Apple's topic list: a SEQUENCE that alternates a topic
// and a SEQUENCE holding its kind.
func marshalTopics(kindOf [][2]string) ([]byte, error) {
	var seq []any
	var body []byte
	for _, t := range kindOf {
		seq = append(seq, utf8String(t[0]), []asn1.RawValue{utf8String(t[1])})
	}
	for _, v := range seq {
		der, err := asn1.Marshal(v)
		if err != nil {
			return nil, err
		}
		body = append(body, der...)
	}
	return asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: body})
}

// parseTopics reads what marshalTopics writes, without the kinds. It returns
// nil for anything else.
func parseTopics(der []byte) []string {
	var seq []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &seq); err != nil || len(rest) > 0 {
		return nil
	}
	var topics []string
	for _, v := range seq {
		if v.Class == asn1.ClassUniversal && v.Tag == asn1.TagUTF8String {
			topics = append(topics, string(v.Bytes))
		}
	}
	return topics
}

// extension returns the value of cert's extension oid.
func extension(cert *x509.Certificate, oid asn1.ObjectIdentifier) ([]byte, bool) {
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oid) })
	if i < 0 {
		return nil, false
	}
	return cert.Extensions[i].Value, true
}

// certUID returns the UID of cert's subject, "" when it has none.
func certUID(cert *x509.Certificate) string {
	for _, n := range cert.Subject.Names {
		if n.Type.Equal(oidUID) {
			s, _ := n.Value.(string)
			return s
		}
	}
	return ""
}

// clientCert issues a client certificate for topic.
func (a *authority) clientCert(topic string, options []CertOption) (tls.Certificate, error) {
	spec := certSpec{tmpl: &x509.Certificate{
		SerialNumber: serial(),
		Subject: pkix.Name{
			CommonName: "Apple Push Services: " + topic,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidUID, Value: utf8String(topic)}},
		},
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().AddDate(1, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}}
	for _, o := range options {
		o(&spec)
	}
	if spec.err != nil {
		return tls.Certificate{}, spec.err
	}
	switch {
	case spec.selfSigned:
		a = nil
	case spec.foreign:
		var err error
		if a, err = newAuthority(); err != nil {
			return tls.Certificate{}, err
		}
	}
	return a.issue(spec.tmpl)
}

// CertPool returns a pool with the stand-in's authority, and with
// [Options].TLSCert when one was given: the RootCAs of a client.
func (s *Server) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	if s.opt.TLSCert != nil {
		for _, der := range s.opt.TLSCert.Certificate {
			if cert, err := x509.ParseCertificate(der); err == nil {
				pool.AddCert(cert)
			}
		}
	}
	return pool
}

// CACertPEM returns the certificate of the stand-in's authority as PEM, for clients that are
// configured by files.
func (s *Server) CACertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.der})
}

// ClientCert makes a client certificate like Apple's for topic: topic is the UID of its subject,
// and the stand-in's authority its issuer. Without options it has no extensions of Apple's. It
// panics if the certificate cannot be made.
func (s *Server) ClientCert(topic string, o ...CertOption) tls.Certificate {
	cert, err := s.ca.clientCert(topic, o)
	if err != nil {
		panic(fmt.Sprintf("apnstest: client certificate for %q: %v", topic, err))
	}
	return cert
}

// ClientCertPEM is [Server.ClientCert] as a .pem file: the certificate, then
// its key in PKCS #8.
func (s *Server) ClientCertPEM(topic string, o ...CertOption) []byte {
	cert := s.ClientCert(topic, o...)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		panic(fmt.Sprintf("apnstest: client certificate for %q: %v", topic, err))
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
}
