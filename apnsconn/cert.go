package apnsconn

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// Certificate is a client certificate with its private key, and what it says
// about itself.
type Certificate struct {
	TLS         tls.Certificate   // for Config.Certificate: the leaf, the chain in the file, the key
	Leaf        *x509.Certificate // the certificate itself
	File        string            // where it was read from
	UID         string            // the subject's user id: the bundle id, or the MDM topic; "" if it has none
	Topics      []string          // the topics Apple listed in it; nil if it lists none
	Production  bool              // Apple issued it for production
	Sandbox     bool              // Apple issued it for the sandbox
	Apple       bool              // it has Apple's marks of a push certificate
	NotAfter    time.Time         // when it expires
	Fingerprint [32]byte          // SHA-256 of the leaf: differs for a renewed certificate
}

// LoadCertificate reads a client certificate and its private key. TODO
func LoadCertificate(certFile, keyFile, password string) (*Certificate, error) { panic("todo") }

// Check TODO
func (c *Certificate) Check(topic string, env Environment, now time.Time) (warnings []string, err error) {
	panic("todo")
}
