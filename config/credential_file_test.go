package config

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Of the certificates in a file the one is used that fits the app and expires last, and
// the app says which. What fits changes with time.
func TestCertificateChoice(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	old := made{uid: "com.example.app", production: true, notAfter: now.AddDate(0, 0, 40)}.make(t)
	renewed := made{uid: "com.example.app", production: true, notAfter: now.AddDate(0, 0, 400)}.make(t)
	other := made{uid: "com.example.other", production: true, notAfter: now.AddDate(0, 0, 50)}.make(t)
	write(t, dir, "all.pem", old.certPEM(), old.keyPEM(t), other.certPEM(), other.keyPEM(t), renewed.certPEM(), renewed.keyPEM(t))
	at := func(days int, topic string) App {
		o := Options{Dir: dir, Lenient: true, Now: func() time.Time { return now.AddDate(0, 0, days) }}
		return mustParse(t, "apps: [{topic: "+topic+", cert: all.pem}]", o).Apps[0]
	}
	for _, tt := range []struct {
		topic string
		days  int
		want  made
	}{{"com.example.app", 0, renewed}, {"com.example.app", 100, renewed}, {"com.example.other", 0, other}} {
		a := at(tt.days, tt.topic)
		if a.Broken() || a.Certificate.Fingerprint != sha256.Sum256(tt.want.cert.Raw) || !a.CredentialExpiry().Equal(tt.want.cert.NotAfter) {
			t.Errorf("%s in %d days: %v, %q", tt.topic, tt.days, a.Certificate, a.Fault())
			continue
		}
		want := `"all.pem" has 3 certificates with their key: the one that expires on ` + tt.want.cert.NotAfter.UTC().Format("2006-01-02 15:04")
		if len(a.Warnings) != 1 || !strings.HasPrefix(a.Warnings[0], want) || !strings.Contains(a.Warnings[0], tt.want.cert.SerialNumber.Text(16)) {
			t.Errorf("%s: %q", tt.topic, a.Warnings)
		}
	}

	later := made{uid: "com.example.app", production: true, notAfter: now.AddDate(0, 0, 30)}.make(t)
	write(t, dir, "all.pem", old.certPEM(), old.keyPEM(t), later.certPEM(), later.keyPEM(t))
	if a := at(0, "com.example.app"); a.Changed(now) || a.Changed(now.AddDate(0, 0, 39)) {
		t.Error("a certificate that is as good as at the start is read again")
	}
	if a := at(0, "com.example.app"); a.Changed(now.AddDate(0, 0, 41)) {
		t.Error("when all have expired nothing else is to be had")
	}
	next := made{uid: "com.example.app", production: true, notBefore: now.AddDate(0, 0, 20)}.make(t)
	write(t, dir, "all.pem", next.certPEM(), next.keyPEM(t), old.certPEM(), old.keyPEM(t))
	a := at(0, "com.example.app")
	if a.Certificate.Fingerprint != sha256.Sum256(old.cert.Raw) || a.Changed(now.AddDate(0, 0, 19)) || !a.Changed(now.AddDate(0, 0, 21)) {
		t.Errorf("%v: the one that is not valid yet", a.Certificate)
	}
	if a = a.Reread(now.AddDate(0, 0, 21)); a.Broken() || a.Certificate.Fingerprint != sha256.Sum256(next.cert.Raw) || a.Changed(now.AddDate(0, 0, 22)) {
		t.Errorf("%v, %q", a.Certificate, a.Fault())
	}
}

// A key or certificate in the place of a path is not quoted, whatever its form.
func TestPastedKey(t *testing.T) {
	t.Parallel()
	m := made{uid: "com.example.app"}.make(t)
	text := string(m.keyPEM(t))
	block, _ := pem.Decode([]byte(text))
	der := base64.StdEncoding.EncodeToString(block.Bytes)
	o := Options{Dir: t.TempDir(), Getenv: env(map[string]string{"P8": text})}
	for name, value := range map[string]string{
		"PEM":             strconv.Quote(text),
		"one line":        strconv.Quote(strings.ReplaceAll(text, "\n", " ")),
		"literal":         `'` + strings.ReplaceAll(text, "\n", `\n`) + `'`,
		"no BEGIN":        strconv.Quote(strings.Join(strings.Split(text, "\n")[1:4], "")),
		"base64 of PEM":   base64.StdEncoding.EncodeToString([]byte(text)),
		"for URLs":        base64.RawURLEncoding.EncodeToString(block.Bytes),
		"from a variable": `"${P8}"`,
	} {
		for key, more := range map[string]string{
			"key": ", " + ids, "cert": "", "cert_key": ", cert: x.pem", "ca_file": ", server: mock", "key_id": ", team_id: DEF123GHIJ, key: x.p8",
		} {
			_, err := Parse("x.yaml", []byte("apps: [{topic: com.example.app, "+key+": "+value+more+"}]"), o)
			if err == nil {
				t.Errorf("%s in %s: no fault", name, key)
				continue
			}
			for i := 0; i+20 <= len(der); i += 20 {
				if strings.Contains(err.Error(), der[i:i+20]) || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte(text))[:40]) {
					t.Fatalf("%s in %s: quotes the key: %v", name, key, err)
				}
			}
			if key != "key_id" && !strings.Contains(err.Error(), "apps[0]."+key) {
				t.Errorf("%s in %s: %v", name, key, err)
			}
			if key != "key_id" && !strings.Contains(err.Error(), ": holds the key or certificate itself: give the path of a file with it") {
				t.Errorf("%s in %s: %v", name, key, err)
			}
		}
	}
}

// Of a long path the name of the file is shown.
func TestLongPath(t *testing.T) {
	t.Parallel()
	long := "/srv/" + strings.Repeat("a-folder/", 20)
	for path, want := range map[string]string{
		"/short/x.pem":                        "/short/x.pem",
		long + "com.example.app.pem":          "/srv/a-folder/a-folder/a-folder/a-folder…/com.example.app.pem",
		long + strings.Repeat("é", 100):       "",
		strings.Repeat("x", 200):              strings.Repeat("x", maxShown) + "…",
		"https://" + strings.Repeat("y", 100): "",
		long + "\xffbad.pem":                  "",
	} {
		got := shown(path)
		if want != "" && got != want || len(got) > maxShown+10 || strings.ToValidUTF8(got, "") != got {
			t.Errorf("%.80q: %q (%d bytes), want %q", path, got, len(got), want)
		}
	}
	_, err := Parse("x.yaml", []byte("apps: [{topic: com.example.app, cert: "+long+"com.example.app.pem}]"), Options{})
	if err == nil || !strings.Contains(err.Error(), `…/com.example.app.pem": no such file`) {
		t.Error(err)
	}
}

// Roots are read as people have them; one that cannot be read is a fault of the file,
// not of the app's credential.
func TestRootsOfAnyForm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m, root, second := made{uid: "com.example.app", production: true}.make(t), made{}.make(t), made{}.make(t)
	write(t, dir, "app.pem", m.certPEM(), m.keyPEM(t))
	both := string(root.certPEM()) + string(second.certPEM())
	damaged := strings.Replace(both, "\nMI", "\nM*", 1)
	for name, tt := range map[string]struct {
		data string
		want string // "": used
	}{
		"BOM":     {data: "\ufeff" + both},
		"glued":   {data: strings.ReplaceAll(both, "-----\n-----BEGIN", "----------BEGIN")},
		"CR":      {data: strings.ReplaceAll(both, "\n", "\r")},
		"DER":     {data: string(root.cert.Raw)},
		"damaged": {damaged, "is damaged: the CERTIFICATE that begins at line 1 cannot be decoded, line 2 is not base64"},
		"cut off": {both[:len(both)-50], "has no END line"},
		"TRUSTED": {string(pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: append(root.cert.Raw[:len(root.cert.Raw):len(root.cert.Raw)], 0x30, 0)})),
			"holds a TRUSTED CERTIFICATE at line 1, which only OpenSSL reads: rewrite the file with: openssl crl2pkcs7 -nocrl -certfile roots | openssl pkcs7 -print_certs -out new.pem"},
		"key": {both + string(m.keyPEM(t)), "holds a PRIVATE KEY at line "},
	} {
		if err := os.WriteFile(filepath.Join(dir, "roots"), []byte(tt.data), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Parse("x.yaml", []byte("apps: [{topic: com.example.app, cert: app.pem, ca_file: roots}]"), Options{Dir: dir, Lenient: true})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want == "":
			for _, cert := range []*x509.Certificate{root.cert, second.cert} {
				if _, err := cert.Verify(x509.VerifyOptions{Roots: cfg.Apps[0].RootCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); (err == nil) != (name != "DER" || cert == root.cert) {
					t.Errorf("%s: %v", name, err)
				}
			}
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), `apps[0].ca_file "roots": `) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}
