package apnsconn

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// rewriteKey says how to get out of a form that is not supported.
const rewriteKey = "rewrite the key with: openssl pkcs8 -topk8 -v2 aes-256-cbc"

// Encrypted PKCS#8 (RFC 5958, section 3) by PBES2 (RFC 8018, appendix A).
type (
	encryptedPrivateKeyInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2Params struct {
		KDF    pkix.AlgorithmIdentifier
		Cipher pkix.AlgorithmIdentifier
	}
	pbkdf2Params struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

// pbes2Ciphers are the block ciphers, all in CBC mode, by object identifier.
var pbes2Ciphers = map[string]struct {
	keyLength int // bytes
	open      func(key []byte) (cipher.Block, error)
}{
	"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
	"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
}

// pbkdf2Hashes are the hashes of PBKDF2's HMAC, by object identifier. None
// given means SHA-1.
var pbkdf2Hashes = map[string]func() hash.Hash{
	"":                    sha1.New,
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

// errKeyDamaged is for structures that do not parse.
var errKeyDamaged = errors.New("its private key cannot be parsed: the file is damaged")

// decryptPKCS8 opens an ENCRYPTED PRIVATE KEY block.
func decryptPKCS8(der []byte, password string, left *budget) ([]byte, error) {
	var info encryptedPrivateKeyInfo
	if !unmarshalAll(der, &info) {
		return nil, errKeyDamaged
	}
	if !info.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, unsupported("method", info.Algorithm.Algorithm)
	}
	var params pbes2Params
	if !unmarshalAll(info.Algorithm.Parameters.FullBytes, &params) {
		return nil, errKeyDamaged
	}
	if password == "" {
		return nil, passwordError("its private key", password)
	}
	c, ok := pbes2Ciphers[params.Cipher.Algorithm.String()]
	if !ok {
		return nil, unsupported("cipher", params.Cipher.Algorithm)
	}
	key, err := pbes2Key(params.KDF, password, c.keyLength, left)
	if err != nil {
		return nil, err
	}
	block, err := c.open(key)
	if err != nil {
		return nil, cause{"its private key cannot be decrypted: " + err.Error(), err}
	}
	var iv []byte
	if !unmarshalAll(params.Cipher.Parameters.FullBytes, &iv) || len(iv) != block.BlockSize() ||
		len(info.Data) == 0 || len(info.Data)%block.BlockSize() != 0 {
		return nil, errKeyDamaged
	}
	plain := make([]byte, len(info.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, info.Data)
	if plain, ok = unpad(plain, block.BlockSize()); !ok {
		return nil, passwordError("its private key", password)
	}
	return plain, nil
}

// pbes2Key derives the cipher's key from the password.
func pbes2Key(kdf pkix.AlgorithmIdentifier, password string, length int, left *budget) ([]byte, error) {
	if !kdf.Algorithm.Equal(oidPBKDF2) {
		return nil, unsupported("key derivation", kdf.Algorithm)
	}
	var params pbkdf2Params
	if !unmarshalAll(kdf.Parameters.FullBytes, &params) || params.Iterations < 1 ||
		params.KeyLength != 0 && params.KeyLength != length {
		return nil, errKeyDamaged
	}
	h, ok := pbkdf2Hashes[params.PRF.Algorithm.String()]
	if !ok {
		return nil, unsupported("hash", params.PRF.Algorithm)
	}
	if err := left.spend(params.Iterations); err != nil {
		return nil, fmt.Errorf("its private key %w; %s", err, rewriteKey)
	}
	key, err := pbkdf2.Key(h, password, params.Salt, params.Iterations, length)
	if err != nil { // a FIPS mode that does not approve of the parameters
		return nil, cause{"its private key cannot be decrypted: " + err.Error(), err}
	}
	return key, nil
}

func unsupported(what string, oid asn1.ObjectIdentifier) error {
	return fmt.Errorf("its private key is encrypted by a %s that is not supported (%s): %s", what, oid, rewriteKey)
}

// unmarshalAll parses DER and wants nothing left over.
func unmarshalAll(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}

// unpad removes the padding of RFC 8018, section 6.1.1: n bytes of value n.
func unpad(p []byte, size int) ([]byte, bool) {
	n := int(p[len(p)-1])
	if n < 1 || n > size {
		return nil, false
	}
	for _, b := range p[len(p)-n:] {
		if int(b) != n {
			return nil, false
		}
	}
	return p[:len(p)-n], true
}
