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
	"slices"
	"strings"

	"propeller/internal/pemfile"
)

// rewriteKey says how to convert a key whose encryption is not supported.
func rewriteKey(block *pemfile.Block) string {
	return "rewrite the key with: " + convertKey(block, "-aes256") + ", and give new.pem as cert_key"
}

// convertKey is the openssl command that decrypts a key. OpenSSL 3 needs an option for older
// encryptions.
func convertKey(block *pemfile.Block, options string) string {
	if !legacyKey(block) {
		return block.Convert("pkey", options)
	}
	return block.Convert("pkey -provider legacy -provider default", options) + " (without the -provider options if your openssl does not know them)"
}

// legacyKey reports whether a key has such an older encryption.
func legacyKey(block *pemfile.Block) bool {
	if how := block.Headers["DEK-Info"]; how != "" {
		return !slices.ContainsFunc([]string{"AES-", "CAMELLIA-", "DES-EDE3-"}, func(s string) bool { return strings.HasPrefix(how, s) })
	}
	var info encryptedPrivateKeyInfo
	var params pbes2Params
	switch {
	case !unmarshalAll(block.Bytes, &info):
		return false
	case !info.Algorithm.Algorithm.Equal(oidPBES2):
		return isLegacy(info.Algorithm.Algorithm)
	}
	return unmarshalAll(info.Algorithm.Parameters.FullBytes, &params) && isLegacy(params.Cipher.Algorithm)
}

// isLegacy reports whether OpenSSL 3 has an algorithm only in its legacy provider: DES, RC2 and
// RC4, or a hash of their time.
func isLegacy(oid asn1.ObjectIdentifier) bool {
	text := oid.String()
	return slices.ContainsFunc([]string{"1.2.840.113549.1.5.", "1.2.840.113549.3.2", "1.3.14.3.2.7"}, func(s string) bool { return strings.HasPrefix(text, s) }) ||
		slices.Contains([]string{"1.2.840.113549.1.12.1.1", "1.2.840.113549.1.12.1.2", "1.2.840.113549.1.12.1.5", "1.2.840.113549.1.12.1.6"}, text)
}

// Encrypted PKCS#8 (RFC 5958 §3) by PBES2 (RFC 8018, appendix A).
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

// pbkdf2Hashes are the hashes of PBKDF2's HMAC, by object identifier. The default is SHA-1.
var pbkdf2Hashes = map[string]func() hash.Hash{
	"":                    sha1.New,
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

// errKeyDamaged is for structures that cannot be parsed.
var errKeyDamaged = errors.New("its private key cannot be parsed: the file is damaged")

// decryptPKCS8 opens an ENCRYPTED PRIVATE KEY block.
func decryptPKCS8(b *pemfile.Block, password string, left *budget) ([]byte, error) {
	var info encryptedPrivateKeyInfo
	if !unmarshalAll(b.Bytes, &info) {
		return nil, errKeyDamaged
	}
	if !info.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, unsupported(b, info.Algorithm.Algorithm)
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
		return nil, unsupported(b, params.Cipher.Algorithm)
	}
	key, err := pbes2Key(b, params.KDF, password, c.keyLength, left)
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
func pbes2Key(b *pemfile.Block, kdf pkix.AlgorithmIdentifier, password string, length int, left *budget) ([]byte, error) {
	if !kdf.Algorithm.Equal(oidPBKDF2) {
		return nil, unsupported(b, kdf.Algorithm)
	}
	var params pbkdf2Params
	if !unmarshalAll(kdf.Parameters.FullBytes, &params) || params.Iterations < 1 ||
		params.KeyLength != 0 && params.KeyLength != length {
		return nil, errKeyDamaged
	}
	h, ok := pbkdf2Hashes[params.PRF.Algorithm.String()]
	if !ok {
		return nil, unsupported(b, params.PRF.Algorithm)
	}
	if err := left.spend(params.Iterations); err != nil {
		return nil, fmt.Errorf("its private key %w", err)
	}
	key, err := pbkdf2.Key(h, password, params.Salt, params.Iterations, length)
	if err != nil { // FIPS mode does not allow the parameters
		return nil, cause{"its private key cannot be decrypted: " + err.Error(), err}
	}
	return key, nil
}

func unsupported(b *pemfile.Block, oid asn1.ObjectIdentifier) error {
	return fmt.Errorf("its private key%s is encrypted in a way that is not supported (%s): %s", b.At(), nameOf(oid), rewriteKey(b))
}

// nameOf is an algorithm's usual name, or its number.
func nameOf(oid asn1.ObjectIdentifier) string {
	text := oid.String()
	name, ok := map[string]string{
		"1.2.840.113549.1.5.1": "MD2 with DES", "1.2.840.113549.1.5.3": "MD5 with DES", "1.2.840.113549.1.5.4": "MD2 with RC2",
		"1.2.840.113549.1.5.6": "MD5 with RC2", "1.2.840.113549.1.5.10": "SHA-1 with DES", "1.2.840.113549.1.5.11": "SHA-1 with RC2",
		"1.2.840.113549.1.12.1.1": "RC4", "1.2.840.113549.1.12.1.2": "RC4", "1.2.840.113549.1.12.1.3": "triple DES of PKCS#12",
		"1.2.840.113549.1.12.1.4": "two-key triple DES", "1.2.840.113549.1.12.1.5": "RC2", "1.2.840.113549.1.12.1.6": "RC2",
		"1.2.840.113549.3.7": "PBES2 with triple DES", "1.3.6.1.4.1.11591.4.11": "scrypt", "1.3.14.3.2.7": "DES", "1.2.840.113549.3.2": "RC2",
		"1.2.392.200011.61.1.1.1.2": "Camellia", "1.2.392.200011.61.1.1.1.3": "Camellia", "1.2.392.200011.61.1.1.1.4": "Camellia",
	}[text]
	if ok {
		return name
	}
	return text
}

// unmarshalAll parses DER and reports whether that worked and nothing was left over.
func unmarshalAll(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}

// unpad removes the padding of RFC 8018 §6.1.1: n bytes of value n.
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
