// Package keysize bounds keys before they cost anything: to check an RSA key
// takes time by the cube of its size, and so does each signature.
package keysize

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"propeller/internal/pemfile"
)

// MaxRSA is the largest RSA key that is used, in bits. crypto/tls takes no larger
// one of a peer.
const MaxRSA = 8192

// maxPrimes bounds what an RSA key has of further primes, in bits, all together.
const maxPrimes = 4 * MaxRSA

// maxNumbers bounds the numbers of a key: an RSA key of two primes has 9.
const maxNumbers = 64

func tooLarge(bits int) error {
	return fmt.Errorf("has an RSA key of %d bits, and at most %d are used: make a key of 2048 or 4096 bits", bits, MaxRSA)
}

// Private looks at the DER of a private key of any form, unencrypted, without
// parsing it as a key. What is no such DER is for the parser to refuse.
func Private(der []byte) error { return private(der, true) }

func private(der []byte, wrapped bool) error {
	var parts []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &parts); err != nil {
		return nil
	}
	if len(parts) > maxNumbers {
		return fmt.Errorf("has a key of %d parts, which no key has", len(parts))
	}
	for _, part := range parts {
		if part.Class != asn1.ClassUniversal {
			continue
		}
		switch bits := 8 * len(part.Bytes); {
		case part.Tag == asn1.TagInteger && bits > MaxRSA+8: // a leading zero
			return tooLarge(bits)
		case part.Tag == asn1.TagInteger && bits == MaxRSA+8 && part.Bytes[0] != 0:
			return tooLarge(bits)
		case part.Tag == asn1.TagSequence && bits > maxPrimes:
			return tooLarge(bits)
		case part.Tag == asn1.TagOctetString && wrapped: // PKCS#8
			if err := private(part.Bytes, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// Public looks at a parsed public key.
func Public(key any) error {
	if key, ok := key.(*rsa.PublicKey); ok && key.N.BitLen() > MaxRSA {
		return tooLarge(key.N.BitLen())
	}
	return nil
}

// maxPair bounds the certificates and keys of a server's files.
const maxPair = 100

// Pair is tls.X509KeyPair of keys that may be used, of PEM as pemfile reads it.
func Pair(cert, key []byte) (tls.Certificate, error) {
	cert, err := blocks(cert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the certificate %w", err)
	}
	if key, err = blocks(key); err != nil {
		return tls.Certificate{}, fmt.Errorf("the key %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil { // it may quote names and types of any length
		return tls.Certificate{}, pairError{Short(err.Error()), err}
	}
	return pair, nil
}

// pairError is an error with a shorter text.
type pairError struct {
	text string
	err  error
}

func (e pairError) Error() string { return e.text }
func (e pairError) Unwrap() error { return e.err }

// maxText bounds what is said about a file, in bytes.
const maxText = 600

// Short is a text about a key or certificate as a log may have it: what is quoted in it
// from the file may be as long as the file.
func Short(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

// blocks is the text as PEM without faults, once its keys have been looked at.
func blocks(text []byte) (clean []byte, err error) {
	all, err := pemfile.Parse(text)
	if err != nil {
		return nil, err
	}
	if len(all) > maxPair {
		return nil, fmt.Errorf("has more than %d PEM blocks", maxPair)
	}
	for _, b := range all {
		if strings.HasSuffix(b.Type, "PRIVATE KEY") {
			err = Private(b.Bytes)
		} else if cert, parse := x509.ParseCertificate(b.Bytes); parse == nil {
			err = Public(cert.PublicKey)
		}
		if err != nil {
			return nil, err
		}
		clean = append(clean, pem.EncodeToMemory(&b.Block)...)
	}
	return clean, nil
}

// maxRoots bounds the roots of a file: a browser's list has less than 200.
const maxRoots = 1000

// Roots adds the certificates of a file to a pool. x509's own AppendCertsFromPEM passes
// over what it cannot read; a root that is silently missing is found out at the first
// handshake only. Errors are sentences without a subject, which is the file.
func Roots(pool *x509.CertPool, data []byte) error {
	all, err := pemfile.Parse(data)
	switch {
	case errors.Is(err, pemfile.ErrNeither):
		return errors.New("holds no certificate: it must be a .pem with CERTIFICATE blocks")
	case err != nil:
		return err
	}
	if len(all) > maxRoots {
		return fmt.Errorf("holds more than %d certificates", maxRoots)
	}
	for _, b := range all {
		switch b.Type {
		case "CERTIFICATE", "X509 CERTIFICATE":
		case "TRUSTED CERTIFICATE":
			return fmt.Errorf("holds a TRUSTED CERTIFICATE%s, which only OpenSSL reads: %s", b.At(), plainCertificates)
		case "PKCS7":
			return fmt.Errorf("holds PKCS#7%s: convert it with: %s", b.At(), b.Convert("pkcs7", "-print_certs"))
		default:
			return fmt.Errorf("holds a %s%s: only the certificates of roots belong there, as PEM or DER", b.Type, b.At())
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return fmt.Errorf("its certificate%s cannot be parsed: copy or export it again", b.At())
		}
		if err := Public(cert.PublicKey); err != nil {
			return fmt.Errorf("its certificate%s %w", b.At(), err)
		}
		pool.AddCert(cert)
	}
	return nil
}

// plainCertificates says how to rewrite all certificates of a file as plain PEM.
const plainCertificates = "rewrite the file with: openssl crl2pkcs7 -nocrl -certfile " + pemfile.File + " | openssl pkcs7 -print_certs -out new.pem"
