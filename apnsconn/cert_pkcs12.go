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
)

// PKCS#12 (RFC 7292, section 4), as far as it takes to see what a file asks for
// before go-pkcs12, which has no bounds, does it.
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

// maxShrouded bounds an encrypted key, in bytes: it is checked by go-pkcs12 before
// its size can be seen. One of 8192 bits has less than 5 KiB.
const maxShrouded = 8 << 10

// parsePKCS12 reads both the old form (RC2, triple DES) and the modern one.
//
// A key inside an encrypted part could ask for any work, unseen. So the parts are
// handed to go-pkcs12 with those that can be seen in front: it takes one key only,
// and refuses another before it looks at it.
func parsePKCS12(data []byte, password string) (bundle, error) {
	var p pfx
	if _, err := asn1.Unmarshal(data, &p); err != nil {
		return bundle{}, pkcs12Error(err)
	}
	parts, err := p.parts()
	if err != nil {
		return bundle{}, pkcs12Error(err)
	}
	s := sight{left: maxIterations}
	if err := s.mac(p.Mac); err != nil {
		return bundle{}, err
	}
	for _, part := range parts {
		if err := s.part(part); err != nil {
			return bundle{}, err
		}
	}
	// This reads the certificates only, and with them whether the password is right.
	_, err = pkcs12.DecodeTrustStore(data, password)
	if isPassword(err) {
		return bundle{}, passwordError("the PKCS#12 file", password)
	}
	if s.keys == 0 && s.encrypted > 0 {
		return bundle{}, pkcs12Error(errors.New("private key missing"))
	}
	if s.keys > 1 {
		return bundle{}, pkcs12Error(errors.New("expected exactly one key bag"))
	}
	return p.decode(s.seen, s.unseen, data, password)
}

// sight is what can be seen of a PKCS#12 file without decrypting anything.
type sight struct {
	left      budget
	keys      int
	encrypted int
	seen      []contentInfo // the parts whose bags can be seen
	unseen    []contentInfo
}

// parts are the parts of the file: in each there are bags.
func (p *pfx) parts() (parts []contentInfo, err error) {
	if !p.Safe.Type.Equal(oidData) {
		return nil, errors.New("only password-protected PFX is implemented")
	}
	content, err := octets(p.Safe.Content.Bytes)
	if err != nil {
		return nil, err
	}
	if _, err := asn1.Unmarshal(content, &parts); err != nil {
		return nil, err
	}
	if len(parts) > 2 {
		return nil, fmt.Errorf("it has %d parts, and at most 2 are read", len(parts))
	}
	return parts, nil
}

// octets is what an OCTET STRING holds.
func octets(der []byte) (out []byte, err error) {
	_, err = asn1.Unmarshal(der, &out)
	return out, err
}

// mac counts the rounds of the file's seal.
func (s *sight) mac(m macData) error {
	switch id := m.Digest.Algorithm.Algorithm; {
	case len(id) == 0:
		return nil
	case id.Equal(oidPBMAC1):
		return s.pbkdf2(m.Digest.Algorithm)
	}
	return s.left.spend(m.Iterations)
}

// part counts the rounds of a part, and of the keys that can be seen in it.
func (s *sight) part(part contentInfo) error {
	switch {
	case part.Type.Equal(oidEncryptedData):
		var e encryptedContent
		if _, err := asn1.Unmarshal(part.Content.Bytes, &e); err != nil {
			return pkcs12Error(err)
		}
		s.encrypted++
		s.unseen = append(s.unseen, part)
		return s.algorithm(e.Info.Algorithm)
	case part.Type.Equal(oidData):
		s.seen = append(s.seen, part)
		return s.bags(part)
	}
	return pkcs12Error(fmt.Errorf("it has a part of a type that is not supported (%s)", part.Type))
}

func (s *sight) bags(part contentInfo) error {
	content, err := octets(part.Content.Bytes)
	if err != nil {
		return pkcs12Error(err)
	}
	var bags []safeBag
	if _, err := asn1.Unmarshal(content, &bags); err != nil {
		return pkcs12Error(err)
	}
	if len(bags) > maxCertificates+maxKeys {
		return fmt.Errorf("holds %d certificates and keys, more than are read: export one certificate with its key only", len(bags))
	}
	for _, bag := range bags {
		if err := s.bag(bag); err != nil {
			return err
		}
	}
	return nil
}

func (s *sight) bag(bag safeBag) error {
	switch {
	case bag.ID.Equal(oidKeyBag):
		s.keys++
		return keysize.Private(bag.Value.Bytes)
	case bag.ID.Equal(oidShroudedBag):
		s.keys++
		var key encryptedPrivateKeyInfo
		if _, err := asn1.Unmarshal(bag.Value.Bytes, &key); err != nil {
			return pkcs12Error(err)
		}
		if len(key.Data) > maxShrouded {
			return fmt.Errorf("has a private key of %d bytes, so it is larger than any that is used", len(key.Data))
		}
		return s.algorithm(key.Algorithm)
	}
	return nil
}

// algorithm counts the rounds of an encryption: PBES2's, or those of the kinds
// before it, which all say them in the same way.
func (s *sight) algorithm(a pkix.AlgorithmIdentifier) error {
	if a.Algorithm.Equal(oidPBES2) {
		return s.pbkdf2(a)
	}
	var params pbeParams
	if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &params); err != nil {
		return pkcs12Error(err)
	}
	return s.left.spend(params.Iterations)
}

// pbkdf2 counts the rounds of PBES2 and PBMAC1. Any other way to derive a key
// (scrypt) go-pkcs12 does not have.
func (s *sight) pbkdf2(a pkix.AlgorithmIdentifier) error {
	var params pbes2Params // of PBMAC1, too: it has a MAC for the cipher
	if _, err := asn1.Unmarshal(a.Parameters.FullBytes, &params); err != nil {
		return pkcs12Error(err)
	}
	if !params.KDF.Algorithm.Equal(oidPBKDF2) {
		return pkcs12Error(unsupported("key derivation", params.KDF.Algorithm))
	}
	var kdf kdfParams
	if _, err := asn1.Unmarshal(params.KDF.Parameters.FullBytes, &kdf); err != nil {
		return pkcs12Error(err)
	}
	return s.left.spend(kdf.Iterations)
}

// decode takes the key and the certificates out, the parts that can be seen first.
func (p *pfx) decode(seen, unseen []contentInfo, data []byte, password string) (bundle, error) {
	seals := []string{""} // no seal at all
	if len(p.Mac.Digest.Algorithm.Algorithm) > 0 {
		if seals = []string{bmp(password)}; password == "" {
			seals = append(seals, "") // what some programs mean by an empty password
		}
	}
	var err error // the one that says most
	for _, seal := range seals {
		sealed := data
		if len(unseen) > 0 { // else nothing is hidden
			var failed error
			if sealed, failed = p.sealed(slices.Concat(seen, unseen), seal); failed != nil {
				return bundle{}, pkcs12Error(failed)
			}
		}
		key, cert, chain, failed := pkcs12.DecodeChain(sealed, password)
		if failed == nil {
			return newPKCS12(key, append([]*x509.Certificate{cert}, chain...))
		}
		if err == nil || isPassword(err) {
			err = failed
		}
	}
	if isPassword(err) {
		return bundle{}, passwordError("the PKCS#12 file", password)
	}
	return bundle{}, pkcs12Error(err)
}

func isPassword(err error) bool {
	return errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption)
}

func newPKCS12(key any, certs []*x509.Certificate) (bundle, error) {
	b := bundle{pkcs12: true}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return bundle{}, fmt.Errorf("has a private key of a kind that cannot sign: %T", key)
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

// sealed is the file with its parts in another order, under a seal of its own (RFC
// 7292, appendix B, one round), if it had one.
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
	if len(p.Mac.Digest.Algorithm.Algorithm) == 0 {
		return asn1.Marshal(struct {
			Version int
			Safe    contentInfo
		}{p.Version, safe})
	}
	salt := []byte("propeller")
	mac := hmac.New(sha1.New, sealKey(string(salt), password))
	mac.Write(content)
	return asn1.Marshal(pfx{p.Version, safe, macData{
		Digest:     macDigest{pkix.AlgorithmIdentifier{Algorithm: oidSHA1, Parameters: asn1.NullRawValue}, mac.Sum(nil)},
		Salt:       salt,
		Iterations: 1,
	}})
}

// sealKey derives the seal's key in one round: what is hashed are whole blocks of
// the purpose, 3, of the salt and of the password.
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

// bmp is a password as PKCS#12 has it: two bytes each, and a zero at the end.
func bmp(password string) string {
	var b strings.Builder
	for _, c := range append(utf16.Encode([]rune(password)), 0) {
		b.Write([]byte{byte(c >> 8), byte(c)})
	}
	return b.String()
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
