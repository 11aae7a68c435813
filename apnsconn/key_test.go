package apnsconn

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"propeller/internal/pemfile"
)

const (
	testKeyID  = "ABC123DEFG"
	testTeamID = "DEF123GHIJ"
)

// testSigningKey is a loaded key made for a test.
func testSigningKey(t testing.TB) *Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return loadTestKey(t, private, testKeyID, testTeamID)
}

// keyOf is the key that LoadKey would return of a file with private.
func keyOf(t testing.TB, private *ecdsa.PrivateKey) *Key {
	t.Helper()
	k, err := newKey("key.p8", testKeyID, testTeamID, private)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// parsed is the key inside k.
func parsed(t testing.TB, k *Key) *ecdsa.PrivateKey {
	t.Helper()
	private, err := k.private()
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func loadTestKey(t testing.TB, private any, keyID, teamID string) *Key {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.p8")
	if err := os.WriteFile(file, pemBlock("PRIVATE KEY", der), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := LoadKey(file, keyID, teamID)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestLoadKey(t *testing.T) {
	t.Parallel()
	private := newTestKey(t)
	text := keyPEM(t, private)
	block, _ := pem.Decode(text)
	sec1, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"its public key, too": join(text, pemBlock("PUBLIC KEY", public)),
		"its request, too":    join(pemBlock("CERTIFICATE REQUEST", public), text),
		"DER":                 block.Bytes,
		"EC in SEC 1":         append(pemBlock("EC PARAMETERS", []byte{6, 1, 1}), pemBlock("EC PRIVATE KEY", sec1)...),
		"SEC 1 as DER":        sec1,
		"base64":              []byte(base64.StdEncoding.EncodeToString(text)),
		"without BEGIN":       bytes.Join(bytes.Split(text, []byte("\n"))[1:4], []byte("\n")),
		"literal line ends":   bytes.ReplaceAll(text, []byte("\n"), []byte(`\n`)),
		"one line":            bytes.ReplaceAll(text, []byte("\n"), []byte(" ")),
		"indented":            bytes.ReplaceAll(text, []byte("\n"), []byte("\n    ")),
		"as Apple's":          text,
		"no final newline":    bytes.TrimSpace(text),
		"Windows line ends":   bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
		"byte order mark":     append([]byte("\xef\xbb\xbf"), text...),
		"text around":         append(append([]byte("Key: mine\n"), text...), "the end\n"...),
		"other blocks around": append(pemBlock("EC PARAMETERS", []byte{6, 1, 1}), text...),
	} {
		file := inTempFile(t, "key.p8", data)
		k, err := LoadKey(file, testKeyID, testTeamID)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !parsed(t, k).Equal(private) || k.ID != testKeyID || k.Team != testTeamID || k.File != file {
			t.Errorf("%s: another key came out: %v", name, k)
		}
	}
}

func TestLoadKeyFaults(t *testing.T) {
	t.Parallel()
	good := newTestKey(t)
	text := keyPEM(t, good)
	curve384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(good)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(good.Public())
	if err != nil {
		t.Fatal(err)
	}
	cert := newTestCert(t, certSpec{uid: "com.example.app"}, good)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "is empty"},
		{"binary", append([]byte{0x30, 0x82}, sec1...), "is damaged or cut off"},
		{"cut off", text[:len(text)/2], "is damaged: the PRIVATE KEY that begins at line 1 has no END line"},
		{"certificate", certPEM(cert), "holds a certificate, not a key for provider tokens"},
		{"certificate and key", append(text, certPEM(cert)...), "holds a certificate, not a key for provider tokens"},
		{"public key", pemBlock("PUBLIC KEY", public), "holds a public key, not a key for provider tokens: give the .p8 file"},
		{"request", pemBlock("CERTIFICATE REQUEST", public), "holds a certificate signing request, not a key for provider tokens: give the .p8 file"},
		{"RSA in PKCS#1", pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "is an RSA key, which belongs to a certificate"},
		{"RSA in PKCS#8", keyPEM(t, rsaKey), "is an RSA key, which belongs to a certificate"},
		{"wrong curve", keyPEM(t, curve384), "is an EC key on curve P-384, and provider tokens need one on P-256"},
		{"Ed25519", keyPEM(t, edKey), "is neither an EC nor an RSA key"},
		{"encrypted", pemBlock("ENCRYPTED PRIVATE KEY", sec1), "is encrypted, which Apple's .p8 files are not"},
		{"OpenSSH", pemBlock("OPENSSH PRIVATE KEY", sec1), "holds an SSH key, not a key for provider tokens"},
		{"garbage inside", pemBlock("PRIVATE KEY", sec1[1:]), "its private key at line 1 cannot be parsed: it is damaged"},
		{"two keys", append(text, text...), "holds several private keys"},
		{"huge", bytes.Repeat([]byte("x"), maxCredentialFile+1), "is larger than 1024 KiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := inTempFile(t, "key.p8", c.data)
			k, err := LoadKey(file, testKeyID, testTeamID)
			ke, ok := errors.AsType[*KeyError](err)
			if !ok || k != nil || ke.Field != "key" || ke.File != file || !strings.HasPrefix(ke.Why, c.want) {
				t.Fatalf("got %v, %v\nwant %s", k, err, c.want)
			}
			secret, _ := good.Bytes()
			for _, form := range secretForms(secret) {
				if strings.Contains(fmt.Sprintf("%+v %#v", err, ke.Err), form) {
					t.Errorf("the error tells the key: %v", err)
				}
			}
		})
	}
	_, err = LoadKey(filepath.Join(t.TempDir(), "none.p8"), testKeyID, testTeamID)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasSuffix(err.Error(), "none.p8\": no such file") {
		t.Error(err)
	}
}

func TestLoadKeyIDs(t *testing.T) {
	t.Parallel()
	file := inTempFile(t, "key.p8", keyPEM(t, newTestKey(t)))
	for _, id := range []string{"", "ABC123DEF", "ABC123DEFGH", "abc123defg", "ABC 23DEFG", "ABC-23DEFG", "ABC123DEF\n", "ÄBC123DEF"} {
		for _, ids := range [][2]string{{id, testTeamID}, {testKeyID, id}} {
			_, err := LoadKey(file, ids[0], ids[1])
			ke, ok := errors.AsType[*KeyError](err)
			want := "key_id"
			if ids[1] == id {
				want = "team_id"
			}
			if !ok || ke.Field != want {
				t.Errorf("%q: %v", ids, err)
			}
		}
	}
	// All at once.
	_, err := LoadKey("", "x", "y")
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 3 {
		t.Errorf("not three faults: %v", err)
	}
}

// secretForms are the ways in which fmt prints bytes and numbers.
func secretForms(secret []byte) []string {
	decimal := strings.Trim(fmt.Sprint(secret), "[]")
	return []string{
		string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), decimal,
		strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte"), "{}"),
	}
}

func TestKeyPrintsNoSecret(t *testing.T) {
	t.Parallel()
	k := testSigningKey(t)
	p := NewProviderToken(k)
	var c connToken
	c.source = p
	token := strings.TrimPrefix(c.authorization(), "bearer ")
	secret, err := parsed(t, k).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	forbidden := append(secretForms(secret), new(big.Int).SetBytes(secret).String(), token, token[len(token)-20:])
	type holder struct {
		Key   *Key
		Value Key
		Token *ProviderToken
	}
	h := holder{k, *k, p}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		for _, v := range []any{k, *k, p, h, &h, []any{k, p}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("m", "key", k, "value", *k, "token", p, "all", h)
	}
	for _, s := range forbidden {
		if strings.Contains(out.String(), s) {
			t.Errorf("prints %q:\n%s", s, out.String())
		}
	}
	if got := k.String(); got != "key ABC123DEFG team DEF123GHIJ" {
		t.Error(got)
	}
}

func TestSameKey(t *testing.T) {
	t.Parallel()
	private := newTestKey(t)
	a := loadTestKey(t, private, testKeyID, testTeamID)
	for _, c := range []struct {
		b    *Key
		same bool
	}{
		{loadTestKey(t, private, testKeyID, testTeamID), true}, // from another file
		{loadTestKey(t, private, "ABC123DEFX", testTeamID), false},
		{loadTestKey(t, private, testKeyID, "ABC123DEFX"), false},
		{testSigningKey(t), false},
		{nil, false},
	} {
		if a.Same(c.b) != c.same || c.b.Same(a) != c.same {
			t.Errorf("%v and %v: want %v", a, c.b, c.same)
		}
	}
	if !(*Key)(nil).Same(nil) {
		t.Error("no key is not the same as no key")
	}
}

// FuzzSigningKey reads what LoadKey finds in a file: a key that can sign, or a
// sentence.
func FuzzSigningKey(f *testing.F) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pemBlock("PRIVATE KEY", der))
	f.Add(pemBlock("PRIVATE KEY", der[:40]))
	f.Add(append(pemBlock("A\x1b[2J", nil), pemBlock("PRIVATE KEY", der)...))
	f.Add(pemBlock("\x1b[2J"+strings.Repeat("A", 100), nil))
	f.Add(pemBlock("\x1b PRIVATE KEY", nil))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n"))
	files, err := filepath.Glob("testdata/openssl/*.key")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := pemfile.Parse(data)
		var key *ecdsa.PrivateKey
		if err == nil {
			key, err = parseSigningKey(blocks)
		}
		if err != nil {
			if text := err.Error(); key != nil || text == "" || len(text) > 300 || strings.ContainsAny(text, "\n\r\x1b\x00") {
				t.Errorf("%v, %q", key, text)
			}
			return
		}
		k := keyOf(t, key)
		if _, err := k.sign(testTime); err != nil {
			t.Errorf("does not sign: %v", err)
		}
	})
}
