package apnsconn

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// endless is more rounds than any machine will ever do.
const endless = 1 << 62

func inDER(t *testing.T, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func algorithm(t *testing.T, id asn1.ObjectIdentifier, params any) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: inDER(t, params)}}
}

// part is a part of a PKCS#12 file.
func part(t *testing.T, id asn1.ObjectIdentifier, content any) contentInfo {
	return contentInfo{id, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: inDER(t, content)}}
}

var oidTripleDES = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3}

// shrouded is the bag of a key that is encrypted as the algorithm says, or not at all.
func shrouded(t *testing.T, a pkix.AlgorithmIdentifier) safeBag {
	info := inDER(t, encryptedPrivateKeyInfo{a, make([]byte, 64)})
	return safeBag{ID: oidShroudedBag, Value: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: info}}
}

// pbes2 is PBES2 with AES-128, or PBMAC1 with a MAC in the cipher's place.
func pbes2(t *testing.T, id asn1.ObjectIdentifier, rounds int) pkix.AlgorithmIdentifier {
	kdf := pbkdf2Params{Salt: []byte("saltsalt"), Iterations: rounds, KeyLength: 32, PRF: algorithm(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, asn1.NullRawValue)}
	ciph := algorithm(t, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, make([]byte, 16))
	if id.Equal(oidPBMAC1) {
		ciph = algorithm(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, asn1.NullRawValue)
	}
	return algorithm(t, id, pbes2Params{KDF: algorithm(t, oidPBKDF2, kdf), Cipher: ciph})
}

// hidden is an encrypted part with bags, which opens by the password in one round.
func hidden(t *testing.T, password string, bags []safeBag) contentInfo {
	plain := inDER(t, bags)
	key, err := pbkdf2.Key(sha256.New, password, []byte("saltsalt"), 1, 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	n := 16 - len(plain)%16
	plain = append(plain, bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(plain, plain)
	var e encryptedContent
	e.Info.Type, e.Info.Algorithm, e.Info.Content = oidData, pbes2(t, oidPBES2, 1), plain
	return part(t, oidEncryptedData, e)
}

// inTime fails a test whose work does not end; its goroutine cannot be ended.
func inTime(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("does what the file asks for")
	}
}

// No count that a PKCS#12 file holds, wherever it is, is work without an end.
func TestPKCS12AsksForEndlessWork(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	old := func(rounds int) pkix.AlgorithmIdentifier {
		return algorithm(t, oidTripleDES, pbeParams{[]byte("saltsalt"), rounds})
	}
	sealed := pfx{Version: 3, Mac: macData{Digest: macDigest{Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidSHA1}}}}
	file := func(parts ...contentInfo) []byte {
		der, err := sealed.sealed(parts, bmp(password))
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	mac := func(a pkix.AlgorithmIdentifier, rounds int) []byte {
		return inDER(t, pfx{3, part(t, oidData, inDER(t, []contentInfo{})), macData{macDigest{a, make([]byte, 20)}, make([]byte, 8), rounds}})
	}
	bags := func(bags ...safeBag) contentInfo { return part(t, oidData, inDER(t, bags)) }
	encrypted := func(a pkix.AlgorithmIdentifier) contentInfo {
		var e encryptedContent
		e.Info.Type, e.Info.Algorithm, e.Info.Content = oidData, a, make([]byte, 64)
		return part(t, oidEncryptedData, e)
	}
	der, err := x509.MarshalPKCS8PrivateKey(newTestKey(t))
	if err != nil {
		t.Fatal(err)
	}
	good := safeBag{ID: oidKeyBag, Value: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: der}}
	asks := "asks for 4611686018427387904 rounds of key derivation, more than the limit of 10000000"
	for name, tt := range map[string]struct {
		der  []byte
		want string
	}{
		"mac":                   {mac(pkix.AlgorithmIdentifier{Algorithm: oidSHA1}, endless), asks},
		"pbmac1":                {mac(pbes2(t, oidPBMAC1, endless), 1), asks},
		"part, old":             {file(encrypted(old(endless))), asks},
		"part, pbes2":           {file(encrypted(pbes2(t, oidPBES2, endless))), asks},
		"key, old":              {file(bags(shrouded(t, old(endless)))), asks},
		"key, pbes2":            {file(bags(shrouded(t, pbes2(t, oidPBES2, endless)))), asks},
		"hidden key":            {file(hidden(t, password, []safeBag{shrouded(t, old(endless))})), "holds a certificate but no private key"},
		"hidden key before one": {file(hidden(t, password, []safeBag{shrouded(t, old(endless))}), bags(good)), "holds several private keys"},
		"together": {file(encrypted(old(maxIterations-10)), bags(shrouded(t, old(10)))),
			"asks for more than 10000000 rounds of key derivation for all its keys"},
		"many bags": {file(bags(slices.Repeat([]safeBag{good}, 111)...)), "holds 111 certificates and keys, which is too many"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := inTempFile(t, "x.p12", tt.der)
			inTime(t, func() {
				_, err := LoadCertificate(path, "", password)
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q in it", err, tt.want)
				}
			})
		})
	}
}

// A file may have several keys, and as much work for all of them as for one.
func TestRoundsOfAllKeys(t *testing.T) {
	t.Parallel()
	key := newTestKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(rounds int) []byte {
		secret, err := pbkdf2.Key(sha256.New, "hunter2", []byte("saltsalt"), min(rounds, 10), 32)
		if err != nil {
			t.Fatal(err)
		}
		c, err := aes.NewCipher(secret)
		if err != nil {
			t.Fatal(err)
		}
		n := 16 - len(der)%16
		out := append(bytes.Clone(der), bytes.Repeat([]byte{byte(n)}, n)...)
		cipher.NewCBCEncrypter(c, make([]byte, 16)).CryptBlocks(out, out)
		return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: inDER(t, encryptedPrivateKeyInfo{pbes2(t, oidPBES2, rounds), out})})
	}
	cert := certPEM(newTestCert(t, certSpec{uid: "com.example.app"}, key))
	if _, err := LoadCertificate(inTempFile(t, "good.pem", cert, block(10), block(9)), "", "hunter2"); err != nil {
		t.Error(err)
	}
	_, err = LoadCertificate(inTempFile(t, "two.pem", cert, block(10), block(maxIterations-9)), "", "hunter2")
	if err == nil || !strings.Contains(err.Error(), "asks for more than 10000000 rounds of key derivation for all its keys") {
		t.Errorf("two keys: %v", err)
	}
	plain := keyPEM(t, newTestKey(t))
	_, err = LoadCertificate(inTempFile(t, "many.pem", cert, bytes.Repeat(plain, maxKeys+1)), "", "")
	if err == nil || !strings.Contains(err.Error(), "holds more than 10 private keys") {
		t.Errorf("many keys: %v", err)
	}
	_, err = LoadCertificate(inTempFile(t, "chain.pem", bytes.Repeat(cert, maxCertificates+1), plain), "", "")
	if err == nil || !strings.Contains(err.Error(), "holds more than 100 certificates") {
		t.Errorf("many certificates: %v", err)
	}
}

// An RSA key that is too large is refused before it is checked, which takes half a
// minute for one of a million bits, and before it is used.
func TestLargeRSA(t *testing.T) {
	t.Parallel()
	key := newTestKey(t)
	n := new(big.Int).SetBit(big.NewInt(1), 1<<20, 1)
	one := big.NewInt(1)
	pkcs1 := inDER(t, struct {
		Version                     int
		N, E, D, P, Q, Dp, Dq, Qinv *big.Int
	}{0, n, big.NewInt(65537), n, n, one, one, one, one})
	pkcs8 := inDER(t, struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{0, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue}, pkcs1})
	template := certSpec{uid: "com.example.app"}.template()
	public := &rsa.PublicKey{N: new(big.Int).SetBit(one, 8192, 1), E: 65537}
	der, err := x509.CreateCertificate(bytes.NewReader(make([]byte, 1<<10)), template, newTestCert(t, certSpec{}, key), public, key)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	cert, bag := certPEM(newTestCert(t, certSpec{}, key)), part(t, oidData, inDER(t, []safeBag{{ID: oidKeyBag,
		Value: asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: pkcs8}}}))
	p12 := inDER(t, struct {
		Version int
		Safe    contentInfo
	}{3, part(t, oidData, inDER(t, []contentInfo{bag}))})
	for name, file := range map[string]string{
		"PKCS#1":      inTempFile(t, "x.pem", cert, inPEM("RSA PRIVATE KEY", pkcs1)),
		"PKCS#8":      inTempFile(t, "x.pem", cert, inPEM("PRIVATE KEY", pkcs8)),
		"PKCS#12":     inTempFile(t, "x.p12", p12),
		"certificate": inTempFile(t, "x.pem", inPEM("CERTIFICATE", der), keyPEM(t, key)),
		"chain":       inTempFile(t, "x.pem", cert, inPEM("CERTIFICATE", der), keyPEM(t, key)),
		"DER":         inTempFile(t, "x.cer", der),
	} {
		inTime(t, func() {
			if _, err := LoadCertificate(file, "", ""); err == nil || !strings.Contains(err.Error(), "has an RSA key of ") || !strings.Contains(err.Error(), "at most 8192 are used") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	inTime(t, func() {
		if _, err := LoadKey(inTempFile(t, "x.p8", inPEM("PRIVATE KEY", pkcs8)), "ABC123DEFG", "DEF123GHIJ"); err == nil || !strings.Contains(err.Error(), "has an RSA key of ") {
			t.Errorf("LoadKey: %v", err)
		}
	})
}

// A pipe in place of a certificate or key has nobody wait for its writer.
func TestCredentialIsPipe(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	inTime(t, func() {
		_, err := LoadCertificate(pipe, "", "")
		_, kerr := LoadKey(pipe, "ABC123DEFG", "DEF123GHIJ")
		for _, err := range []error{err, kerr} {
			if err == nil || !strings.Contains(err.Error(), "is not a regular file") {
				t.Error(err)
			}
		}
	})
}
