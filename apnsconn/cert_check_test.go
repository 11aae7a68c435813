package apnsconn

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"propeller/internal/pemfile"
)

// TestCheck is a table of certificates, each with what Check has to say.
func TestCheck(t *testing.T) {
	t.Parallel()
	const app, voip = "com.example.app", "com.example.app.voip"
	now := time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)
	universal := Certificate{UID: app, Topics: []string{app, voip, app + ".complication"}, Production: true, Sandbox: true, Apple: true}
	with := func(change func(c *Certificate)) Certificate {
		c := universal
		change(&c)
		return c
	}
	days := func(n int) time.Time { return now.AddDate(0, 0, n) }

	tests := []struct {
		name           string
		cert           Certificate
		topic          string
		env            Environment
		from, until    time.Time // zero: a year around now
		warns, refuses []string  // a part of each sentence
	}{
		{name: "production", cert: universal, topic: app, env: Production},
		{name: "sandbox", cert: universal, topic: app, env: Sandbox},
		{name: "somebody else's server", cert: universal, topic: app, env: Other},
		{name: "listed suffix", cert: universal, topic: voip, env: Production},

		{name: "one hour left", cert: universal, topic: app, env: Production, until: now.Add(time.Hour),
			warns: []string{"expires on 2026-06-15 13:00 UTC, in 0 days: renew it"}},
		{name: "29 days left", cert: universal, topic: app, env: Production, until: days(29),
			warns: []string{"expires on 2026-07-14 12:00 UTC, in 29 days: renew it"}},
		{name: "30 days left", cert: universal, topic: app, env: Production, until: days(30)},
		{name: "last second", cert: universal, topic: app, env: Production, until: now,
			warns: []string{"in 0 days"}},
		{name: "expired", cert: universal, topic: app, env: Production, until: now.Add(-time.Second),
			refuses: []string{"expired on 2026-06-15 11:59 UTC: make a new one"}},
		{name: "first second", cert: universal, topic: app, env: Production, from: now},
		{name: "not yet valid", cert: universal, topic: app, env: Production, from: now.Add(time.Minute),
			refuses: []string{"is not valid before 2026-06-15 12:01 UTC: check this machine's clock, which says 2026-06-15 12:00 UTC"}},

		{name: "another app", cert: universal, topic: "com.example.other", env: Production,
			refuses: []string{`is for "com.example.app", "com.example.app.voip", "com.example.app.complication", not for topic "com.example.other"`}},
		{name: "a longer bundle id", cert: universal, topic: app + ".widget", env: Production,
			refuses: []string{`not for topic "com.example.app.widget"`}},
		{name: "upper case", cert: universal, topic: "com.example.App", env: Production,
			refuses: []string{"not for topic"}},
		{name: "suffix not listed", cert: universal, topic: app + ".push-type.liveactivity", env: Production,
			warns: []string{`topic "com.example.app.push-type.liveactivity" is not listed in it`}},
		{name: "another app's suffix", cert: universal, topic: "com.example.other.voip", env: Production,
			refuses: []string{"not for topic"}},
		{name: "token only", cert: universal, topic: app + ".location-query", env: Production,
			refuses: []string{"pushes of type location need a provider token"}},
		{name: "voip certificate, app topic", cert: with(func(c *Certificate) { c.UID, c.Topics = voip, nil }), topic: app, env: Production,
			warns: []string{`serves only "com.example.app.voip": APNs will refuse other pushes to "com.example.app"`}},
		{name: "UID not in its list", cert: with(func(c *Certificate) { c.Topics = []string{voip} }), topic: app, env: Production},
		{name: "list only", cert: with(func(c *Certificate) { c.UID = "" }), topic: app, env: Production},
		{name: "list only, another app", cert: with(func(c *Certificate) { c.UID = "" }), topic: "com.example.other", env: Production,
			refuses: []string{"not for topic"}},
		{name: "old: no list", cert: with(func(c *Certificate) { c.Topics = nil }), topic: app, env: Production},
		{name: "old: no list, another app", cert: with(func(c *Certificate) { c.Topics = nil }), topic: "com.example.other", env: Production,
			refuses: []string{`is for "com.example.app", not for topic "com.example.other"`}},
		{name: "many topics", cert: with(func(c *Certificate) { c.UID, c.Topics = "", strings.Split("a b c d e f g", " ") }), topic: app, env: Production,
			refuses: []string{`is for "a", "b", "c", "d", "e" and 2 more, not for`}},
		{name: "mdm", cert: with(func(c *Certificate) { c.UID, c.Topics = "com.apple.mgmt.External.1", nil }), topic: "com.apple.mgmt.External.1", env: Production},

		{name: "sandbox certificate at production", cert: with(func(c *Certificate) { c.Production = false }), topic: app, env: Production,
			refuses: []string{"is for the sandbox only: use a production certificate, or the sandbox server"}},
		{name: "production certificate at sandbox", cert: with(func(c *Certificate) { c.Sandbox = false }), topic: app, env: Sandbox,
			refuses: []string{"is for production only: use a sandbox certificate, or the production server"}},
		{name: "sandbox certificate elsewhere", cert: with(func(c *Certificate) { c.Production = false }), topic: app, env: Other},
		{name: "no environment in it", cert: with(func(c *Certificate) { c.Production, c.Sandbox = false, false }), topic: app, env: Production},

		{name: "home-made", cert: Certificate{}, topic: app, env: Other, warns: []string{"not an Apple push certificate: "}},
		{name: "home-made at production", cert: Certificate{}, topic: app, env: Production, warns: []string{"not an Apple push certificate: "}},
		{name: "home-made with UID", cert: Certificate{UID: app}, topic: app, env: Other, warns: []string{"not an Apple push certificate: "}},
		{name: "home-made for another app", cert: Certificate{UID: app}, topic: "com.example.other", env: Other,
			warns: []string{"not an Apple push certificate: "}, refuses: []string{"not for topic"}},

		{name: "everything wrong", cert: with(func(c *Certificate) { c.Production = false }), topic: "com.example.other", env: Production, until: days(-1),
			refuses: []string{"expired on", "not for topic", "for the sandbox only"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.from.IsZero() {
				tt.from = days(-180)
			}
			if tt.until.IsZero() {
				tt.until = days(180)
			}
			c := tt.cert
			c.File = "certs/app.pem"
			c.NotBefore, c.NotAfter = tt.from, tt.until
			warnings, err := c.Check(tt.topic, tt.env, now)
			checkTexts(t, "warning", warnings, tt.warns)
			checkTexts(t, "fault", faultTexts(t, err), tt.refuses)
		})
	}
}

// faultTexts takes the error of Check apart.
func faultTexts(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var texts []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		ce, ok := errors.AsType[*CertificateError](e)
		if !ok || ce.File != "certs/app.pem" || !strings.HasPrefix(e.Error(), `apnsconn: certificate "certs/app.pem": `) {
			t.Errorf("fault %v does not name the file", e)
			continue
		}
		texts = append(texts, ce.Why)
	}
	return texts
}

func checkTexts(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%ss %q, want %q", what, got, want)
		return
	}
	for i := range got {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("%s %q, want %q in it", what, got[i], want[i])
		}
	}
}

// FuzzParseTopics: the list comes out of a file that anybody may have written.
func FuzzParseTopics(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Add([]byte{0x30, 0x0b, 0x0c, 1, 'a', 0x30, 5, 0x0c, 3, 'a', 'p', 'p', 0x0c})
	f.Fuzz(func(t *testing.T, der []byte) {
		total := 0
		for _, topic := range parseTopics(der) {
			total += len(topic)
		}
		if total > len(der) {
			t.Errorf("%d bytes of topics out of %d", total, len(der))
		}
	})
}

// FuzzParseBundle: no file, however broken, may do more than give an error.
func FuzzParseBundle(f *testing.F) {
	f.Add([]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMAA=\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := pemfile.Parse(data)
		if err != nil {
			return
		}
		b, err := parseBundle(blocks, "x", true)
		if err == nil && b.pkcs12 && len(b.keys) != 1 {
			t.Errorf("PKCS#12 with %d keys", len(b.keys))
		}
		if err != nil && (len(b.keys) > 0 || err.Error() == "") {
			t.Errorf("error %q with %d keys", err, len(b.keys))
		}
	})
}

// A VoIP certificate of the older kind lists its topics in an extension of its own.
func TestVoIPTopics(t *testing.T) {
	t.Parallel()
	list, err := asn1.Marshal([]asn1.RawValue{{Tag: asn1.TagUTF8String, Bytes: []byte("com.example.app.voip")}})
	if err != nil {
		t.Fatal(err)
	}
	c := new(Certificate)
	c.readApple(&x509.Certificate{Extensions: []pkix.Extension{{Id: oidApplePushVoIPTopics, Value: list}}})
	if !c.VoIP || !c.Apple || len(c.Topics) != 1 || c.Topics[0] != "com.example.app.voip" {
		t.Errorf("voip %v, apple %v, topics %v", c.VoIP, c.Apple, c.Topics)
	}
}
