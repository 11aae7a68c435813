package apnsconn

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"software.sslmate.com/src/go-pkcs12"

	"propeller/internal/keysize"
	"propeller/internal/pemfile"
)

// PKCS#12 (RFC 7292 §4), as far as needed to see how much work a file asks for before
// go-pkcs12, which has no bounds, does it.
type (
	pfx struct {
		Version int
		Safe    contentInfo
		Mac     macData `asn1:"optional"`
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	macData struct {
		Digest     macDigest
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
	macDigest struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	encryptedContent struct {
		Version int
		Info    struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Content   []byte `asn1:"tag:0,optional"`
		}
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue   `asn1:"tag:0,explicit"`
		Attributes []asn1.RawValue `asn1:"set,optional"`
	}
	pbeParams struct { // also of PBES1
		Salt       []byte
		Iterations int
	}
	kdfParams struct { // PBKDF2 of go-pkcs12, whose salt may be of two kinds
		Salt       asn1.RawValue
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidKeyBag        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidShroudedBag   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidPBMAC1        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidSHA1          = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
)

// maxShrouded bounds an encrypted key, in bytes: go-pkcs12 validates the key before its size can
// be seen. A key of 8192 bits has less than 5 KiB.
const maxShrouded = 8 << 10

// parsePKCS12 reads both the old form (RC2, triple DES) and the modern one.
//
// A key inside an encrypted part could ask for any amount of work without being seen. So
// go-pkcs12 gets the parts that can be seen first: it accepts only one key, and refuses another
// one before it reads it. The parts get a seal (MAC) of our own, since go-pkcs12 knows only some
// kinds of seals, and accepts a file without one only if there is no password.
func parsePKCS12(data []byte, password string) (bundle, error) {
	var p pfx
	s := inspection{left: maxIterations}
	parts, err := p.read(data)
	switch {
	case errors.Is(err, errPublicKey):
		return bundle{}, err
	case err != nil:
		return bundle{}, s.convert(err.Error(), err)
	}
	if err := s.mac(p.Mac); err != nil {
		return bundle{}, err
	}
	if len(parts) > 2 {
		s.refused = fmt.Sprintf("it has %d parts, and at most 2 are read", len(parts))
	}
	for _, part := range parts {
		if err := s.part(part); err != nil {
			return bundle{}, err
		}
	}
	// This reads only the certificates, and so shows whether the password is right.
	_, err = pkcs12.DecodeTrustStore(data, password)
	switch {
	case isPassword(err):
		return bundle{}, passwordError("the PKCS#12 file", password)
	case s.refused != "":
		return bundle{}, s.convert(s.refused, nil)
	case strings.ContainsFunc(password, func(r rune) bool { return r > 0xffff }):
		return bundle{}, s.convert("a password with an emoji, or another character beyond U+FFFF, is not supported", nil)
	case s.keys == 0 && s.encrypted > 0:
		return bundle{}, s.error(errors.New("private key missing"), password)
	case s.keys > 1:
		return bundle{}, s.error(errors.New("expected exactly one key bag"), password)
	}
	s.sealed = len(p.Mac.Digest.Algorithm.Algorithm) > 0 && !(err != nil && strings.Contains(err.Error(), "MAC"))
	return p.decode(&s, password)
}

// inspection is what can be seen of a PKCS#12 file without decrypting anything.
type inspection struct {
	left      budget
	keys      int
	encrypted int
	seen      []contentInfo // the parts whose bags can be seen
	unseen    []contentInfo
	refused   string // why go-pkcs12 cannot read the file; "" if it can
	legacy    bool   // something has an encryption that OpenSSL 3 does only with -legacy
	sealed    bool   // the seal has shown that the password is right
}

// read splits the file into its parts, each of which contains bags.
func (p *pfx) read(data []byte) (parts []contentInfo, err error) {
	switch _, err := asn1.Unmarshal(data, p); {
	case len(data) > 1 && data[1] == 0x80:
		return nil, errors.New("it is in BER, as NSS and Firefox write it")
	case err != nil:
		return nil, errDamaged
	case !p.Safe.Type.Equal(oidData):
		return nil, errPublicKey
	}
	content, err := octets(p.Safe.Content.Bytes)
	if err == nil {
		_, err = asn1.Unmarshal(content, &parts)
	}
	if err != nil {
		return nil, errDamaged
	}
	return parts, nil
}

var (
	// errDamaged is for data that cannot be parsed.
	errDamaged = errors.New("it is damaged, or in BER")

	// errPublicKey is for a file that OpenSSL does not read either.
	errPublicKey = errors.New("is a PKCS#12 file sealed with a public key: export it again with a password")
)

// octets returns the content of an OCTET STRING.
func octets(der []byte) (out []byte, err error) {
	_, err = asn1.Unmarshal(der, &out)
	return out, err
}

// mac counts the rounds of the file's seal.
func (s *inspection) mac(m macData) error {
	switch id := m.Digest.Algorithm.Algorithm; {
	case len(id) == 0:
		return nil
	case id.Equal(oidPBMAC1):
		return s.pbkdf2(m.Digest.Algorithm)
	}
	return s.left.spend(m.Iterations)
}

// part counts the rounds of a part, and of the visible keys in it.
func (s *inspection) part(part contentInfo) error {
	switch {
	case part.Type.Equal(oidEncryptedData):
		var e encryptedContent
		if _, err := asn1.Unmarshal(part.Content.Bytes, &e); err != nil {
			return s.convert(errDamaged.Error(), err)
		}
		s.encrypted++
		s.unseen = append(s.unseen, part)
		return s.algorithm(e.Info.Algorithm)
	case part.Type.Equal(oidData):
		s.seen = append(s.seen, part)
		return s.bags(part)
	}
	return s.convert(fmt.Sprintf("it has a part of an unsupported type (%s)", part.Type), nil)
}

func (s *inspection) bags(part contentInfo) error {
	content, err := octets(part.Content.Bytes)
	if err != nil {
		return s.convert(errDamaged.Error(), err)
	}
	var bags []safeBag
	if _, err := asn1.Unmarshal(content, &bags); err != nil {
		return s.convert(errDamaged.Error(), err)
	}
	if len(bags) > maxCertificates+maxKeys {
		return fmt.Errorf("holds %d certificates and keys, which is too many: export only one certificate with its key", len(bags))
	}
	for _, bag := range bags {
		if err := s.bag(bag); err != nil {
			return err
		}
	}
	return nil
}

func (s *inspection) bag(bag safeBag) error {
	switch {
	case bag.ID.Equal(oidKeyBag):
		s.keys++
		return keysize.Private(bag.Value.Bytes)
	case bag.ID.Equal(oidShroudedBag):
		s.keys++
		var key encryptedPrivateKeyInfo
		if _, err := asn1.Unmarshal(bag.Value.Bytes, &key); err != nil {
			return s.convert(errDamaged.Error(), err)
		}
		if len(key.Data) > maxShrouded {
			return fmt.Errorf("has a private key of %d bytes, which is larger than any real one", len(key.Data))
		}
		return s.algorithm(key.Algorithm)
	}
	return nil
}

// algorithm counts the rounds of an encryption: PBES2, or one of the kinds before it, whose
// parameters all have the same form.
func (s *inspection) algorithm(a pkix.AlgorithmIdentifier) error {
	if a.Algorithm.Equal(oidPBES2) {
		return s.pbkdf2(a)
	}
	s.legacy = s.legacy || isLegacy(a.Algorithm)
	s.support(a.Algorithm, pbes1Read)
	var params pbeParams
	if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &params); err != nil {
		return s.convert(errDamaged.Error(), err)
	}
	return s.left.spend(params.Iterations)
}

// What go-pkcs12 reads, by object identifier: encryption, PBES2's ciphers, its hashes.
var (
	pbes1Read  = []string{"1.2.840.113549.1.12.1.3", "1.2.840.113549.1.12.1.5", "1.2.840.113549.1.12.1.6"}
	cipherRead = []string{"2.16.840.1.101.3.4.1.2", "2.16.840.1.101.3.4.1.22", "2.16.840.1.101.3.4.1.42"}
	hashRead   = []string{"", "1.2.840.113549.2.7", "1.2.840.113549.2.9", "1.2.840.113549.2.11"}
)

// support notes an algorithm that go-pkcs12 does not read.
func (s *inspection) support(id asn1.ObjectIdentifier, read []string) {
	if s.refused == "" && !slices.Contains(read, id.String()) {
		s.refused = "it is encrypted in a way that is not supported (" + nameOf(id) + ")"
	}
}

// pbkdf2 counts the rounds of PBES2 and PBMAC1. go-pkcs12 has no other way to derive a key, such
// as scrypt.
func (s *inspection) pbkdf2(a pkix.AlgorithmIdentifier) error {
	var params pbes2Params // PBMAC1 has the same form, with a MAC instead of the cipher
	if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &params); err != nil {
		return s.convert(errDamaged.Error(), err)
	}
	if a.Algorithm.Equal(oidPBES2) {
		s.legacy = s.legacy || isLegacy(params.Cipher.Algorithm)
		s.support(params.Cipher.Algorithm, cipherRead)
	}
	if !params.KDF.Algorithm.Equal(oidPBKDF2) {
		s.support(params.KDF.Algorithm, nil)
		return nil
	}
	var kdf kdfParams
	if _, err := asn1.Unmarshal(params.KDF.Parameters.FullBytes, &kdf); err != nil {
		return s.convert(errDamaged.Error(), err)
	}
	if a.Algorithm.Equal(oidPBES2) {
		s.support(kdf.PRF.Algorithm, hashRead)
	}
	return s.left.spend(kdf.Iterations)
}

// decode reads the key and the certificates, with the visible parts first.
func (p *pfx) decode(s *inspection, password string) (bundle, error) {
	seals := []string{bmp(password)}
	if password == "" {
		seals = append(seals, "") // some programs encode an empty password this way
	}
	var err error // the most useful one
	for _, seal := range seals {
		sealed, failed := p.sealed(slices.Concat(s.seen, s.unseen), seal)
		if failed != nil {
			return bundle{}, s.convert(errDamaged.Error(), failed)
		}
		key, cert, chain, failed := pkcs12.DecodeChain(sealed, password)
		if failed == nil {
			return newPKCS12(key, append([]*x509.Certificate{cert}, chain...))
		}
		if err == nil || isPassword(err) {
			err = failed
		}
	}
	return bundle{}, s.error(err, password)
}

func isPassword(err error) bool {
	return errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption)
}

func newPKCS12(key any, certs []*x509.Certificate) (bundle, error) {
	b := bundle{pkcs12: true}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return bundle{}, errors.New("has a private key that is neither RSA, EC nor Ed25519: give the key that the certificate's signing request was made with")
	}
	if err := b.addKey(signer); err != nil {
		return bundle{}, err
	}
	for _, cert := range certs {
		if err := b.addCert(cert); err != nil {
			return bundle{}, err
		}
	}
	return b, nil
}

// sealed is the file with its parts in another order and with a seal of ours (RFC 7292,
// appendix B, one round).
func (p *pfx) sealed(parts []contentInfo, password string) ([]byte, error) {
	content, err := asn1.Marshal(parts)
	if err != nil {
		return nil, err
	}
	inner, err := asn1.Marshal(content)
	if err != nil {
		return nil, err
	}
	safe := contentInfo{oidData, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner}}
	salt := []byte("propeller")
	mac := hmac.New(sha1.New, sealKey(string(salt), password))
	mac.Write(content)
	return asn1.Marshal(pfx{p.Version, safe, macData{
		Digest:     macDigest{pkix.AlgorithmIdentifier{Algorithm: oidSHA1, Parameters: asn1.NullRawValue}, mac.Sum(nil)},
		Salt:       salt,
		Iterations: 1,
	}})
}

// sealKey derives the seal's key in one round: it hashes whole blocks of the purpose (3), the
// salt and the password.
func sealKey(salt, password string) []byte {
	whole := func(s string) string {
		if s == "" {
			return ""
		}
		n := (len(s) + sha1.BlockSize - 1) / sha1.BlockSize * sha1.BlockSize
		return strings.Repeat(s, n/len(s)+1)[:n]
	}
	key := sha1.Sum([]byte(whole("\x03") + whole(salt) + whole(password)))
	return key[:]
}

// bmp is a password in PKCS#12's form: two bytes for each character, and a zero at the end.
func bmp(password string) string {
	var b strings.Builder
	for _, c := range append(utf16.Encode([]rune(password)), 0) {
		b.Write([]byte{byte(c >> 8), byte(c)})
	}
	return b.String()
}

// error turns an error of go-pkcs12 into advice. Those errors are known only by their text; a
// changed text falls through to the last cases.
func (s *inspection) error(err error, password string) error {
	switch text := strings.TrimPrefix(err.Error(), "pkcs12: "); {
	case text == "private key missing":
		return cause{"holds a certificate but no private key: in Keychain Access, export the certificate together with the key below it; or convert it with: " + s.command("") + ", and give the key's file as cert_key", err}
	case text == "certificate missing":
		return cause{"holds no certificate, only a private key: in Keychain Access, export the certificate together with its key", err}
	case text == "expected exactly one key bag":
		return cause{"holds several private keys: export only one certificate with its key, or convert it to PEM, from which the certificate that fits is used: " + s.command(""), err}
	case strings.HasPrefix(text, "x509: "):
		return cause{"has a certificate that cannot be parsed" + reason(err) + ": take the app's own certificate and key out of it with: " + s.command("-clcerts "), err}
	case isPassword(err) || !s.sealed && s.left < maxIterations: // the password may be wrong
		return passwordError("the PKCS#12 file", password)
	}
	return s.convert(errDamaged.Error(), err)
}

// convert is the error for a file that OpenSSL can probably read.
func (s *inspection) convert(why string, err error) error {
	return cause{"is a PKCS#12 file that cannot be used directly: " + why + "; convert it to PEM with: " + s.command(""), err}
}

// command is the openssl command that converts the file to PEM. Encryption that cannot be seen
// is assumed to need -legacy.
func (s *inspection) command(options string) string {
	const in = "-in " + pemfile.File + " -nodes -out new.pem"
	if s.encrypted+s.keys > 0 && !s.legacy {
		return "openssl pkcs12 " + options + in
	}
	return "openssl pkcs12 -legacy " + options + in + " (without -legacy if your openssl does not know it)"
}
