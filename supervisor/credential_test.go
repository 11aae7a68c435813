package supervisor

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
)

const (
	expiredApp = "com.example.expired"
	missingApp = "com.example.missing"
)

// mend puts a good certificate where an app's configuration says, as a renewal does: by
// a new name, so that no half of it is read.
func (w *world) mend(topic string) {
	w.t.Helper()
	w.write("new.pem", w.apns.ClientCertPEM(topic))
	if err := os.Rename(filepath.Join(w.dir, "new.pem"), filepath.Join(w.dir, topic+".pem")); err != nil {
		w.t.Fatal(err)
	}
}

// broken fails unless an app is broken for a reason that begins like this.
func (w *world) broken(topic, reason string) AppStatus {
	w.t.Helper()
	s := w.status(topic)
	if s.Health.State != Broken || !strings.HasPrefix(s.Health.Reason, reason) || s.CredentialFault != s.Health.Reason || len(s.Workers) != 0 || s.Health.Since.IsZero() {
		w.t.Errorf("%s: %+v, %q, %d workers; want %q", topic, s.Health, s.CredentialFault, len(s.Workers), reason)
	}
	return s
}

// Apps without a good credential start broken and leave their jobs alone; the others
// work. A good file heals the app without a reload, and heals no other.
func TestStartWithBadCredentials(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.period = time.Second
	apps := w.app(topic) + w.app(expiredApp, "workers: 2") + w.app(missingApp)
	w.write(expiredApp+".pem", w.apns.ClientCertPEM(expiredApp, apnstest.ValidUntil(time.Now().Add(-time.Hour))))
	if err := os.Remove(filepath.Join(w.dir, missingApp+".pem")); err != nil {
		t.Fatal(err)
	}
	w.put(topic, jobBody(0))
	w.put(expiredApp, jobBody(1))
	w.put(missingApp, jobBody(2))
	w.start(apps)
	w.empty(topic)
	was := w.broken(expiredApp, `cert "com.example.expired.pem": expired on `)
	if w.broken(missingApp, `cert "com.example.missing.pem": no such file`); !was.CredentialExpiry.Before(time.Now()) || was.CredentialExpiry.IsZero() {
		t.Errorf("expires %v", was.CredentialExpiry)
	}
	w.until("the watchdog has looked at the jobs of a broken app", func() bool {
		q := w.status(expiredApp).Queue
		return q != nil && q.Ready == 1
	})
	if s := w.status(topic); s.Health.State == Broken || s.CredentialFault != "" {
		t.Errorf("%+v", s)
	}

	w.sup.Renew()
	w.apply(apps) // w.app is not asked again: nothing has changed
	if again := w.broken(expiredApp, `cert "com.example.expired.pem": expired on `); again.Health.Since != was.Health.Since {
		t.Errorf("broken since %v, then since %v", was.Health.Since, again.Health.Since)
	}
	w.mend(expiredApp)
	w.sup.Renew()
	w.empty(expiredApp)
	if s := w.status(expiredApp); s.Health.State == Broken || s.CredentialFault != "" || len(s.Workers) != 2 || s.CredentialExpiry.Before(time.Now()) {
		t.Errorf("%+v", s)
	}
	w.broken(missingApp, `cert "com.example.missing.pem": no such file`)
	if n := w.tube(missingApp, "current-jobs-ready"); n != 1 {
		t.Errorf("%d jobs of a broken app are ready", n)
	}

	w.write(missingApp+".pem", []byte("half of it"))
	w.sup.Renew()
	w.broken(missingApp, `cert "com.example.missing.pem": is neither`)
	w.mend(missingApp)
	w.apply(apps) // a reload heals, too
	w.empty(missingApp)
	w.eachOnce(3)
	if d := w.apns.Dials(); d != 3 {
		t.Errorf("%d connections, want one for each app", d)
	}
}

// A running app whose new credential is bad keeps the one it has, with its connection,
// through reloads that change other things of it, until there is a good one.
func TestReloadKeepsACredential(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	app := w.app(topic)
	w.start(app)
	w.put(topic, jobBody(0))
	w.empty(topic)
	cert := w.status(topic).CredentialExpiry
	w.write(topic+".pem", []byte("garbage"))
	more := strings.Replace(app, "}", ", workers: 2}", 1)
	for i, apps := range []string{app, more, more} { // to add a worker is no change of the app
		w.apply(apps)
		s := w.status(topic)
		if s.Health.State == Broken || !strings.HasPrefix(s.CredentialFault, `cert "com.example.app.pem": is neither`) || !s.CredentialExpiry.Equal(cert) || len(s.Workers) != min(i+1, 2) {
			t.Errorf("%+v, %q, %v", s.Health, s.CredentialFault, s.CredentialExpiry)
		}
		w.put(topic, jobBody(i+1))
		w.empty(topic)
	}
	if strings.Contains(w.log.String(), "app changed") {
		t.Error("the app was replaced")
	}
	w.apply(strings.Replace(app, "}", ", in_flight: 7}", 1)) // replaced, with the credential it has
	w.put(topic, jobBody(4))
	w.empty(topic)
	if s := w.status(topic); s.CredentialFault == "" || s.Health.State == Broken {
		t.Errorf("%+v", s)
	}
	first := w.apns.Requests()[0].ClientCert
	for i, r := range w.apns.Requests() {
		if !bytes.Equal(r.ClientCert.Raw, first.Raw) {
			t.Errorf("push %d: another certificate", i)
		}
	}
	w.mend(topic)
	w.sup.Renew()
	if s := w.status(topic); s.CredentialFault != "" || s.CredentialExpiry.IsZero() {
		t.Errorf("%+v", s)
	}
	n := 5
	w.until("the new certificate is used", func() bool { // the worker before may take one more job
		w.put(topic, jobBody(n))
		n++
		w.empty(topic)
		all := w.apns.Requests()
		return !bytes.Equal(all[len(all)-1].ClientCert.Raw, first.Raw)
	})
	w.eachOnce(n)
}

// A credential is kept for the server that it was for: elsewhere the app is broken.
func TestReloadToAnotherServerKeepsNoCredential(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	app := w.app(topic)
	w.start(app)
	w.put(topic, jobBody(0))
	w.empty(topic)
	if err := os.Remove(filepath.Join(w.dir, topic+".pem")); err != nil {
		t.Fatal(err)
	}
	w.apply(strings.Replace(app, "}", ", server: sandbox}", 1))
	w.broken(topic, `cert "com.example.app.pem": no such file`)
	w.put(topic, jobBody(1))
	w.mend(topic)
	w.apply(app)
	w.empty(topic)
	w.eachOnce(2)
}

// An app whose credential APNs refuses goes on when its files hold another, without a
// reload; nothing else starts it anew.
func TestRenewedCertificateHealsARefusedOne(t *testing.T) {
	w := newWorld(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	app := w.app(topic)
	w.write(topic+".pem", w.apns.ClientCertPEM(topic, apnstest.SelfSigned()))
	w.put(topic, jobBody(0))
	w.start(app)
	w.until("broken", func() bool { return w.status(topic).Health.State == Broken })
	w.sup.Renew()
	w.write(topic+".pem", w.read(topic+".pem")) // the same, written again
	w.sup.Renew()
	if strings.Contains(w.log.String(), "app changed") || w.status(topic).CredentialFault != "" {
		t.Error("the app was replaced for nothing")
	}
	w.mend(topic)
	w.sup.Renew()
	w.empty(topic)
	w.eachOnce(1)
}

func (w *world) read(name string) []byte {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// Very many broken apps cost a look at their files each, and one Renew takes a bounded
// time however many files have changed; in the end all are healed.
func TestRenewOfManyApps(t *testing.T) {
	const n = 300
	w := newWorld(t, apnstest.Options{})
	var apps strings.Builder
	for i := range n {
		apps.WriteString("  - {topic: com.example.a" + token(i)[60:] + ", cert: shared.pem}\n")
	}
	w.start(apps.String())
	broken := func() (n int) {
		for _, s := range w.sup.Status() {
			if s.Health.State == Broken {
				n++
			}
		}
		return n
	}
	if b := broken(); b != n {
		t.Fatalf("%d apps are broken, want %d", b, n)
	}
	w.write("shared.pem", w.apns.ClientCertPEM("", apnstest.WithoutUID()))
	for range n {
		if w.sup.Renew(); broken() == 0 {
			return
		}
	}
	t.Errorf("%d apps are still broken", broken())
}

// What a reload finds while a Renew reads is newer than what the Renew has read.
func TestReloadDuringRenew(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.start("  - {topic: " + topic + ", cert: none.pem}\n")
	read := w.sup.unfit()
	if len(read) != 1 {
		t.Fatalf("%d apps to be looked at", len(read))
	}
	for a, r := range read {
		again := r.cfg.Reread(time.Now())
		r.cfg = &again
		r.cfg.Faults[0].Msg = "an old fault"
		read[a] = r
	}
	w.apply("  - {topic: " + topic + ", cert: other.pem}\n")
	before := w.status(topic).CredentialFault
	w.sup.renew(read)
	if got := w.status(topic).CredentialFault; got != before || strings.Contains(got, "an old fault") {
		t.Errorf("%q, want %q", got, before)
	}
}
