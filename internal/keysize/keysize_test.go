package keysize

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// numbers is an RSA key by its form only, with a modulus of the given bits.
func numbers(t *testing.T, bits uint, primes any) []byte {
	t.Helper()
	one := big.NewInt(1)
	n := new(big.Int).Lsh(one, bits-1)
	key := struct {
		Version                     int
		N, E, D, P, Q, Dp, Dq, Qinv *big.Int
		Primes                      any `asn1:"optional"`
	}{0, n, big.NewInt(65537), n, one, one, one, one, one, primes}
	der, err := asn1.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// wrapped is a key as PKCS#8 has it.
func wrapped(t *testing.T, der []byte) []byte {
	t.Helper()
	type algorithm struct{ ID asn1.ObjectIdentifier }
	out, err := asn1.Marshal(struct {
		Version   int
		Algorithm algorithm
		Key       []byte
	}{0, algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}}, der})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	few := []asn1.RawValue{}
	for name, der := range map[string][]byte{"": nil, "text": []byte("hello"), "8192": numbers(t, 8192, few), "wrapped 8192": wrapped(t, numbers(t, 8192, few))} {
		if err := Private(der); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	huge := new(big.Int).Lsh(big.NewInt(1), 1<<20)
	for name, der := range map[string][]byte{
		"8193": numbers(t, 8193, few), "wrapped 8193": wrapped(t, numbers(t, 8193, few)),
		"1 Mbit": numbers(t, 1<<20, few), "primes": numbers(t, 2048, []*big.Int{huge}),
	} {
		if err := Private(der); err == nil || !strings.Contains(err.Error(), "at most 8192 are used") {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := make([]*big.Int, 1000)
	for i := range many {
		many[i] = big.NewInt(int64(i))
	}
	der, err := asn1.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	if err := Private(der); err == nil {
		t.Error("a key of 1000 numbers is taken")
	}
}

// A server's certificate with a key that would cost half a minute to refuse is
// refused at once, whichever of the files it is in.
func TestPair(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := func(public any) []byte {
		s := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, s, s, public, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	good, own := of(&key.PublicKey), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if _, err := Pair(good, own); err != nil {
		t.Error(err)
	}
	mangled := []byte("\ufeff" + strings.ReplaceAll(string(good), "\n", "\r"))
	if pair, err := Pair(append(mangled, good...), bytes.ReplaceAll(own, []byte("\n"), []byte(`\n`))); err != nil || len(pair.Certificate) != 2 {
		t.Errorf("%d certificates, %v", len(pair.Certificate), err)
	}
	for want, pair := range map[string][2][]byte{
		"the certificate is damaged: the CERTIFICATE that begins at line ": {append(bytes.Clone(good), good[:90]...), own},
		"the key is neither PEM nor DER":                                   {good, []byte("hello")},
	} {
		if _, err := Pair(pair[0], pair[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	large := of(&rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 9000, 1), E: 65537})
	costly := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: numbers(t, 1<<20, []asn1.RawValue{})})
	many := []byte(strings.Repeat(string(good), maxPair+1))
	for name, pair := range map[string][2][]byte{"key": {good, costly}, "certificate": {large, own}, "chain": {append(good[:len(good):len(good)], large...), own}, "many": {many, own}} {
		if _, err := Pair(pair[0], pair[1]); err == nil || !strings.Contains(err.Error(), "at most 8192") && !strings.Contains(err.Error(), "more than 100 PEM") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

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
