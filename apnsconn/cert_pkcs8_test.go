package apnsconn

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"

	"propeller/internal/pemfile"
)

// pbes2Spec describes an encrypted key. Its data is no real ciphertext.
type pbes2Spec struct {
	iterations, keyLength int
	prf, cipher           asn1.ObjectIdentifier
	iv, data              int // bytes
}

func (s pbes2Spec) der(t *testing.T) []byte {
	t.Helper()
	marshal := func(v any) []byte {
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	algorithm := func(id asn1.ObjectIdentifier, params any) pkix.AlgorithmIdentifier {
		return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: marshal(params)}}
	}
	return marshal(encryptedPrivateKeyInfo{
		Algorithm: algorithm(oidPBES2, pbes2Params{
			KDF: algorithm(oidPBKDF2, pbkdf2Params{
				Salt: []byte("saltsalt"), Iterations: s.iterations, KeyLength: s.keyLength,
				PRF: pkix.AlgorithmIdentifier{Algorithm: s.prf, Parameters: asn1.NullRawValue},
			}),
			Cipher: algorithm(s.cipher, make([]byte, s.iv)),
		}),
		Data: make([]byte, s.data),
	})
}

// TestDecryptPKCS8Parameters: parameters come from the file, so none may panic
// or ask for endless work.
func TestDecryptPKCS8Parameters(t *testing.T) {
	t.Parallel()
	sha256 := asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	aes256 := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	md5 := asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 5}
	good := pbes2Spec{iterations: 1, prf: sha256, cipher: aes256, iv: 16, data: 32}
	tests := map[string]struct {
		change func(s *pbes2Spec)
		want   string
	}{
		"sound, but another password": {func(s *pbes2Spec) {}, "the password for its private key is wrong"},
		"key length given":            {func(s *pbes2Spec) { s.keyLength = 32 }, "the password for its private key is wrong"},
		"key length of another":       {func(s *pbes2Spec) { s.keyLength = 16 }, "the file is damaged"},
		"no rounds":                   {func(s *pbes2Spec) { s.iterations = 0 }, "the file is damaged"},
		"negative rounds":             {func(s *pbes2Spec) { s.iterations = -1 }, "the file is damaged"},
		"too many rounds":             {func(s *pbes2Spec) { s.iterations = 10_000_001 }, "asks for 10000001 rounds of key derivation, more than the limit of 10000000"},
		"unknown hash":                {func(s *pbes2Spec) { s.prf = md5 }, "in a way that is not supported (1.2.840.113549.2.5)"},
		"unknown cipher":              {func(s *pbes2Spec) { s.cipher = md5 }, "in a way that is not supported (1.2.840.113549.2.5)"},
		"short iv":                    {func(s *pbes2Spec) { s.iv = 8 }, "the file is damaged"},
		"no data":                     {func(s *pbes2Spec) { s.data = 0 }, "the file is damaged"},
		"data not whole blocks":       {func(s *pbes2Spec) { s.data = 33 }, "the file is damaged"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := good
			tt.change(&s)
			left := budget(maxIterations)
			_, err := decryptPKCS8(&pemfile.Block{Block: pem.Block{Bytes: s.der(t)}}, "hunter2", &left)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}
