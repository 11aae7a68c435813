package keysize

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// Roots with keys that take long to check with are refused, and more of them than
// anybody has.
func TestRootsAreBounded(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	own, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8192, 1), E: 65537}, key)
	if err != nil {
		t.Fatal(err)
	}
	good := inPEM(own)
	for want, text := range map[string][]byte{
		" has an RSA key of 8193 bits":      append(bytes.Clone(good), inPEM(der)...),
		"holds more than 1000 certificates": bytes.Repeat(good, 1001),
	} {
		if err := Roots(x509.NewCertPool(), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if err := Roots(x509.NewCertPool(), bytes.Repeat(good, 1000)); err != nil {
		t.Error(err)
	}
}
