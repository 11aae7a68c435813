package apnsconn

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"propeller/internal/keysize"
)

// opensslPassword is the password of all files in testdata/openssl.
const opensslPassword = "correct horse"

func openssl(name string) string { return filepath.Join("testdata", "openssl", name) }

func TestLoadCertificateFromPEM(t *testing.T) {
	t.Parallel()
	key, other := newTestKey(t), newTestKey(t)
	leaf := newTestCert(t, certSpec{uid: "com.example.app"}, key)
	ca := newTestCert(t, certSpec{uid: "ca"}, other)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaLeaf := newTestCert(t, certSpec{uid: "com.example.rsa"}, rsaKey)
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	bag := []byte("Bag Attributes\n    friendlyName: Apple Push Services: x\nKey Attributes: <No Attributes>\n")
	params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}})

	tests := []struct {
		name      string
		cert, key []byte // key nil: no second file
		leaf      *x509.Certificate
		chain     []*x509.Certificate
	}{
		{"certificate then key", join(certPEM(leaf), keyPEM(t, key)), nil, leaf, nil},
		{"key then certificate", join(keyPEM(t, key), certPEM(leaf)), nil, leaf, nil},
		{"text between", join(bag, certPEM(leaf), bag, params, keyPEM(t, key)), nil, leaf, nil},
		{"two files", certPEM(leaf), keyPEM(t, key), leaf, nil},
		{"chain", join(certPEM(leaf, ca), keyPEM(t, key)), nil, leaf, []*x509.Certificate{ca}},
		{"chain first", join(certPEM(ca, leaf), keyPEM(t, key)), nil, leaf, []*x509.Certificate{ca}},
		{"leaf twice", join(certPEM(leaf, ca, leaf), keyPEM(t, key)), nil, leaf, []*x509.Certificate{ca}},
		{"a key too many", join(keyPEM(t, other), certPEM(leaf), keyPEM(t, key)), nil, leaf, nil},
		{"other key beside the key file", join(certPEM(leaf), keyPEM(t, other)), keyPEM(t, key), leaf, nil},
		{"certificate as DER", leaf.Raw, keyPEM(t, key), leaf, nil},
		{"RSA, PKCS#1", join(certPEM(rsaLeaf), pkcs1), nil, rsaLeaf, nil},
		{"RSA, PKCS#8", join(certPEM(rsaLeaf), keyPEM(t, rsaKey)), nil, rsaLeaf, nil},
		{"CRLF", bytes.ReplaceAll(join(certPEM(leaf), keyPEM(t, key)), []byte("\n"), []byte("\r\n")), nil, leaf, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file, keyFile := inTempFile(t, "c.pem", tt.cert), ""
			if tt.key != nil {
				keyFile = inTempFile(t, "k.pem", tt.key)
			}
			c, err := LoadCertificate(file, keyFile, "a password that is not needed")
			if err != nil {
				t.Fatal(err)
			}
			checkLoaded(t, c, file, tt.leaf, tt.chain)
		})
	}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// checkLoaded says whether c is the leaf, with its chain and a key that signs for it.
func checkLoaded(t *testing.T, c *Certificate, file string, leaf *x509.Certificate, chain []*x509.Certificate) {
	t.Helper()
	pair := parsedTLS(t, c)
	if !pair.Leaf.Equal(leaf) || c.File != file || !c.NotBefore.Equal(leaf.NotBefore) || !c.NotAfter.Equal(leaf.NotAfter) {
		t.Errorf("loaded %v, want the leaf %v of %s", c, leaf.Subject, file)
	}
	if c.Fingerprint != sha256.Sum256(leaf.Raw) {
		t.Errorf("fingerprint %x", c.Fingerprint)
	}
	want := [][]byte{leaf.Raw}
	for _, other := range chain {
		want = append(want, other.Raw)
	}
	if !slices.EqualFunc(pair.Certificate, want, bytes.Equal) {
		t.Errorf("chain of %d certificates, or their order, is wrong; want %d", len(pair.Certificate), len(want))
	}
	if len(match([]*x509.Certificate{pair.Leaf}, asSigners(t, c))) != 1 {
		t.Error("the key does not belong to the leaf")
	}
}

func TestLoadCertificateFromPKCS12(t *testing.T) {
	t.Parallel()
	key, other := newTestKey(t), newTestKey(t)
	leaf := newTestCert(t, certSpec{uid: "com.example.app"}, key)
	ca := newTestCert(t, certSpec{uid: "ca"}, other)
	encoders := map[string]*pkcs12.Encoder{
		"Passwordless": pkcs12.Passwordless, "LegacyRC2": pkcs12.LegacyRC2, "LegacyDES": pkcs12.LegacyDES,
		"Modern2023": pkcs12.Modern2023, "Modern2026": pkcs12.Modern2026,
	}
	for name, enc := range encoders {
		for i, password := range []string{"", "hunter2", "pässwörd"} {
			if name == "Passwordless" && password != "" {
				continue
			}
			t.Run(fmt.Sprint(name, i), func(t *testing.T) {
				t.Parallel()
				data, err := enc.Encode(key, leaf, []*x509.Certificate{ca}, password)
				if err != nil {
					t.Fatal(err)
				}
				file := inTempFile(t, "c.p12", data)
				c, err := LoadCertificate(file, "", password)
				if err != nil {
					t.Fatal(err)
				}
				checkLoaded(t, c, file, leaf, []*x509.Certificate{ca})

				if password != "" {
					wantFault(t, file, "", "hunter3", "the password for the PKCS#12 file is wrong", ErrPassword)
					wantFault(t, file, "", "", "the PKCS#12 file is encrypted and no password was given", ErrPassword)
				}
				wantFault(t, file, file, password, "do not give a key file as well", nil)
			})
		}
	}
}

// TestLoadCertificateOfOpenSSL opens what the openssl command wrote.
func TestLoadCertificateOfOpenSSL(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"old-aes256.key", "old-des3.key", "pbes2-aes-128-cbc.key", "pbes2-aes-192-cbc.key", "pbes2-aes-256-cbc.key",
		"pbes2-des3.key", "pbes2-hmacWithSHA1.key", "pbes2-hmacWithSHA512.key",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := LoadCertificate(openssl("cert.pem"), openssl(name), opensslPassword)
			if err != nil {
				t.Fatal(err)
			}
			if c.UID != "com.example.app" {
				t.Errorf("UID %q", c.UID)
			}
			for _, wrong := range []string{"hunter2", opensslPassword + " ", strings.ToUpper(opensslPassword)} {
				wantFault(t, openssl("cert.pem"), openssl(name), wrong, "the password for its private key is wrong", ErrPassword)
			}
			wantFault(t, openssl("cert.pem"), openssl(name), "", "its private key is encrypted and no password was given", ErrPassword)
		})
	}
	for _, name := range []string{"plain.key", "pkcs8.key"} {
		if _, err := LoadCertificate(openssl("cert.pem"), openssl(name), ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"modern.p12", "legacy.p12"} {
		if _, err := LoadCertificate(openssl(name), "", opensslPassword); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantFault(t, openssl(name), "", "hunter2", "the password for the PKCS#12 file is wrong", ErrPassword)
	}
	wantFault(t, openssl("cert.pem"), openssl("pbes1.key"), opensslPassword,
		"encrypted in a way that is not supported (triple DES of PKCS#12): rewrite the key with: openssl pkey -in pbes1.key -aes256 -out new.pem", nil)
	wantFault(t, openssl("cert.pem"), openssl("scrypt.key"), opensslPassword,
		"encrypted in a way that is not supported (scrypt): rewrite the key with: openssl pkey -in scrypt.key ", nil)
	wantFault(t, openssl("nokey.p12"), "", opensslPassword, "holds a certificate but no private key: in Keychain Access", nil)
}

func TestLoadCertificateFaults(t *testing.T) {
	t.Parallel()
	key, other := newTestKey(t), newTestKey(t)
	leaf := newTestCert(t, certSpec{uid: "com.example.app"}, key)
	good := inTempFile(t, "good.pem", certPEM(leaf), keyPEM(t, key))
	certOnly := inTempFile(t, "cert.pem", certPEM(leaf))
	huge := make([]byte, maxCredentialFile+1)
	damagedKey := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("garbage")})
	damagedPBES := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("garbage")})

	wantFault(t, "nowhere.pem", "", "", "no such file", fs.ErrNotExist)
	wantFault(t, certOnly, "nowhere.key", "", "no such file", fs.ErrNotExist)
	wantFault(t, t.TempDir(), "", "", "is a folder", nil)
	wantFault(t, inTempFile(t, "empty.pem"), "", "", "is empty", nil)
	wantFault(t, inTempFile(t, "huge.pem", huge), "", "", "is larger than 1024 KiB", nil)
	wantFault(t, inTempFile(t, "x.pem", []byte("hello")), "", "", "is neither PEM nor PKCS#12", nil)
	wantFault(t, inTempFile(t, "x.p12", []byte("hello")), "", "", "is neither PEM nor PKCS#12", nil)
	wantFault(t, inTempFile(t, "x", []byte{0x30, 0x80, 0, 0}), "", "", "is neither PEM nor PKCS#12", nil)
	wantFault(t, inTempFile(t, "x.pem", certPEM(leaf)[:60]), "", "", "is damaged: the CERTIFICATE that begins at line 1 has no END line", nil)
	wantFault(t, inTempFile(t, "x.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), "", "", "its certificate at line 1 cannot be parsed", nil)
	wantFault(t, inTempFile(t, "x.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")})), "", "", "holds a certificate signing request, but no certificate: upload it", nil)

	wantFault(t, certOnly, "", "", "holds a certificate but no private key: export both together", nil)
	wantFault(t, inTempFile(t, "aps.cer", leaf.Raw), "", "", "holds a certificate but no private key: export both together", nil)
	wantFault(t, certOnly, certOnly, "", "holds no private key", nil)
	wantFault(t, inTempFile(t, "AuthKey.p8", keyPEM(t, key)), "", "", "if it is Apple's .p8 file, give it as key, with key_id and team_id", nil)
	wantFault(t, certOnly, inTempFile(t, "k.pem", keyPEM(t, other)), "", "the private key does not belong to the certificate", nil)
	wantFault(t, inTempFile(t, "x.pem", certPEM(leaf), keyPEM(t, other)), "", "", "the private key does not belong to the certificate", nil)
	wantFault(t, certOnly, inTempFile(t, "k.pem", damagedKey), "", "its private key at line 1 cannot be parsed: it is damaged", nil)
	wantFault(t, certOnly, inTempFile(t, "k.pem", damagedPBES), "hunter2", "its private key cannot be parsed: the file is damaged", nil)

	if _, err := LoadCertificate(good, "", ""); err != nil { // what all these differ from
		t.Error(err)
	}
}

// wantFault loads and wants an error that names a file, has a text in it and
// wraps a cause, and that shows neither password nor key.
func wantFault(t *testing.T, certFile, keyFile, password, text string, wraps error) {
	t.Helper()
	_, err := LoadCertificate(certFile, keyFile, password)
	var ce *CertificateError
	if !errors.As(err, &ce) {
		t.Errorf("%s, %s: got %v, want a *CertificateError with %q", certFile, keyFile, err, text)
		return
	}
	if ce.File != certFile && ce.File != keyFile || !strings.Contains(err.Error(), fmt.Sprintf("%q", ce.File)) {
		t.Errorf("%s, %s: error %q names another file", certFile, keyFile, err)
	}
	if !strings.Contains(ce.Why, text) {
		t.Errorf("%s, %s: error %q, want %q in it", certFile, keyFile, err, text)
	}
	if wraps != nil && !errors.Is(err, wraps) {
		t.Errorf("%s, %s: error %q does not wrap %v", certFile, keyFile, err, wraps)
	}
	if password != "" && strings.Contains(fmt.Sprintf("%s %+v %#v", ce.Why, ce.Err, ce.Err), password) {
		t.Errorf("%s, %s: error %q holds the password", certFile, keyFile, err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s, %s: error %q has several lines", certFile, keyFile, err)
	}
}

func TestReadApple(t *testing.T) {
	t.Parallel()
	key := newTestKey(t)
	const app = "com.example.app"
	list := topicList(t, app, app+".voip", app+".complication")
	tests := []struct {
		name                       string
		spec                       certSpec
		uid                        string
		topics                     []string
		production, sandbox, apple bool
	}{
		{"home-made", certSpec{}, "", nil, false, false, false},
		{"home-made with UID", certSpec{uid: app}, app, nil, false, false, false},
		{"universal", certSpec{uid: app, oids: ids(oidApplePushSandbox, oidApplePushProduction), topics: list}, app,
			[]string{app, app + ".voip", app + ".complication"}, true, true, true},
		{"sandbox", certSpec{uid: app, oids: ids(oidApplePushSandbox)}, app, nil, false, true, true},
		{"production", certSpec{uid: app, oids: ids(oidApplePushProduction)}, app, nil, true, false, true},
		{"voip", certSpec{uid: app + ".voip", oids: ids(append(slices.Clone(oidApplePush), 4))}, app + ".voip", nil, false, false, true},
		{"no push extension", certSpec{uid: app, oids: ids(append(slices.Clone(oidApplePush[:6]), 1, 2))}, app, nil, false, false, false},
		{"topic list damaged", certSpec{uid: app, topics: []byte{0x30, 0x7f}}, app, nil, false, false, true},
		{"topic list with more after it", certSpec{uid: app, topics: append(slices.Clone(list), 5, 0)}, app, nil, false, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := inTempFile(t, "c.pem", certPEM(newTestCert(t, tt.spec, key)), keyPEM(t, key))
			c, err := LoadCertificate(file, "", "")
			if err != nil {
				t.Fatal(err)
			}
			if c.UID != tt.uid || !slices.Equal(c.Topics, tt.topics) || c.Production != tt.production || c.Sandbox != tt.sandbox || c.Apple != tt.apple {
				t.Errorf("got UID %q, topics %q, production %t, sandbox %t, Apple %t", c.UID, c.Topics, c.Production, c.Sandbox, c.Apple)
			}
		})
	}
}

// TestCertificateHidesItsKey prints in every way that a log line might.
func TestCertificateHidesItsKey(t *testing.T) {
	t.Parallel()
	c, err := LoadCertificate(openssl("modern.p12"), "", opensslPassword)
	if err != nil {
		t.Fatal(err)
	}
	type app struct {
		Certificate *Certificate
		Copy        Certificate
	}
	values := []any{c, *c, app{c, *c}, &app{c, *c}, []*Certificate{c}, map[string]Certificate{"x": *c}}
	var out strings.Builder
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		out.Write(data)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	for name, secret := range keyForms(t, c) {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s of the private key was printed:\n%s", name, out.String())
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if got := fmt.Sprintf(verb, c); got != c.String() {
			t.Errorf("%s prints %.200q", verb, got)
		}
	}
	if want := `certificate "` + openssl("modern.p12") + `" (UID "com.example.app", expires `; !strings.HasPrefix(c.String(), want) {
		t.Errorf("String is %q, want %q…", c.String(), want)
	}
}

// keyForms is the secret number of the key as the verbs would print it.
func keyForms(t *testing.T, c *Certificate) map[string]string {
	t.Helper()
	raw := ecdsaSecret(t, c)
	d := new(big.Int).SetBytes(raw)
	list := strings.Trim(fmt.Sprint(raw), "[]")
	return map[string]string{"decimal": d.String(), "hex": fmt.Sprintf("%x", d), "bytes": list}
}

// A certificate with names as long as its file makes no error, warning or log line of
// that length; nor does a file whose faults would be quoted.
func TestLongNamesAreCut(t *testing.T) {
	t.Parallel()
	const most = 3000
	key := newTestKey(t)
	long := strings.Repeat("é", 50_000)
	for name, s := range map[string]certSpec{
		"uid":    {uid: long},
		"topics": {uid: "com.example.app", topics: topicList(t, "com.example.app", long, long+"a", long+"b")},
	} {
		c, err := LoadCertificate(inTempFile(t, "x.pem", certPEM(newTestCert(t, s, key)), keyPEM(t, key)), "", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range []string{"com.example.other", "com.example.app.voip", "com.example.app"} {
			warnings, err := c.Check(topic, Production, time.Now())
			text := strings.Join(warnings, "\n")
			if err != nil {
				text += err.Error()
			}
			if len(text) > most || topic == "com.example.other" && !strings.Contains(text, "topic") {
				t.Errorf("%s, %s: %d bytes", name, topic, len(text))
			}
		}
		if n := len(c.String()); n > most {
			t.Errorf("%s: String has %d bytes", name, n)
		}
	}
	id := make(asn1.ObjectIdentifier, 20_000)
	for i := range id {
		id[i] = 1
	}
	oid := inDER(t, encryptedPrivateKeyInfo{pkix.AlgorithmIdentifier{Algorithm: id}, make([]byte, 16)})
	for name, data := range map[string][]byte{
		"types": bytes.Repeat(pem.EncodeToMemory(&pem.Block{Type: strings.Repeat("X", 10_000)}), 50),
		"oid":   pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: oid}),
	} {
		if _, err := LoadCertificate(inTempFile(t, "x.pem", data), "", "x"); err == nil || len(err.Error()) > most {
			t.Errorf("%s: %.100v", name, err)
		}
		if _, err := keysize.Pair(data, data); err == nil || len(err.Error()) > most {
			t.Errorf("%s of a server: %.100v", name, err)
		}
	}
}
