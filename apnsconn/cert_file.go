package apnsconn

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"propeller/internal/files"
	"propeller/internal/keysize"
	"propeller/internal/pemfile"
)

// maxCredentialFile bounds a certificate or key file, in bytes. Real ones have a few thousand; a
// wrong path may be anything.
const maxCredentialFile = 1 << 20

// bundle is what a credential file holds, in the file's order.
type bundle struct {
	certs  []*x509.Certificate
	keys   []crypto.Signer
	pkcs12 bool
	other  []pemfile.Block // blocks that are neither, or not wanted
}

// cause is an error whose text does not repeat the error it wraps.
type cause struct {
	text string
	err  error
}

func (c cause) Error() string { return c.text }
func (c cause) Unwrap() error { return c.err }

// passwordError is for something that the password did not open.
func passwordError(what, password string) error {
	if password == "" {
		return cause{what + " is encrypted and no password was given", ErrPassword}
	}
	return cause{"the password for " + what + " is wrong", ErrPassword}
}

// readBundle reads a file of any form. It decrypts keys only if they are wanted. Errors do not
// name the file.
func readBundle(file, password string, wantKeys bool) (bundle, error) {
	blocks, err := readCredential(file, "is neither PEM nor PKCS#12: give the certificate and its key as .pem or .p12")
	if err != nil {
		return bundle{}, err
	}
	return parseBundle(blocks, password, wantKeys)
}

// readCredential splits a file into blocks; neither is the error's text for any other content.
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

// fileError removes the file's name from an error, because the caller names it.
func fileError(err error) error {
	why := err
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		why = p.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cause{"no such file", err}
	case errors.Is(err, fs.ErrPermission):
		return cause{"permission denied: make it readable for the user that runs this", err}
	}
	return cause{"cannot be read: " + why.Error(), err}
}

// parseBundle reads the certificates and keys in a file's blocks.
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

// parseCert reads a certificate, or OpenSSL's TRUSTED CERTIFICATE, which is a certificate
// followed by what it is trusted for.
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

// reason is a parser's error in brackets, if people can understand it.
func reason(err error) string {
	text := strings.TrimPrefix(err.Error(), "x509: ")
	if strings.Contains(text, "asn1:") {
		return ""
	}
	return " (" + text + ")"
}

// parseKey reads the private key in a PEM block, and decrypts it if necessary.
func parseKey(block *pemfile.Block, password string, left *budget) (crypto.Signer, error) {
	der, encrypted, err := decryptKey(block, password, left)
	if err != nil {
		return nil, err
	}
	if err := keysize.Private(der); err != nil {
		return nil, err
	}
	key, err := parseKeyDER(der)
	switch {
	case err != nil && encrypted:
		// With one wrong password in 256 the padding looks right.
		return nil, passwordError("its private key", password)
	case err != nil:
		return nil, cause{"its private key" + block.At() + " cannot be parsed: it is damaged, or neither RSA, EC nor Ed25519", err}
	}
	return key, nil
}

// decryptKey returns the DER of a key and whether it was encrypted.
func decryptKey(block *pemfile.Block, password string, left *budget) (der []byte, encrypted bool, err error) {
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY":
		der, err = decryptPKCS8(block, password, left)
	//lint:ignore SA1019 insecure by design, as the package says, but old OpenSSL wrote it and people still have such files
	case x509.IsEncryptedPEMBlock(&block.Block):
		der, err = decryptOld(block, password)
	default:
		return block.Bytes, false, nil
	}
	return der, true, err
}

// decryptOld opens the form with Proc-Type and DEK-Info headers (RFC 1421) that
// OpenSSL wrote before version 1.0.
func decryptOld(block *pemfile.Block, password string) ([]byte, error) {
	if password == "" {
		return nil, passwordError("its private key", password)
	}
	//lint:ignore SA1019 see decryptKey; the ciphertext comes from the operator's own disk, so a padding oracle is of no use to an attacker
	der, err := x509.DecryptPEMBlock(&block.Block, []byte(password))
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, passwordError("its private key", password)
	}
	if err != nil {
		return nil, cause{"its private key" + block.At() + " is encrypted in a way that is not supported: " + rewriteKey(block), err}
	}
	return der, nil
}

// parseKeyDER reads a key in any of the three usual forms. It does not rely on the PEM type: some
// tools write a wrong one.
func parseKeyDER(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

// maxIterations bounds the work that a file may ask for, for all its keys and parts together: a
// few seconds. OpenSSL writes 2048 for each, careful people use a million.
const maxIterations = 10_000_000

// Bounds of a file. A chain has three or four certificates, and one key is needed.
const (
	maxCertificates = 100
	maxKeys         = 10
)

// budget is how many rounds of key derivation a file may still ask for.
type budget int

// spend takes rounds of key derivation off the budget. The number comes from the file, so it may
// be anything.
func (b *budget) spend(rounds int) error {
	switch {
	case rounds > maxIterations:
		return fmt.Errorf("asks for %d rounds of key derivation, more than the limit of %d: export it again with fewer", rounds, maxIterations)
	case rounds > int(*b):
		return fmt.Errorf("asks for more than %d rounds of key derivation for all its keys: export it again with fewer", maxIterations)
	}
	*b -= budget(max(rounds, 1))
	return nil
}

// addCert adds a certificate if it may be used.
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

// addKey adds a key if it may be used.
func (b *bundle) addKey(key crypto.Signer) error {
	if err := keysize.Public(key.Public()); err != nil {
		return err
	}
	b.keys = append(b.keys, key)
	return nil
}

const getP8 = "give the .p8 file that Apple offers under Keys"

// kinds says what a file may hold that cannot be used where it was given, and what to do instead.
// The first row that matches the file counts.
var kinds = []struct{ block, what, asCert, asKey string }{
	{"CERTIFICATE REQUEST", "a certificate signing request", upload, getP8},
	{"NEW CERTIFICATE REQUEST", "a certificate signing request", upload, getP8},
	{"PKCS7", "PKCS#7", convertPKCS7, getP8},
	{"CMS", "PKCS#7", convertPKCS7, getP8},
	{"PKCS12", "a certificate with its key in PKCS#12", "", asCert},
	{"CERTIFICATE", "a certificate", "", asCert},
	{"PUBLIC KEY", "a public key", giveCert, getP8},
	{"RSA PUBLIC KEY", "a public key", giveCert, getP8},
	{"X509 CRL", "a list of revoked certificates", giveCert, getP8},
	{"OPENSSH PRIVATE KEY", "an SSH key", giveCert, getP8},
}

const (
	upload       = "but no certificate: upload it in Apple's developer account, and give the certificate that Apple makes from it"
	convertPKCS7 = "which has certificates but no private key: convert it with: COMMAND, and give new.pem as cert and the file of the private key as cert_key"
	giveCert     = "but no certificate: give the app's certificate and its private key"
	asCert       = "give it as cert instead of key, or " + getP8
)

const giveCertToo = "give the certificate that belongs to it as cert, and this file as cert_key; if it is Apple's .p8 file, give it as key, with key_id and team_id"

// uselessCert says what a file without certificates holds, and what to do.
func uselessCert(b *bundle) string {
	for _, k := range kinds {
		for i := range b.other {
			if o := &b.other[i]; o.Type == k.block && k.asCert != "" {
				return "holds " + k.what + ", " + strings.Replace(k.asCert, "COMMAND", o.Convert("pkcs7", "-print_certs"), 1)
			}
		}
	}
	if len(b.keys) > 0 {
		return "holds no certificate, only a private key: " + giveCertToo
	}
	return "holds no certificate" + onlyTypes(b.other) + ": give the app's certificate and its private key"
}

// uselessKey says what a file holds instead of a key for provider tokens; "" if it may hold one.
// Other blocks beside a private key matter only if the key belongs to them.
func uselessKey(blocks []pemfile.Block) string {
	private := slices.ContainsFunc(blocks, func(b pemfile.Block) bool {
		return strings.HasSuffix(b.Type, "PRIVATE KEY") && b.Type != "OPENSSH PRIVATE KEY"
	})
	for _, k := range kinds {
		if private && k.asKey == getP8 {
			continue
		}
		if slices.ContainsFunc(blocks, func(b pemfile.Block) bool { return b.Type == k.block }) {
			return "holds " + k.what + ", not a key for provider tokens: " + k.asKey
		}
	}
	return ""
}

// onlyTypes ends a sentence with the type of the file's first block, which may be anything.
func onlyTypes(blocks []pemfile.Block) string {
	if len(blocks) == 0 {
		return ""
	}
	return fmt.Sprintf(", only %.40q", blocks[0].Type)
}
