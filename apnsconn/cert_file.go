package apnsconn

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"propeller/internal/files"
	"propeller/internal/pemfile"
)

// maxCredentialFile bounds what is read of a certificate or key file, in
// bytes. Real ones have a few thousand; a wrong path may be anything.
const maxCredentialFile = 1 << 20

// bundle is what a credential file holds, in the file's order.
type bundle struct {
	certs  []*x509.Certificate
	keys   []crypto.Signer
	pkcs12 bool
	other  []pemfile.Block // what is neither, or not wanted
}

// cause is an error whose text does not repeat the error it wraps.
type cause struct {
	text string
	err  error
}

func (c cause) Error() string { return c.text }
func (c cause) Unwrap() error { return c.err }

// passwordError is for what a password did not open.
func passwordError(what, password string) error {
	if password == "" {
		return cause{what + " is encrypted and no password was given", ErrPassword}
	}
	return cause{"the password for " + what + " is wrong", ErrPassword}
}

// readBundle reads a file of any form. Keys are decrypted only if wanted.
// Errors do not name the file.
func readBundle(file, password string, wantKeys bool) (bundle, error) {
	blocks, err := readCredential(file, "is neither PEM nor PKCS#12: give the certificate and its key as .pem or .p12")
	if err != nil {
		return bundle{}, err
	}
	return parseBundle(blocks, password, wantKeys)
}

// readCredential takes a file apart; neither is what is said of something else.
func readCredential(file, neither string) ([]pemfile.Block, error) {
	data, err := files.Read(file, maxCredentialFile)
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fileError(err)
	}
	if err != nil {
		return nil, err
	}
	blocks, err := pemfile.Parse(data)
	if errors.Is(err, pemfile.ErrNeither) {
		err = cause{neither, err}
	}
	return blocks, err
}

// fileError takes the file's name out of an error, which is named elsewhere.
func fileError(err error) error {
	why := err
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		why = p.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cause{"no such file", err}
	case errors.Is(err, fs.ErrPermission):
		return cause{"permission denied: let the user that runs this read it", err}
	}
	return cause{"cannot be read: " + why.Error(), err}
}

// parseBundle takes certificates and keys out of the blocks of a file.
func parseBundle(blocks []pemfile.Block, password string, wantKeys bool) (b bundle, err error) {
	left := budget(maxIterations)
	for i := range blocks {
		block := &blocks[i]
		switch {
		case block.Type == "PKCS12":
			return parsePKCS12(block.Bytes, password)
		case strings.HasSuffix(block.Type, "CERTIFICATE"):
			err = b.parseCert(block)
		case wantKeys && strings.HasSuffix(block.Type, "PRIVATE KEY"):
			err = b.parseKey(block, password, &left)
		default:
			b.other = append(b.other, *block)
		}
		if err != nil {
			return bundle{}, err
		}
	}
	return b, nil
}

// parseCert takes a certificate up: also OpenSSL's TRUSTED CERTIFICATE, after which
// stands what it is trusted for.
func (b *bundle) parseCert(block *pemfile.Block) error {
	var first asn1.RawValue
	der := block.Bytes
	if _, err := asn1.Unmarshal(der, &first); err == nil && block.Type == "TRUSTED CERTIFICATE" {
		der = first.FullBytes
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return cause{"its certificate" + block.At() + " cannot be parsed" + reason(err) + ": get it from Apple's developer account or export it again; the certificate of an authority may also be left out", err}
	}
	return b.addCert(cert)
}

func (b *bundle) parseKey(block *pemfile.Block, password string, left *budget) error {
	if len(b.keys) == maxKeys {
		return fmt.Errorf("holds more than %d private keys: give a file with one", maxKeys)
	}
	key, err := parseKey(block, password, left)
	if err != nil {
		return err
	}
	return b.addKey(key)
}

// reason is what a parser says, if it says it to people.
func reason(err error) string {
	text := strings.TrimPrefix(err.Error(), "x509: ")
	if strings.Contains(text, "asn1:") {
		return ""
	}
	return " (" + text + ")"
}
