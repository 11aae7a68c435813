package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

const (
	expiredApp = "com.example.expired"
	missingApp = "com.example.missing"
)

// newCredentialSite has three apps: the certificate of one is good, of one expired, and
// the key of one is missing.
func newCredentialSite(t *testing.T) *webSite {
	s := &webSite{site: newSite(t, apnstest.Options{})}
	s.write(expiredApp+".pem", string(s.apns.ClientCertPEM(expiredApp, apnstest.ValidUntil(time.Now().Add(-time.Hour)))))
	s.write("propeller.yaml", fmt.Sprintf(`
queue: %s
state_dir: state
defaults: {server: %s, ca_file: ca.pem}
http: {listen: "127.0.0.1:0"}
apps:
  - {topic: %s, cert: %s.pem}
  - {topic: %s, cert: %s.pem}
  - {topic: %s, cert: cert.pem, cert_key: key.pem}
`, s.bs.URL(), s.apns.URL, topic, topic, expiredApp, expiredApp, missingApp))
	s.write("cert.pem", string(s.apns.ClientCertPEM(missingApp)))
	return s
}

// replace puts a file in the place of another, as a whole.
func (s *site) replace(name, text string) {
	s.t.Helper()
	s.write("new", text)
	if err := os.Rename(filepath.Join(s.dir, "new"), filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *webSite) pushed() map[string]int {
	got := make(map[string]int) // by topic
	for _, r := range s.apns.Requests() {
		got[r.Header.Get("apns-topic")]++
	}
	return got
}

// Apps whose credentials cannot be used neither keep the daemon from starting nor the
// others from pushing. All say why, no job is touched, and good files heal them.
func TestBadCredentialsBreakTheirAppsOnly(t *testing.T) {
	s := newCredentialSite(t)
	const expired, missing = `cert "com.example.expired.pem": expired on `, `cert_key "key.pem": no such file`
	if r := runProgram(t, s.dir, "", "check"); r.status != 1 || !strings.Contains(r.err, "propeller.yaml:8: apps[1]."+expired) || !strings.Contains(r.err, "propeller.yaml:9: apps[2]."+missing) {
		t.Errorf("check: %+v", r)
	}
	if r := runProgram(t, s.dir, "", "run", "--strict"); r.status != 1 || !strings.Contains(r.err, expired) || !strings.Contains(r.err, missing) || strings.Contains(r.err, "propeller started") {
		t.Errorf("run --strict: %+v", r)
	}
	s.start()
	for i, tube := range []string{topic, expiredApp, missingApp} {
		s.putByHand(tube, `{"token": "`+token(i)+`", "title": "x"}`)
	}
	until(t, "the good app pushes", func() bool { return s.pushed()[topic] == 1 })
	for _, fault := range []string{expired, missing} {
		s.daemon.says("app broken: its credential cannot be used")
		s.daemon.says(strings.ReplaceAll(fault, `"`, `\"`))
	}
	ask := func(path string, status int, parts ...string) {
		t.Helper()
		got, body := s.ask("", "GET", path, "")
		for _, part := range append(parts, "") {
			if got != status || !strings.Contains(body, part) {
				t.Errorf("%s: %d without %q in %s", path, got, part, body)
			}
		}
	}
	inJSON := func(text string) string { return strings.ReplaceAll(text, `"`, `\"`) }
	ask("/readyz", 200)
	ask("/readyz/apps", 503, "broken: "+inJSON(expired), "broken: "+inJSON(missing))
	ask("/readyz/apps/"+topic, 200)
	ask("/readyz/apps/"+expiredApp, 503, "broken: "+inJSON(expired))
	ask("/v1/apps/"+expiredApp, 200, `"state":"broken","ready":false,"reason":"`+inJSON(expired), `"credential_fault":"`+inJSON(expired), `"credential_expires":"`)
	ask("/metrics", 200, `propeller_app_state{app="`+missingApp+`",state="broken",topic="`+missingApp+`"} 1`, `propeller_credential_refused{app="`+missingApp+`",topic="`+missingApp+`"} 1`,
		`propeller_credential_refused{app="`+topic+`",topic="`+topic+`"} 0`, "propeller_config_reload_ok 1")
	ask("/", 200, "expired on ", "no such file")
	if r := runProgram(t, s.dir, "", "status"); r.status != 1 || !strings.Contains(r.out, expiredApp+": broken: cert") || !strings.Contains(r.out, missingApp+": broken: cert_key") {
		t.Errorf("status: %+v", r)
	}

	s.replace(expiredApp+".pem", string(s.apns.ClientCertPEM(expiredApp)))
	until(t, "the renewed certificate heals its app", func() bool { return s.pushed()[expiredApp] == 1 })
	ask("/readyz/apps", 503, "broken: "+inJSON(missing))
	s.replace("cert.pem", string(s.apns.ClientCertPEM(missingApp)))
	s.replace("key.pem", s.read("cert.pem"))
	until(t, "the key heals its app", func() bool { return s.pushed()[missingApp] == 1 })
	until(t, "all apps are well", func() bool { status, _ := s.ask("", "GET", "/readyz/apps", ""); return status == 200 })

	// A bad renewal of an app that works: it goes on, also as the reload changes others.
	s.replace(topic+".pem", "half of a certificate")
	const half = `cert \"com.example.app.pem\": is neither`
	if status, body := s.ask("", "POST", "/v1/reload", ""); status != 200 || !strings.HasPrefix(body, `{"apps":3,"credentials":[{"app":"com.example.app","fault":"`+half) {
		t.Errorf("%d %s", status, body)
	}
	s.putByHand(topic, `{"token": "`+token(3)+`", "title": "x"}`)
	until(t, "the app with a bad renewal pushes", func() bool { return s.pushed()[topic] == 2 })
	ask("/readyz/apps", 200)
	ask("/v1/apps/"+topic, 200, `"credential_fault":"`+half)
	ask("/metrics", 200, `propeller_credential_refused{app="`+topic+`",topic="`+topic+`"} 1`, "propeller_config_reload_ok 1")
	if r := runProgram(t, s.dir, "", "status"); r.status != 0 || !strings.Contains(r.out, topic+": its new credential cannot be used") {
		t.Errorf("status: %+v", r)
	}
	s.cert(topic)
	until(t, "the good one is taken", func() bool {
		_, body := s.ask("", "GET", "/v1/apps/"+topic, "")
		return !strings.Contains(body, "credential_fault")
	})
	s.daemon.signal(syscall.SIGTERM)
	if status := s.daemon.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
	if got := s.pushed(); got[topic] != 2 || got[expiredApp] != 1 || got[missingApp] != 1 {
		t.Errorf("pushes %v", got)
	}
}

// With --strict a reload with a bad credential is refused, and nothing is changed.
func TestStrictReload(t *testing.T) {
	s := newWebSite(t, "")
	s.daemon.signal(syscall.SIGTERM)
	s.daemon.exit()
	s.start("run", "--strict")
	s.replace(topic+".pem", "half of a certificate")
	if status, body := s.ask("", "POST", "/v1/reload", ""); status != 422 || !strings.Contains(body, "is neither") {
		t.Errorf("%d %s", status, body)
	}
	if _, body := s.ask("", "GET", "/metrics", ""); !strings.Contains(body, "propeller_config_reload_ok 0") || !strings.Contains(body, `propeller_credential_refused{app="`+topic+`",topic="`+topic+`"} 0`) {
		t.Error("the metrics do not tell")
	}
}

// One broken app of 300 leaves the daemon ready, and only itself not.
func TestReadyWithOneBrokenAppOf300(t *testing.T) {
	const n, bad = 300, "com.example.a150"
	s := &webSite{site: newSite(t, apnstest.Options{})}
	text := "queue: " + s.bs.URL() + "\nhttp: {listen: '127.0.0.1:0'}\ndefaults: {server: mock}\napps:\n"
	for i := range n {
		cert := ""
		if app := fmt.Sprintf("com.example.a%d", i); app == bad {
			cert = ", cert: gone.pem"
		}
		text += fmt.Sprintf("  - {topic: com.example.a%d%s}\n", i, cert)
	}
	s.write("propeller.yaml", text)
	s.start()
	for path, want := range map[string]int{"/readyz": 200, "/readyz/apps": 503, "/readyz/apps/" + bad: 503, "/readyz/apps/com.example.a7": 200} {
		status, body := s.ask("", "GET", path, "")
		if status != want || strings.Count(body, "com.example") > 1 || want == 503 && !strings.Contains(body, bad) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// The page shows why an app's credential cannot be used, and that it is mended, by itself.
func TestPageOfBadCredentials(t *testing.T) {
	s := newCredentialSite(t)
	s.start()
	b := newTab(t, s.url)
	b.open("/")
	b.live()
	b.says(row(missingApp, "why"), `cert_key "key.pem": no such file`)
	b.says(row(missingApp, "state"), "broken")
	b.says("[data-total] .trouble", "2 apps in trouble")
	s.replace("cert.pem", string(s.apns.ClientCertPEM(missingApp)))
	s.replace("key.pem", s.read("cert.pem"))
	b.says("[data-total] .trouble", "1 app in trouble")
	b.until("the app works", func() bool { return b.text(row(missingApp, "why")) == "" })
	s.replace(topic+".pem", "half of a certificate")
	s.daemon.signal(syscall.SIGHUP)
	b.says(row(topic, "also"), "new credential refused")
	b.says(row(topic, "why"), "so it keeps the one it has")
	b.open("/apps/" + expiredApp)
	b.live()
	b.says(".why", `cert "com.example.expired.pem": expired on `)
	b.says("#workers", "No worker")
}

// What a file is that cannot be used, and what to do, is the same in check and in status,
// and names the file however long its path is. Of two certificates check says which.
func TestStatusSaysWhatAFileIs(t *testing.T) {
	s := &webSite{site: newSite(t, apnstest.Options{})}
	whole := string(s.apns.ClientCertPEM(topic))
	i := strings.Index(whole, "-----BEGIN CERTIFICATE")
	j := i + strings.Index(whole[i:], "-----END CERTIFICATE-----\n") + len("-----END CERTIFICATE-----\n")
	cert, key := whole[i:j], whole[:i]+whole[j:]
	folder := filepath.Join(s.dir, strings.Repeat("a-long-folder/", 8))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	files := []struct{ name, text, want string }{
		{"only-key.pem", key, "holds no certificate, only a private key: give the certificate that belongs to it as cert, and this file as cert_key"},
		{"only-cert.pem", cert, "holds a certificate but no private key: export both together from Keychain Access as .p12, or give the key's file as cert_key"},
		{"damaged.pem", strings.Replace(whole, "\nMI", "\nM*", 1), "is damaged: "},
		{"cut.p12", "0\x82\x01\x00", "is damaged or cut off: copy or export it again"},
	}
	text := fmt.Sprintf("queue: %s\nstate_dir: state\ndefaults: {server: %s, ca_file: ca.pem}\nhttp: {listen: \"127.0.0.1:0\"}\napps:\n  - {topic: %s, cert: good.pem}\n", s.bs.URL(), s.apns.URL, topic)
	s.write("good.pem", whole+string(s.apns.ClientCertPEM(topic)))
	for i, f := range files {
		if err := os.WriteFile(filepath.Join(folder, f.name), []byte(f.text), 0o600); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("  - {topic: com.example.n%d, cert: %q}\n", i, filepath.Join(folder, f.name))
	}
	s.write("propeller.yaml", text)
	r := runProgram(t, s.dir, "", "check")
	s.start()
	status := runProgram(t, s.dir, "", "status")
	for _, f := range files {
		for what, got := range map[string]string{"check": r.err, "status": strings.Join(strings.Fields(status.out), " ")} {
			if !strings.Contains(got, "…/"+f.name+`": `+f.want) {
				t.Errorf("%s does not say of %s that it %s:\n%s", what, f.name, f.want, got)
			}
		}
	}
	s.write("propeller.yaml", strings.Split(text, "  - {topic: com.example.n0")[0])
	if r := runProgram(t, s.dir, "", "check"); r.status != 0 || !strings.Contains(r.out, "has 2 certificates with their key: the one that expires on ") {
		t.Errorf("check: %+v", r)
	}
	s.daemon.says("has 2 certificates with their key: the one that expires on ")
}
