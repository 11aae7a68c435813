package keysize

import (
	"crypto/x509"
	"errors"
	"fmt"

	"propeller/internal/pemfile"
)

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
