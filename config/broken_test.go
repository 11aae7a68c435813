package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A fault of an app's credential is that app's alone when a daemon loads the
// configuration, and heals by what its files become; for check it is an error. Any other
// fault refuses all of it.
func TestCredentialFaults(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	good := made{uid: "com.example.app", production: true}.make(t)
	other := made{uid: "com.example.other", production: true}.make(t)
	expired := made{uid: "com.example.app", production: true, notAfter: time.Now().Add(-day)}.make(t)
	sandbox := made{uid: "com.example.app"}.make(t)
	both := func(m made) []byte { return append(m.certPEM(), m.keyPEM(t)...) }
	key := sandbox.keyPEM(t)
	const ids = ", key_id: ABC123DEFG, team_id: DEF123GHIJ"
	type files map[string][]byte
	for _, c := range []struct {
		keys  string
		first files
		fault string // of the app, without the file's name and line
		then  files  // what heals it; nil: nothing can while the process runs
	}{
		{"cert: a.pem", nil, `cert "a.pem": no such file`, files{"a.pem": both(good)}},
		{"cert: a.pem", files{"a.pem": both(expired)}, `cert "a.pem": expired on `, files{"a.pem": both(good)}},
		{"cert: a.pem", files{"a.pem": []byte("x")}, `cert "a.pem": is neither`, files{"a.pem": both(good)}},
		{"cert: a.pem", files{"a.pem": both(other)}, `cert "a.pem": is for "com.example.other"`, files{"a.pem": both(good)}},
		{"cert: a.pem, server: sandbox", files{"a.pem": both(good)}, `cert "a.pem": is for production only`, files{"a.pem": both(sandbox)}},
		{"cert: a.pem, cert_key: a.key", files{"a.pem": good.certPEM()}, `cert_key "a.key": no such file`, files{"a.key": good.keyPEM(t)}},
		{"cert: a.pem, cert_key: a.key", files{"a.pem": good.certPEM(), "a.key": other.keyPEM(t)}, `cert "a.pem": the private key does not belong`, files{"a.key": good.keyPEM(t)}},
		{"cert: a.p12, cert_password_file: pw", files{"a.p12": good.p12(t, hidden)}, `cert_password_file "pw": no such file`, files{"pw": []byte(hidden)}},
		{"cert: a.p12, cert_password_file: pw", files{"a.p12": good.p12(t, hidden), "pw": []byte("wrong")}, `cert "a.p12": `, files{"pw": []byte(hidden)}},
		{"key: a.p8" + ids, nil, `key "a.p8": no such file`, files{"a.p8": key}},
		{"key: a.p8" + ids, files{"a.p8": []byte("x")}, `key "a.p8": `, files{"a.p8": key}},
		{`cert: "${UNSET}"`, nil, `cert "${UNSET}": environment variable UNSET is not set`, nil},
		{`cert: a.p12, cert_password: "${UNSET}"`, files{"a.p12": good.p12(t, hidden)}, `cert_password: environment variable UNSET is not set`, nil},
		{`key: a.p8, key_id: "${UNSET}", team_id: DEF123GHIJ`, files{"a.p8": key}, `key_id "${UNSET}": environment variable UNSET is not set`, nil},
	} {
		dir := t.TempDir()
		put := func(f files) {
			for name, data := range f {
				write(t, dir, name, data)
			}
		}
		put(c.first)
		text := "apps:\n- {topic: com.example.app, " + c.keys + "}\n- {topic: com.example.well, server: mock}\n"
		o := Options{Dir: dir, Getenv: env(nil)}
		if _, err := Parse("test.yaml", []byte(text), o); err == nil || !strings.Contains(err.Error(), "test.yaml:2: apps[0]."+c.fault) {
			t.Errorf("%s: %v", c.keys, err)
		}
		o.Lenient = true
		apps := mustParse(t, text, o).Apps
		a, well := &apps[0], &apps[1]
		if !a.Broken() || !strings.HasPrefix(a.Fault(), c.fault) || strings.Contains(a.Fault(), hidden) || well.Broken() || well.Fault() != "" {
			t.Errorf("%s: %q, %q", c.keys, a.Fault(), well.Fault())
		}
		now := time.Now()
		if a.Changed(now) || well.Changed(now) {
			t.Errorf("%s: changed before it was", c.keys)
		}
		if again := a.Reread(now); again.Fault() != a.Fault() || !again.Same(a) {
			t.Errorf("%s: read again: %q", c.keys, again.Fault())
		}
		if put(c.then); c.then == nil {
			continue
		}
		if !a.Changed(now) {
			t.Errorf("%s: not changed", c.keys)
		}
		healed := a.Reread(now)
		if want := mustParse(t, text, o).Apps[0]; healed.Broken() || healed.Fault() != "" || healed.Changed(now) || !healed.Same(&want) || healed.Same(a) || fmt.Sprint(healed.Warnings) != fmt.Sprint(want.Warnings) {
			t.Errorf("%s: %q %+v", c.keys, healed.Fault(), healed)
		}

		_, err := Parse("test.yaml", []byte(text+"what: x\n"), o)
		if err == nil || !strings.Contains(err.Error(), "what") {
			t.Errorf("%s: with an unknown key: %v", c.keys, err)
		}
	}
}

// What is not found out by reading a credential is the file's fault, and refuses it; then
// every fault is told.
func TestFaultsOfTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for keys, want := range map[string]string{
		"ca_file: missing":                  "ca_file",
		`proxy: "${UNSET}"`:                 "proxy",
		"proxy_file: missing":               "proxy_file",
		"feedback: {webhook_file: missing}": "webhook_file",
		"cert: missing, cert_password: x, cert_password_file: y": "cert_password_file",
		"cert: missing, key: missing":                            "key",
		"cert: missing, key_id: ABC123DEFG":                      "key_id",
		"cert: [missing]":                                        "cert",
	} {
		_, err := Parse("test.yaml", []byte("apps:\n- {topic: com.example.app, "+keys+"}\n- {topic: com.example.gone, cert: gone.pem}\n"), Options{Dir: dir, Getenv: env(nil), Lenient: true})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `test.yaml:3: apps[1].cert "gone.pem": no such file`) {
			t.Errorf("%s: %v", keys, err)
		}
	}
	if _, err := Parse("test.yaml", []byte("apps: [{topic: com.example.app}]"), Options{Lenient: true}); err == nil {
		t.Error("an app without a credential is taken")
	}
}

// A shared credential breaks the apps that use it, and no other. Each of very many knows
// its fault.
func TestSharedCredentialFault(t *testing.T) {
	t.Parallel()
	text := "defaults: {cert: \"${UNSET}\"}\napps:\n- {topic: com.example.own, cert: own.pem}\n"
	for i := range maxFaults + 100 {
		text += fmt.Sprintf("- {topic: com.example.a%d}\n", i)
	}
	dir := t.TempDir()
	own := made{uid: "com.example.own", production: true}.make(t)
	write(t, dir, "own.pem", own.certPEM(), own.keyPEM(t))
	o := Options{Dir: dir, Getenv: env(nil), Lenient: true}
	for i, a := range mustParse(t, text, o).Apps {
		want := ""
		if i > 0 {
			want = `defaults.cert "${UNSET}": environment variable UNSET is not set`
		}
		if a.Broken() != (i > 0) || a.Fault() != want {
			t.Fatalf("%s: %q", a.Topic, a.Fault())
		}
	}
}

// A certificate that is not valid yet is good from its time on, without any change.
func TestNotValidYet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{uid: "com.example.app", production: true}.make(t)
	write(t, dir, "a.pem", m.certPEM(), m.keyPEM(t))
	from := m.cert.NotBefore
	o := Options{Dir: dir, Lenient: true, Now: func() time.Time { return from.Add(-time.Hour) }}
	a := mustParse(t, "apps: [{topic: com.example.app, cert: a.pem}]", o).Apps[0]
	if !a.Broken() || !a.CredentialExpiry().Equal(m.cert.NotAfter) || a.Changed(from.Add(-time.Second)) || !a.Changed(from) {
		t.Errorf("%q, %v", a.Fault(), a.CredentialExpiry())
	}
	if again := a.Reread(from); again.Broken() || again.Changed(from.Add(time.Hour)) {
		t.Errorf("%q", again.Fault())
	}
}

// A file that could not be read and now may be is seen, though nobody wrote it.
func TestStampSeesRights(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.pem")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{stampOf(path): true}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	seen[stampOf(path)] = true
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	seen[stampOf(path)] = true
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if seen[stampOf(path)] = true; len(seen) != 4 {
		t.Errorf("%v", seen)
	}
}

// An app whose new credential is bad keeps the one it has, unless that is for elsewhere.
func TestKeep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := made{}.make(t)
	write(t, dir, "a.pem", m.certPEM(), m.keyPEM(t))
	load := func(keys string) *App {
		t.Helper()
		return &mustParse(t, "apps: [{topic: com.example.app, "+keys+"}]", Options{Dir: dir, Lenient: true}).Apps[0]
	}
	running := load("cert: a.pem")
	for keys, want := range map[string]bool{
		"cert: gone.pem":               true,
		"cert: gone.pem, in_flight: 7": true,
		"key: gone.p8, key_id: ABC123DEFG, team_id: DEF123GHIJ":     true,
		"cert: gone.pem, server: sandbox":                           false,
		`cert: gone.pem, server: "https://api.push.apple.com:2197"`: false,
	} {
		next := load(keys)
		kept := next.Keep(running)
		if kept.Broken() == want || kept.SameCredential(running) != want || kept.Fault() == "" || next.Certificate != nil {
			t.Errorf("%s: kept %v", keys, kept.Certificate)
		}
		if again := load(keys).Keep(&kept); again.Broken() == want { // kept once more
			t.Errorf("%s: not kept again", keys)
		}
	}
	if same := load("cert: gone.pem").Keep(running); !running.Same(&same) {
		t.Error("a new credential that is bad is a difference")
	}
	if a, b := load("cert: gone.pem"), load("cert: lost.pem"); !a.Same(b) || a.Same(running) {
		t.Error("why an app is broken is a difference, or that it is broken is none")
	}
	if well, bad := load("server: mock"), load("server: mock, cert: gone.pem"); well.Same(bad) || bad.Same(well) {
		t.Error("that an app without a credential is broken is no difference")
	}
	if good := load("cert: a.pem"); good.Keep(load("cert: gone.pem")).Certificate == nil {
		t.Error("a good credential is not used")
	}
}
