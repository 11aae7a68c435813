package config

import (
	"fmt"
	"math/big"
	"strings"
	"testing"
)

const ids = "key_id: ABC123DEFG, team_id: DEF123GHIJ"

func TestKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{}.make(t)
	for _, name := range []string{"AuthKey_ABC123DEFG.p8", "AuthKey_ZZZ123DEFG.p8", "plain.p8"} {
		write(t, dir, name, m.keyPEM(t))
	}
	raw, err := m.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secret := new(big.Int).SetBytes(raw).String() // as fmt prints the key's field
	o := Options{Dir: dir, Getenv: env(map[string]string{"D": dir})}
	for _, c := range []struct{ keys, warning string }{
		{"key: AuthKey_ABC123DEFG.p8, " + ids, ""},
		{"key: '${D}/plain.p8', " + ids, ""},
		{"server: mock, key: plain.p8, " + ids, ""},
		{"key: AuthKey_ZZZ123DEFG.p8, " + ids, "key_id is ABC123DEFG, and the file's name says ZZZ123DEFG"},
	} {
		cfg := mustParse(t, "apps: [{topic: com.example.app, "+c.keys+"}]", o)
		a := cfg.Apps[0]
		if a.SigningKey == nil || a.SigningKey.String() != "key ABC123DEFG team DEF123GHIJ" || a.Certificate != nil {
			t.Errorf("%s: %v, %v", c.keys, a.SigningKey, a.Certificate)
		}
		if got := strings.Join(a.Warnings, "\n"); c.warning == "" && got != "" || !strings.Contains(got, c.warning) {
			t.Errorf("%s: warnings %q", c.keys, got)
		}
		if all := fmt.Sprintf("%v %+v %#v", a, a, cfg); strings.Contains(all, secret) {
			t.Errorf("%s: the key is printed", c.keys)
		}
	}
}

// The apps of one account share its key; an app's own certificate takes the
// place of it, and the reverse.
func TestKeyInDefaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{uid: "com.example.two", production: true}.make(t)
	write(t, dir, "key.p8", m.keyPEM(t))
	write(t, dir, "two.pem", m.certPEM(), m.keyPEM(t))
	cfg := mustParse(t, `
defaults: {key: key.p8, `+ids+`}
apps:
  - topic: com.example.one
  - {topic: com.example.two, cert: two.pem}
  - {topic: com.example.three, key_id: XYZ123DEFG}
`, Options{Dir: dir})
	one, two, three := cfg.Apps[0], cfg.Apps[1], cfg.Apps[2]
	if one.SigningKey == nil || one.Certificate != nil {
		t.Errorf("one: %+v", one)
	}
	if two.SigningKey != nil || two.Key+two.KeyID+two.TeamID != "" || two.Certificate == nil {
		t.Errorf("two: %+v", two)
	}
	if three.SigningKey == nil || three.SigningKey.ID != "XYZ123DEFG" || three.SigningKey.Team != "DEF123GHIJ" {
		t.Errorf("three: %+v", three)
	}
	cfg = mustParse(t, `
defaults: {cert: two.pem, cert_password: x}
apps: [{topic: com.example.one, key: key.p8, `+ids+`}]
`, Options{Dir: dir})
	if a := cfg.Apps[0]; a.SigningKey == nil || a.Certificate != nil || !a.CertPassword.IsZero() {
		t.Errorf("%+v", a)
	}
}

func TestKeyFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{uid: "com.example.app", production: true}.make(t)
	write(t, dir, "key.p8", m.keyPEM(t))
	write(t, dir, "cert.pem", m.certPEM(), m.keyPEM(t))
	const keyID = `is not 10 capital letters and digits: Apple shows it beside the key, and it is in the file's name, AuthKey_<key id>.p8`
	for _, c := range []struct {
		keys string
		want []string
	}{
		{"key: key.p8", []string{
			"apps[0].key_id: is missing: Apple shows it beside the key, and it is in the file's name, AuthKey_<key id>.p8",
			"apps[0].team_id: is missing: Apple shows it on the account's membership page",
		}},
		{"key: key.p8, key_id: abc123defg, team_id: DEF123GHIJ", []string{`apps[0].key_id "abc123defg": ` + keyID}},
		{"key: missing.p8, key_id: short, team_id: DEF123GHIJ", []string{
			`apps[0].key "missing.p8": no such file: relative paths start at the folder of this file`,
			`apps[0].key_id "short": ` + keyID,
		}},
		{"key: ., " + ids, []string{`apps[0].key ".": is a folder`}},
		{"key: '', " + ids, []string{`apps[0].key: is empty: give a value or remove the key`}},
		{"key: '${NOT_SET}', key_id: '${NOT_SET}', team_id: DEF123GHIJ", []string{
			`apps[0].key "${NOT_SET}": environment variable NOT_SET is not set`, `apps[0].key_id "${NOT_SET}": environment variable NOT_SET is not set`,
		}},
		{"key: cert.pem, " + ids, []string{`apps[0].key "cert.pem": holds a certificate, not a key for provider tokens: give it as cert instead of key, or give the .p8 file that Apple offers under Keys`}},
		{"key: key.p8, cert: cert.pem, " + ids, []string{`apps[0].key "key.p8": given together with cert: an app uses only one of them; remove the other`}},
		{"cert: cert.pem, " + ids, []string{
			`apps[0].key_id "ABC123DEFG": does nothing without key: give that, or remove this`,
			`apps[0].team_id "DEF123GHIJ": does nothing without key: give that, or remove this`,
		}},
		{"server: mock, " + ids, []string{
			`apps[0].key_id "ABC123DEFG": does nothing without key: give that, or remove this`,
			`apps[0].team_id "DEF123GHIJ": does nothing without key: give that, or remove this`,
		}},
		{"key: key.p8, cert_key: cert.pem, " + ids, []string{`apps[0].cert_key "cert.pem": does nothing without cert: give that, or remove this`}},
		{`key: "-----BEGIN PRIVATE KEY-----\n` + hidden + `", ` + ids, []string{`apps[0].key: holds the key or certificate itself: give the path of a file with it`}},
	} {
		_, err := Parse("x.yaml", []byte("apps: [{topic: com.example.app, "+c.keys+"}]"), Options{Dir: dir, Getenv: env(nil)})
		want := "x.yaml:1: " + strings.Join(c.want, "\nx.yaml:1: ")
		if err == nil || err.Error() != want {
			t.Errorf("%s:\ngot\n%v\nwant\n%s", c.keys, err, want)
		}
	}
}

// A key is the same wherever it lies, and another with other ids or content.
func TestSameKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, other := made{uid: "com.example.app", production: true}.make(t), made{}.make(t)
	write(t, dir, "key.p8", m.keyPEM(t))
	write(t, dir, "moved.p8", m.keyPEM(t))
	write(t, dir, "other.p8", other.keyPEM(t))
	write(t, dir, "cert.pem", m.certPEM(), m.keyPEM(t))
	app := func(keys string) *App {
		return &mustParse(t, "apps: [{topic: com.example.app, "+keys+"}]", Options{Dir: dir}).Apps[0]
	}
	a := app("key: key.p8, " + ids)
	if !a.Same(app("key: moved.p8, " + ids)) {
		t.Error("a moved key is a difference")
	}
	for _, keys := range []string{
		"key: other.p8, " + ids,
		"key: key.p8, key_id: ABC123DEFX, team_id: DEF123GHIJ",
		"key: key.p8, key_id: ABC123DEFG, team_id: DEF123GHIX",
		"cert: cert.pem",
	} {
		if b := app(keys); a.Same(b) || b.Same(a) {
			t.Errorf("%s is no difference", keys)
		}
	}
}

func TestSingleKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "key.p8", made{}.make(t).keyPEM(t))
	cfg, err := Single(map[string]string{"topic": "com.example.app", "key": "key.p8", "key-id": "ABC123DEFG", "team-id": "DEF123GHIJ"}, Options{Dir: dir})
	if err != nil || cfg.Apps[0].SigningKey == nil {
		t.Errorf("%+v, %v", cfg, err)
	}
	_, err = Single(map[string]string{"topic": "com.example.app", "key": "key.p8", "key-id": "ABC123DEFG"}, Options{Dir: dir})
	if err == nil || err.Error() != "--team-id: is missing: Apple shows it on the account's membership page" {
		t.Error(err)
	}
}
