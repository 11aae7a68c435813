package apnsconn

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
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
		return bundle{certs: []*x509.Certificate{cert}}, nil
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
	f, err := os.Open(file)
	if err != nil {
		return nil, fileError(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCredentialFile+1))
	switch {
	case err != nil:
		return nil, fileError(err)
	case len(data) == 0:
		return nil, errors.New("is empty")
	case len(data) > maxCredentialFile:
		return nil, fmt.Errorf("has more than %d bytes, so it is no certificate or key", maxCredentialFile)
	}
	return data, nil
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
			b.certs = append(b.certs, cert)
		case wantKeys && strings.HasSuffix(block.Type, "PRIVATE KEY"):
			key, err := parseKey(block, password)
			if err != nil {
				return bundle{}, err
			}
			b.keys = append(b.keys, key)
		}
	}
	if blocks == 0 {
		return bundle{}, errors.New("is damaged: it has a line with BEGIN, but no whole PEM block")
	}
	return b, nil
}

// parsePKCS12 reads both the old form (RC2, triple DES) and the modern one.
func parsePKCS12(data []byte, password string) (bundle, error) {
	key, cert, chain, err := pkcs12.DecodeChain(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return bundle{}, passwordError("the PKCS#12 file", password)
	case err != nil:
		return bundle{}, pkcs12Error(err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return bundle{}, fmt.Errorf("has a private key of a kind that cannot sign: %T", key)
	}
	return bundle{
		certs:  append([]*x509.Certificate{cert}, chain...),
		keys:   []crypto.Signer{signer},
		pkcs12: true,
	}, nil
}

// pkcs12Error turns go-pkcs12's terms into what a user can do. Its errors are
// known by their text only; a text it changes falls through to the last case.
func pkcs12Error(err error) error {
	text := strings.TrimPrefix(err.Error(), "pkcs12: ")
	switch text {
	case "private key missing":
		text = "holds a certificate but no private key: in Keychain Access, export the certificate together with the key below it"
	case "certificate missing":
		text = "holds no certificate: in Keychain Access, export the certificate together with its key"
	case "expected exactly one key bag":
		text = "holds several private keys: export one certificate with its key only"
	default:
		text = "is no PKCS#12 file that can be read (" + text + "): export it anew, or convert it to .pem with: openssl pkcs12 -legacy -nodes"
	}
	return cause{text, err}
}
