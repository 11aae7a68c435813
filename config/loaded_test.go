package config

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Apps that name the same files share what is in them. Other ids, or another password, make
// another credential of the same file.
func TestFilesAreReadOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{uid: "com.example.app", production: true}.make(t)
	write(t, dir, "key.p8", m.keyPEM(t))
	write(t, dir, "app.p12", m.p12(t, hidden))
	write(t, dir, "roots.pem", m.certPEM())
	cfg := mustParse(t, `
defaults: {key: key.p8, `+ids+`, ca_file: roots.pem}
apps:
  - topic: com.example.one
  - {topic: com.example.two, key: `+dir+`/key.p8}
  - {topic: com.example.three, key_id: XYZ123DEFG}
  - {topic: com.example.app, cert: app.p12, cert_password: `+hidden+`}
  - {topic: com.example.app, name: lane, cert: ./app.p12, cert_password: `+hidden+`}
`, Options{Dir: dir})
	a := cfg.Apps
	if a[0].SigningKey == nil || a[0].SigningKey != a[1].SigningKey || a[0].SigningKey == a[2].SigningKey || a[2].SigningKey.ID != "XYZ123DEFG" {
		t.Errorf("keys %v at %[1]p, %v at %[2]p, %v at %[3]p", a[0].SigningKey, a[1].SigningKey, a[2].SigningKey)
	}
	if a[3].Certificate == nil || a[3].Certificate != a[4].Certificate {
		t.Errorf("certificates %v at %[1]p, %v at %[2]p", a[3].Certificate, a[4].Certificate)
	}
	for i := range a {
		if a[i].RootCAs == nil || a[i].RootCAs != a[0].RootCAs || a[i].rootsHash != a[0].rootsHash {
			t.Errorf("%d: roots at %p, of the first at %p", i, a[i].RootCAs, a[0].RootCAs)
		}
	}
	if again := mustParse(t, "apps: [{topic: com.example.one, key: key.p8, "+ids+"}]", Options{Dir: dir}).Apps[0]; again.SigningKey == a[0].SigningKey {
		t.Error("what one reading found outlives it")
	}
}

// What is wrong with a shared file is told of each app that has it, and what only one app
// says of it is that app's fault alone.
func TestFaultsOfSharedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{uid: "com.example.app", production: true}.make(t)
	write(t, dir, "app.p12", m.p12(t, hidden))
	write(t, dir, "bad.p8", []byte("x"))
	text := `
apps:
  - {name: right, topic: com.example.app, cert: app.p12, cert_password: ` + hidden + `}
  - {name: wrong, topic: com.example.app, cert: app.p12, cert_password: mistyped}
  - {name: none, topic: com.example.app, cert: app.p12}
  - {name: right too, topic: com.example.app, cert: app.p12, cert_password: ` + hidden + `}
  - {name: wrong too, topic: com.example.app, cert: app.p12, cert_password: mistyped}
  - {name: other, topic: com.example.other, cert: app.p12, cert_password: ` + hidden + `}
  - {name: bad, topic: com.example.bad, key: bad.p8, ` + ids + `}
  - {name: bad too, topic: com.example.bad, key: bad.p8, ` + ids + `}
  - {name: gone, topic: com.example.gone, cert: gone.pem}
  - {name: gone too, topic: com.example.gone, cert: gone.pem}
`
	text = strings.ReplaceAll(text, " too,", ".2,")
	want := []string{
		"", `cert "app.p12": the password for the PKCS#12 file is wrong`, `cert "app.p12": the PKCS#12 file is encrypted and no password was given`,
		"", `cert "app.p12": the password for the PKCS#12 file is wrong`, `cert "app.p12": is for "com.example.app", not for topic "com.example.other"`,
		`key "bad.p8": is neither PEM nor DER`, `key "bad.p8": is neither PEM nor DER`,
		`cert "gone.pem": no such file`, `cert "gone.pem": no such file`,
	}
	apps := mustParse(t, text, Options{Dir: dir, Lenient: true}).Apps
	_, all := Parse("test.yaml", []byte(text), Options{Dir: dir})
	for i, want := range want {
		a, now := &apps[i], time.Now()
		if got := a.Fault(); want == "" && got != "" || !strings.HasPrefix(got, want) || a.Broken() != (want != "") {
			t.Errorf("%s: %q, want %q", a.Name, got, want)
		}
		if again := a.Reread(now); again.Fault() != a.Fault() || !again.SameCredential(a) || a.Changed(now) {
			t.Errorf("%s: read again: %q, was %q", a.Name, again.Fault(), a.Fault())
		}
		if line := fmt.Sprintf("test.yaml:%d: apps[%d].%s", i+3, i, want); want != "" && !strings.Contains(all.Error(), line) {
			t.Errorf("%s: no fault that begins with %q in:\n%v", a.Name, line, all)
		}
	}
}

// kept is what stays in memory, in bytes, of what load returns.
func kept(load func() *Config) int {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	cfg := load()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(cfg)
	return int(after.HeapAlloc) - int(before.HeapAlloc)
}

// An app takes little memory as long as it only waits, with a certificate of its own, too.
func TestAppsTakeLittleMemory(t *testing.T) {
	dir := t.TempDir()
	m := made{uid: "com.example.app", production: true}.make(t)
	write(t, dir, "key.p8", m.keyPEM(t))
	write(t, dir, "roots.pem", m.certPEM())
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "rsa.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	const n = 300
	for i := range n {
		template := *m.cert
		template.SerialNumber.SetInt64(int64(i))
		cert, err := x509.CreateCertificate(rand.Reader, &template, m.cert, key.Public(), m.key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, fmt.Sprint(i, ".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), m.certPEM())
	}
	for name, shape := range map[string]struct {
		apps          int
		defaults, app string
		most          int // bytes an app
	}{
		"mock":           {10 * n, "server: mock", "", 900},
		"one key":        {10 * n, "key: key.p8, " + ids + ", ca_file: roots.pem, server: 'https://127.0.0.1:1'", "", 1200},
		"a pem for each": {n, "cert_key: rsa.key", ", cert: %[1]d.pem", 4000}, // most of it DER; parsed, three times as much
	} {
		var b strings.Builder
		fmt.Fprintf(&b, "defaults: {%s}\napps:\n", shape.defaults)
		for i := range shape.apps {
			fmt.Fprintf(&b, "- {topic: com.example.app, name: n%[1]d"+shape.app+"}\n", i)
		}
		got := kept(func() *Config { return mustParse(t, b.String(), Options{Dir: dir}) }) / shape.apps
		if got > shape.most {
			t.Errorf("%s: %d bytes an app, want at most %d", name, got, shape.most)
		}
	}
}
