package apnsconn

import (
	"crypto"
	"crypto/x509"
	"fmt"

	"propeller/internal/keysize"
)

// maxIterations bounds the work that a file may ask for, all its keys and parts
// together: some seconds. OpenSSL writes 2048 for each, careful people a million.
const maxIterations = 10_000_000

// Of a file's certificates and keys only so many are read. A chain has three or
// four, and one key is needed.
const (
	maxCertificates = 100
	maxKeys         = 10
)

// budget is how many rounds of key derivation a file may still ask for.
type budget int

// spend takes rounds of key derivation from the budget. The number comes from the
// file: it may be anything.
func (b *budget) spend(rounds int) error {
	switch {
	case rounds > maxIterations:
		return fmt.Errorf("asks for %d rounds of key derivation, at most %d are done: export it again with fewer", rounds, maxIterations)
	case rounds > int(*b):
		return fmt.Errorf("asks for more than %d rounds of key derivation, all its keys together: export it again with fewer", maxIterations)
	}
	*b -= budget(max(rounds, 1))
	return nil
}

// addCert takes a certificate that may be used.
func (b *bundle) addCert(cert *x509.Certificate) error {
	if len(b.certs) == maxCertificates {
		return fmt.Errorf("holds more than %d certificates: give the app's own and its chain only", maxCertificates)
	}
	if err := keysize.Public(cert.PublicKey); err != nil {
		return fmt.Errorf("its certificate %d %w", len(b.certs)+1, err)
	}
	b.certs = append(b.certs, cert)
	return nil
}

// addKey takes a key that may be used.
func (b *bundle) addKey(key crypto.Signer) error {
	if err := keysize.Public(key.Public()); err != nil {
		return err
	}
	b.keys = append(b.keys, key)
	return nil
}
