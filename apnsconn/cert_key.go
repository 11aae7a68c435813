package apnsconn

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"propeller/internal/keysize"
	"propeller/internal/pemfile"
)

// parseKey reads the private key of a PEM block, decrypting it if need be.
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
		// One wrong password in 256 leaves a well-formed padding behind.
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
	//lint:ignore SA1019 insecure by design, as the package says, but what old OpenSSL wrote and people still have
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
	//lint:ignore SA1019 see decryptKey; the ciphertext comes from the operator's own disk, so a padding oracle gains nobody anything
	der, err := x509.DecryptPEMBlock(&block.Block, []byte(password))
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, passwordError("its private key", password)
	}
	if err != nil {
		return nil, cause{"its private key" + block.At() + " is encrypted in a way that is not supported: " + rewriteKey(block), err}
	}
	return der, nil
}

// parseKeyDER reads a key in any of the three usual forms. The PEM type is no
// help: some tools write one and mean another.
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
