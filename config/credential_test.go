package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"propeller/apnsconn"
)

// made is a certificate for tests; home-made unless production.
type made struct {
	uid        string
	production bool
	notBefore  time.Time // default two years ago
	notAfter   time.Time // default in a year

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (m made) make(t *testing.T) made {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	if m.notAfter.IsZero() {
		m.notAfter = time.Now().AddDate(1, 0, 0)
	}
	if m.notBefore.IsZero() {
		m.notBefore = time.Now().AddDate(-2, 0, 0)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    m.notBefore,
		NotAfter:     m.notAfter,
	}
	if m.uid != "" {
		uid := asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
		template.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: uid, Value: m.uid}}
	}
	if m.production {
		id := asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, 2}
		template.ExtraExtensions = []pkix.Extension{{Id: id, Value: []byte{5, 0}}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if m.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	m.key = key
	return m
}

func (m made) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Raw})
}

func (m made) keyPEM(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (m made) p12(t *testing.T, password string) []byte {
	t.Helper()
	data, err := pkcs12.Modern.Encode(m.key, m.cert, nil, password)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, dir, name string, parts ...[]byte) {
	t.Helper()
	var all []byte
	for _, part := range parts {
		all = append(all, part...)
	}
	if err := os.WriteFile(filepath.Join(dir, name), all, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{uid: "com.example.app", production: true}.make(t)
	root := made{}.make(t)
	write(t, dir, "both.pem", m.certPEM(), m.keyPEM(t))
	write(t, dir, "cert.pem", m.certPEM())
	write(t, dir, "key.pem", m.keyPEM(t))
	write(t, dir, "app.p12", m.p12(t, hidden))
	write(t, dir, "pw", []byte(hidden+"\n"))
	write(t, dir, "roots.pem", m.certPEM(), []byte("a comment\n"), root.certPEM())

	o := Options{Dir: dir, Getenv: env(map[string]string{"PW": hidden, "D": dir})}
	for name, keys := range map[string]string{
		"pem":              "cert: both.pem",
		"absolute":         `cert: "${D}/both.pem"`,
		"two files":        "cert: cert.pem, cert_key: key.pem",
		"p12":              "cert: app.p12, cert_password: " + hidden,
		"p12, environment": `cert: app.p12, cert_password: "${PW}"`,
		"p12, file":        "cert: app.p12, cert_password_file: pw",
		"roots":            "cert: both.pem, ca_file: roots.pem",
	} {
		cfg := mustParse(t, "apps: [{topic: com.example.app, "+keys+"}]", o)
		a := cfg.Apps[0]
		if a.Certificate == nil || a.Certificate.UID != "com.example.app" || len(a.Warnings) > 0 ||
			a.Addr != "api.push.apple.com:443" || a.Env != apnsconn.Production {
			t.Errorf("%s: got %+v", name, a)
		}
		if (a.RootCAs != nil) != (name == "roots") || !filepath.IsAbs(a.Cert) {
			t.Errorf("%s: roots %v, cert %q", name, a.RootCAs, a.Cert)
		}
	}
}

func TestBadCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	day := 24 * time.Hour
	app := made{uid: "com.example.app", production: true}.make(t)
	other := made{uid: "com.example.other", production: true, notAfter: time.Now().Add(-10 * day)}.make(t)
	write(t, dir, "app.pem", app.certPEM(), app.keyPEM(t))
	write(t, dir, "other.pem", other.certPEM(), other.keyPEM(t))
	write(t, dir, "other.key", other.keyPEM(t))
	write(t, dir, "app.p12", app.p12(t, hidden))
	write(t, dir, "garbage", []byte("garbage\n"))
	write(t, dir, "mixed.pem", app.certPEM(), app.keyPEM(t))
	write(t, dir, "broken.pem", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))

	for _, c := range []struct {
		keys string
		want []string // "key value: beginning of the message", one for each fault
	}{
		{"cert: other.pem", []string{`cert "other.pem": expired on `, `cert "other.pem": is for "com.example.other", not for topic`}},
		{"cert: app.pem, server: sandbox", []string{`cert "app.pem": is for production only`}},
		{"cert: app.pem, cert_key: other.key", []string{`cert "app.pem": the private key does not belong`}},
		{"cert: app.pem, cert_key: garbage", []string{`cert_key "garbage": `}},
		{"cert: app.p12, cert_password: wrong-" + hidden, []string{`cert "app.p12": `}},
		{"cert: app.p12", []string{`cert "app.p12": `}},
		{"cert: garbage, ca_file: garbage", []string{`cert "garbage": is neither`, `ca_file "garbage": holds no certificate`}},
		{"cert: app.pem, ca_file: mixed.pem", []string{`ca_file "mixed.pem": holds a PRIVATE KEY at line 10: only the certificates of roots`}},
		{"cert: app.pem, ca_file: broken.pem", []string{`ca_file "broken.pem": its certificate at line 1 cannot be parsed`}},
		{"cert: app.pem, cert_key: missing", []string{`cert_key "missing": no such file`}},
	} {
		_, err := Parse("test.yaml", []byte("apps: [{topic: com.example.app, "+c.keys+"}]"), Options{Dir: dir})
		var got []string
		if err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		ok := len(got) == len(c.want)
		for _, want := range c.want {
			ok = ok && strings.Contains(err.Error(), "test.yaml:1: apps[0]."+want)
		}
		if !ok {
			t.Errorf("%s:\ngot  %s\nwant %s", c.keys, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
		if err != nil && (strings.Contains(err.Error(), hidden) || strings.Contains(err.Error(), dir)) {
			t.Errorf("%s: shows the password or the folder: %v", c.keys, err)
		}
	}
}

// What Apple would refuse is a warning for the stand-in, and a home-made
// certificate is one for every server.
func TestCredentialWarnings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	expired := made{uid: "com.example.app", production: true, notAfter: time.Now().Add(-time.Hour)}.make(t)
	soon := made{uid: "com.example.app", production: true}.make(t)
	home := made{}.make(t)
	write(t, dir, "expired.pem", expired.certPEM(), expired.keyPEM(t))
	write(t, dir, "soon.pem", soon.certPEM(), soon.keyPEM(t))
	write(t, dir, "home.pem", home.certPEM(), home.keyPEM(t))
	for _, c := range []struct{ keys, want string }{
		{"server: mock, cert: expired.pem", "the certificate expired on "},
		{"server: production, cert: soon.pem", "expires on "},
		{"server: https://127.0.0.1:8443, cert: home.pem", "not an Apple push certificate"},
	} {
		now := func() time.Time { return soon.notAfter.Add(-10 * 24 * time.Hour) }
		if !strings.Contains(c.keys, "soon") {
			now = nil
		}
		cfg := mustParse(t, "apps: [{topic: com.example.app, "+c.keys+"}]", Options{Dir: dir, Now: now})
		if w := cfg.Apps[0].Warnings; len(w) != 1 || !strings.HasPrefix(w[0], c.want) {
			t.Errorf("%s: %q, want %q…", c.keys, w, c.want)
		}
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, renewed := made{}.make(t), made{}.make(t)
	write(t, dir, "a.pem", first.certPEM(), first.keyPEM(t))
	write(t, dir, "moved.pem", first.certPEM(), first.keyPEM(t))
	write(t, dir, "chain.pem", first.certPEM(), first.keyPEM(t), renewed.certPEM())
	write(t, dir, "roots.pem", first.certPEM())
	write(t, dir, "roots2.pem", renewed.certPEM())

	load := func(keys string) *App {
		t.Helper()
		return &mustParse(t, "apps: [{topic: com.example.app, server: sandbox, "+keys+"}]", Options{Dir: dir}).Apps[0]
	}
	base := load("cert: a.pem, ca_file: roots.pem")
	for keys, want := range map[string]bool{
		"cert: a.pem, ca_file: roots.pem":                             true,
		"cert: moved.pem, ca_file: roots.pem":                         true,
		"cert: a.pem, ca_file: roots.pem, workers: 7":                 true,
		"cert: a.pem, ca_file: roots.pem, tube: com.example.app":      true,
		"cert: chain.pem, ca_file: roots.pem":                         false,
		"cert: a.pem":                                                 false,
		"cert: a.pem, ca_file: roots2.pem":                            false,
		"cert: a.pem, ca_file: roots.pem, in_flight: 7":               false,
		"cert: a.pem, ca_file: roots.pem, push_timeout: 7s":           false,
		"cert: a.pem, ca_file: roots.pem, tube: other":                false,
		"cert: a.pem, ca_file: roots.pem, extra_keys: refuse":         true,
		"cert: a.pem, ca_file: roots.pem, extra_keys: ignore":         false,
		"cert: a.pem, ca_file: roots.pem, retry: {min: 7s}":           false,
		"cert: a.pem, ca_file: roots.pem, retry: {max: 17m}":          false,
		"cert: a.pem, ca_file: roots.pem, retry: {give_up_after: 7h}": false,
	} {
		if got := base.Same(load(keys)); got != want {
			t.Errorf("%s: Same is %v", keys, got)
		}
		if got := load(keys).Same(base); got != want {
			t.Errorf("%s: Same is %v the other way round", keys, got)
		}
	}

	write(t, dir, "a.pem", renewed.certPEM(), renewed.keyPEM(t))
	if base.Same(load("cert: a.pem, ca_file: roots.pem")) {
		t.Error("a renewed certificate under the same path is no difference")
	}
	for _, text := range []string{"server: mock", "server: production, cert: moved.pem", "server: https://127.0.0.1:1, cert: moved.pem"} {
		other := mustParse(t, "apps: [{topic: com.example.app, "+text+"}]", Options{Dir: dir}).Apps[0]
		if load("cert: moved.pem").Same(&other) || other.Same(load("cert: moved.pem")) {
			t.Errorf("%s is no difference", text)
		}
	}
}

// Whatever key of an app changes, but the number of workers and what names a credential,
// the app is another one: also a key that is added some day.
func TestEveryKeyIsInSame(t *testing.T) {
	t.Parallel()
	base := Default().Apps[0]
	for _, f := range appFields {
		other := base
		switch at := f.at(&other).(type) {
		case *string:
			*at += "x"
		case *int:
			*at++
		case *time.Duration:
			*at++
		case *Secret:
			*at = NewSecret("x")
		case *SecretURL:
			*at = newSecretURL(&url.URL{Host: "x"})
		default:
			t.Errorf("%s is a %T", f.key, at)
		}
		if same, want := base.Same(&other), f.live || f.credential != ""; same != want || other.Same(&base) != want {
			t.Errorf("another %s: same is %v", f.key, same)
		}
	}
}
