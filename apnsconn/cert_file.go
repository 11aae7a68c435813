package apnsconn

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"propeller/internal/files"
)

// maxCredentialFile bounds what is read of a certificate or key file, in
// bytes. Real ones have a few thousand; a wrong path may be anything.
const maxCredentialFile = 1 << 20

// bundle is what a credential file holds, in the file's order.
type bundle struct {
	certs  []*x509.Certificate
	keys   []crypto.Signer
	pkcs12 bool
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
	data, err := readCredential(file)
	if err != nil {
		return bundle{}, err
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		return parsePEM(data, password, wantKeys)
	}
	if cert, err := x509.ParseCertificate(data); err == nil { // Apple's portal hands out .cer
		var b bundle
		err := b.addCert(cert)
		return b, err
	}
	ext := strings.ToLower(filepath.Ext(file))
	if ext == ".p12" || ext == ".pfx" || isSequence(data) {
		return parsePKCS12(data, password)
	}
	return bundle{}, errors.New("is neither PEM nor PKCS#12: give the certificate and its key as .pem or .p12")
}

// isSequence reports whether data may be DER or BER at all.
func isSequence(data []byte) bool { return len(data) > 1 && data[0] == 0x30 }

func readCredential(file string) ([]byte, error) {
	data, err := files.Read(file, maxCredentialFile)
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fileError(err)
	}
	if err == nil && len(data) == 0 {
		err = errors.New("is empty")
	}
	return data, err
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

// parsePEM takes certificates and keys out of PEM text; what stands between
// the blocks, and blocks of other types, is passed over.
func parsePEM(data []byte, password string, wantKeys bool) (bundle, error) {
	var b bundle
	left := budget(maxIterations)
	blocks := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		blocks++
		switch {
		case block.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return bundle{}, cause{fmt.Sprintf("its certificate %d cannot be parsed: %v", len(b.certs)+1, err), err}
			}
			if err := b.addCert(cert); err != nil {
				return bundle{}, err
			}
		case wantKeys && strings.HasSuffix(block.Type, "PRIVATE KEY"):
			if len(b.keys) == maxKeys {
				return bundle{}, fmt.Errorf("holds more than %d private keys: give a file with one", maxKeys)
			}
			key, err := parseKey(block, password, &left)
			if err == nil {
				err = b.addKey(key)
			}
			if err != nil {
				return bundle{}, err
			}
		}
	}
	if blocks == 0 {
		return bundle{}, errors.New("is damaged: it has a line with BEGIN, but no whole PEM block")
	}
	return b, nil
}
