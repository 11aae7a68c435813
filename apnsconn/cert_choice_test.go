package apnsconn

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// Of several certificates that the file has keys for, the fit one that expires last is
// used, wherever it stands.
func TestFor(t *testing.T) {
	t.Parallel()
	const app, voip = "com.example.app", "com.example.app.voip"
	now := time.Now()
	key, other := newTestKey(t), newTestKey(t)
	until := func(days int) time.Time { return now.AddDate(0, 0, days) }
	production, sandbox := ids(oidApplePushProduction), ids(oidApplePushSandbox)
	certs := map[string]*x509.Certificate{
		"expired":  newTestCert(t, certSpec{uid: app, oids: production, notBefore: until(-400), notAfter: until(-1)}, key),
		"soon":     newTestCert(t, certSpec{uid: app, oids: production, notAfter: until(5)}, key),
		"renewed":  newTestCert(t, certSpec{uid: app, oids: production, notAfter: until(300)}, key),
		"later":    newTestCert(t, certSpec{uid: app, oids: production, notBefore: until(10), notAfter: until(500)}, key),
		"sandbox":  newTestCert(t, certSpec{uid: app, oids: sandbox, notAfter: until(400)}, key),
		"voip":     newTestCert(t, certSpec{uid: voip, oids: production, notAfter: until(600)}, key),
		"stranger": newTestCert(t, certSpec{uid: "com.example.other", oids: production, notAfter: until(700)}, key),
		"newkey":   newTestCert(t, certSpec{uid: app, oids: production, notAfter: until(350)}, other),
		"web":      newTestCert(t, certSpec{notAfter: until(800)}, key), // a server's, with no mark of Apple's
		"ca":       newTestCert(t, certSpec{uid: "ca", notAfter: until(900)}, newTestKey(t)),
	}
	all := "expired stranger soon ca voip sandbox renewed later"
	for _, tt := range []struct {
		have, topic string
		env         Environment
		days        int
		want        string
	}{
		{"expired renewed", app, Production, 0, "renewed"},
		{"renewed expired", app, Production, 0, "renewed"},
		{"soon renewed", app, Production, 0, "renewed"},
		{"soon later", app, Production, 0, "soon"},
		{"soon later", app, Production, 20, "later"},
		{"sandbox renewed", app, Production, 0, "renewed"},
		{"sandbox renewed", app, Sandbox, 0, "sandbox"},
		{"voip soon", app, Production, 0, "soon"},
		{"voip soon", voip, Production, 0, "voip"},
		{"stranger soon", app, Production, 0, "soon"},
		{"stranger expired", app, Production, 0, "expired"}, // one fault each, and the topic is no matter of time
		{"renewed newkey", app, Production, 0, "newkey"},
		{"web renewed", app, Production, 0, "renewed"},
		{all, app, Production, 0, "renewed"},
		{all, app, Production, 20, "later"},
		{all, "com.example.other", Production, 0, "stranger"},
	} {
		file := [][]byte{keyPEM(t, key), keyPEM(t, other)}
		for _, name := range strings.Fields(tt.have) {
			file = append(file, certPEM(certs[name]))
		}
		c, err := LoadCertificate(inTempFile(t, "c.pem", file...), "", "")
		if err != nil {
			t.Fatal(err)
		}
		best, why := c.For(tt.topic, tt.env, now.AddDate(0, 0, tt.days))
		if best.Fingerprint != sha256.Sum256(certs[tt.want].Raw) || !strings.Contains(why, minute(best.NotAfter)) {
			t.Errorf("%s for %s in %d days: %v, %q, want %s", tt.have, tt.topic, tt.days, best, why, tt.want)
		}
		if want := 1 + strings.Count(tt.have, "ca"); tt.want != "newkey" && !strings.Contains(tt.have, "newkey") && len(parsedTLS(t, best).Certificate) != want {
			t.Errorf("%s: sends %d certificates, want %d", tt.have, len(parsedTLS(t, best).Certificate), want)
		}
	}
	p12, err := pkcs12.Modern.Encode(key, certs["expired"], []*x509.Certificate{certs["ca"], certs["renewed"]}, "x")
	if err != nil {
		t.Fatal(err)
	}
	c, err := LoadCertificate(inTempFile(t, "c.p12", p12), "", "x")
	if err != nil {
		t.Fatal(err)
	}
	if best, _ := c.For(app, Production, now); best.Fingerprint != sha256.Sum256(certs["renewed"].Raw) {
		t.Errorf("PKCS#12: %v", best)
	}
	one, err := LoadCertificate(inTempFile(t, "c.pem", keyPEM(t, key), certPEM(certs["soon"], certs["ca"])), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if best, why := one.For(app, Production, now); best != one || why != "" {
		t.Errorf("one certificate: %v, %q", best, why)
	}
}

// What a file is that has no certificate, or not the key to it, and what to do.
func TestUseless(t *testing.T) {
	t.Parallel()
	key := newTestKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	leaf := newTestCert(t, certSpec{uid: "com.example.app"}, key)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	private, _ := pem.Decode(keyPEM(t, key))
	damaged := leaf.Raw[: len(leaf.Raw)-1 : len(leaf.Raw)]
	for want, data := range map[string][]byte{
		"holds a certificate signing request, but no certificate: upload it in":         pemBlock("CERTIFICATE REQUEST", csr),
		"holds a certificate signing request, but no certificate: upload it":            join(pemBlock("NEW CERTIFICATE REQUEST", csr), keyPEM(t, key)),
		"holds a certificate signing request, but no certificate":                       csr,
		"holds a public key, but no certificate: give the app's certificate":            pemBlock("PUBLIC KEY", public),
		"holds a public key, but no certificate":                                        public,
		"holds no certificate, only a private key: give the certificate that belongs":   keyPEM(t, key),
		"holds no certificate, only a private key":                                      private.Bytes,
		"holds no certificate, only \"EC PARAMETERS\": give the app's certificate":      pemBlock("EC PARAMETERS", []byte{6, 1, 1}),
		"the certificate is for ECDSA, the key is RSA":                                  join(certPEM(leaf), keyPEM(t, rsaKey)),
		"its certificate at line 1 cannot be parsed":                                    pemBlock("CERTIFICATE", damaged),
		"holds a certificate but no private key: export both together":                  certPEM(leaf),
		"its private key at line 1 cannot be parsed: it is damaged, or neither RSA, EC": pemBlock("PRIVATE KEY", public),
		"sealed with a public key: export it again with a password":                     inDER(t, pfx{Version: 3, Safe: part(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, []byte("x"))}),
		"is damaged or cut off: copy or export it again":                                leaf.Raw[:100],
	} {
		wantFault(t, inTempFile(t, "x", data), "", "", want, nil)
	}
	trusted := pemBlock("TRUSTED CERTIFICATE", join(leaf.Raw, []byte{0x30, 0}))
	for name, data := range map[string][]byte{
		"TRUSTED":       join(trusted, keyPEM(t, key)),
		"X509":          join(pemBlock("X509 CERTIFICATE", leaf.Raw), keyPEM(t, key)),
		"BOM, glued":    []byte("\ufeff" + strings.ReplaceAll(string(join(certPEM(leaf), keyPEM(t, key))), "-----\n-----BEGIN", "----------BEGIN")),
		"literal lines": []byte(strings.ReplaceAll(string(join(keyPEM(t, key), certPEM(leaf))), "\n", `\n`)),
	} {
		file := inTempFile(t, "x", data)
		if c, err := LoadCertificate(file, "", ""); err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			checkLoaded(t, c, file, leaf, nil)
		}
	}
	for want, data := range map[string][]byte{
		"holds no private key: give the key that the certificate's": certPEM(leaf),
		"is damaged: the PRIVATE KEY that begins at line 1":         keyPEM(t, key)[:80],
		"is neither PEM nor PKCS#12":                                []byte("hello"),
	} {
		wantFault(t, inTempFile(t, "cert.pem", certPEM(leaf)), inTempFile(t, "key.pem", data), "", want, nil)
	}
	for _, form := range [][]byte{private.Bytes, keyPEM(t, key)} { // a key in either form
		if _, err := LoadCertificate(inTempFile(t, "aps.cer", leaf.Raw), inTempFile(t, "k", form), ""); err != nil {
			t.Error(err)
		}
	}
	if _, err := LoadCertificate(filepath.Join(t.TempDir(), "none"), "", ""); err == nil {
		t.Error("a file that is not there is loaded")
	}
}
