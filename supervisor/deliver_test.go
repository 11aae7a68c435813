package supervisor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/worker"
)

const topic = "com.example.app"

// A job put by a plain client arrives at APNs byte by byte as documented.
func TestJobToRequest(t *testing.T) {
	w := newWorld(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	w.start(w.app(topic))
	w.put(topic, `{"token": "`+strings.ToUpper(token(0xabc))+`", "title": "Grüße", "body": "a\nb", "badge": "3", "data": {"order": 7},
		"collapse_id": "c1", "priority": 5, "expiration": 0, "id": "6b29fc40-ca47-1067-b31d-00dd010662da", "ref": "x"}`)
	w.empty(topic)
	reqs := w.apns.Requests()
	if len(reqs) != 1 {
		t.Fatalf("%d requests", len(reqs))
	}
	r := reqs[0]
	want := map[string]string{
		":method": "POST", ":scheme": "https", ":path": "/3/device/" + token(0xabc), ":authority": w.apns.Addr,
		"apns-topic": topic, "apns-push-type": "alert", "apns-id": "6b29fc40-ca47-1067-b31d-00dd010662da",
		"apns-priority": "5", "apns-expiration": "0", "apns-collapse-id": "c1",
	}
	got := r.Header.Map()
	if host, _, _ := strings.Cut(w.apns.Addr, ":"); got[":authority"] == host {
		want[":authority"] = host
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %q, want %q", name, got[name], value)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("fields nobody asked for: %v", got)
	}
	if body, want := string(r.Body), `{"aps":{"alert":{"title":"Grüße","body":"a\nb"},"badge":3},"order": 7}`; body != want && body != strings.Replace(want, `": 7`, `":7`, 1) {
		t.Errorf("body %s\nwant %s", body, want)
	}
	if r.ClientCert == nil || r.ClientCert.Subject.CommonName == "" && len(r.ClientCert.Subject.Names) == 0 {
		t.Error("the client certificate was not seen")
	}
	if v := w.apns.Violations(); len(v) > 0 {
		t.Errorf("violations of HTTP/2: %v", v)
	}
}

func TestTenThousandOnce(t *testing.T) {
	const n = 10_000
	w := newWorld(t, apnstest.Options{})
	w.putMany(topic, n)
	w.start(w.app(topic, "workers: 3", "in_flight: 400"))
	w.empty(topic)
	w.eachOnce(n)
	if d := w.status(topic).Counters.PossibleDuplicates.Load(); d != 0 {
		t.Errorf("%d possible duplicates", d)
	}
	if n := w.apns.Dials(); n > 3 {
		t.Errorf("%d connections for 3 workers", n)
	}
}

// An app whose certificate is refused must not touch another's delivery.
func TestRefusedCertificateStopsItsAppOnly(t *testing.T) {
	const n, bad = 2000, "com.example.bad"
	w := newWorld(t, apnstest.Options{})
	w.apns.SetScript(func(r *apnstest.Request) apnstest.Answer {
		if r.Header.Get("apns-topic") == bad {
			return apnstest.Answer{Status: 403, Reason: "BadCertificate"}
		}
		return apnstest.Answer{}
	})
	w.putMany(bad, 300)
	w.putMany(topic, n)
	w.start(w.app(topic) + w.app(bad, "workers: 2"))
	w.empty(topic)
	w.until("the bad app is broken", func() bool { return w.status(bad).Health.State == Broken })
	w.eachOnce(n)
	if s := w.status(bad); s.Health.Reason != "403 BadCertificate" {
		t.Errorf("reason %q", s.Health.Reason)
	}
	if w.status(topic).Health.State == Broken {
		t.Error("the good app is broken too")
	}
	w.until("its jobs are in the queue again", func() bool { return w.tube(bad, "current-jobs-ready") == 300 })
	if buried := w.tube(bad, "current-jobs-buried"); buried != 0 {
		t.Errorf("%d jobs of the broken app buried", buried)
	}
}

// The same, refused in the TLS handshake.
func TestCertificateRefusedInHandshake(t *testing.T) {
	w := newWorld(t, apnstest.Options{ClientCert: apnstest.ClientCertRequired})
	app := w.app(topic)
	w.write(topic+".pem", w.apns.ClientCertPEM(topic, apnstest.SelfSigned()))
	w.putMany(topic, 10)
	w.start(app)
	w.until("the app is broken", func() bool { return w.status(topic).Health.State == Broken })
	w.until("its jobs are in the queue", func() bool { return w.tube(topic, "current-jobs-ready") == 10 })
	if n := w.apns.Dials(); n > 2 {
		t.Errorf("%d dials with a certificate that is refused", n)
	}
}

func TestGarbageIsBuriedNotSent(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.start(w.app(topic))
	w.put(topic, "", "not json", "[1]", `{"token":"zz","title":"x"}`, `{"token":"`+token(1)+`","colour":1}`,
		`{"token":"`+token(1)+`","collapse_id":"a\r\nx: y"}`, `{"token":"`+token(1)+`","payload":{"aps":{},"x":"`+strings.Repeat("y", 5000)+`"}}`, jobBody(7))
	w.until("garbage buried", func() bool { return w.tube(topic, "current-jobs-buried") == 7 })
	w.empty(topic)
	if n := w.apns.Count(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	w.until("the log names the key at fault", func() bool { return w.log.contains(`collapse_id`) })
	if w.log.contains(token(1)) {
		t.Error("the log shows a whole token")
	}
}

func TestOutcomesSettleJobs(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.apns.SetScript(apnstest.ByToken(map[string]apnstest.Answer{
		token(1): {Status: 410, Reason: "Unregistered", Timestamp: time.Now()},
		token(2): {Status: 400, Reason: "BadDeviceToken"},
		token(3): {Status: 413, Reason: "PayloadTooLarge"},
		token(4): {Status: 400, Reason: "SomethingNew"},
	}))
	w.start(w.app(topic))
	w.put(topic, jobBody(0), jobBody(1), jobBody(2), jobBody(3), jobBody(4))
	w.until("all are answered", func() bool { return w.apns.Count() == 5 })
	w.put(topic, jobBody(5)) // until APNs takes one more, the guard doubts the refused token
	w.empty(topic)
	w.until("two buried", func() bool { return w.tube(topic, "current-jobs-buried") == 2 })
	for class, want := range map[apnsconn.Class]int64{apnsconn.Delivered: 2, apnsconn.Token: 2, apnsconn.Rejected: 2} {
		if got := w.ended(topic, class); got != want {
			t.Errorf("%v: %d, want %d", class, got, want)
		}
	}
}

// 503 and 429 come again until they are delivered, under the same apns-id.
func TestRetriesKeepTheirID(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.apns.SetScript(apnstest.Seq(apnstest.Answer{Status: 503, Reason: "ServiceUnavailable"}, apnstest.Answer{Status: 429, Reason: "TooManyRequests"}))
	w.start(w.app(topic))
	w.put(topic, jobBody(1))
	w.empty(topic)
	ids := make(map[string]bool)
	for _, r := range w.apns.Requests() {
		ids[r.Header.Get("apns-id")] = true
	}
	if n := w.apns.Count(); n != 3 || len(ids) != 1 || ids[""] {
		t.Errorf("%d tries with ids %v; want 3 with one id", n, ids)
	}
}

func TestMockServer(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.start("  - {topic: com.example.mock, server: mock}\n")
	w.put("com.example.mock", jobBody(1))
	w.until("the push is delivered", func() bool { return w.ended("com.example.mock", apnsconn.Delivered) == 1 })
	w.until("the worker is idle", func() bool {
		s := w.status("com.example.mock").Workers
		if len(s) == 1 && s[0].Link.Limit > 1 && !s[0].Link.Since.IsZero() {
			s[0].Link = worker.Link{}
		}
		return len(s) == 1 && s[0] == worker.Status{Serving: true, Connected: true, Received: 1, Finished: 1}
	})
	w.put("com.example.mock", strings.Replace(jobBody(2), token(2), token(2)[:56]+"fa170410", 1))
	w.until("the token is dead that says so", func() bool { return w.ended("com.example.mock", apnsconn.Token) == 1 })
}

// What the configuration says of an app decides over its jobs, in the tube and for whoever
// puts them; a change of it counts.
func TestAppDecidesOverItsJobs(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.start(w.app(topic, "extra_keys: ignore", "ttl: 1h"))
	extra := strings.Replace(jobBody(1), "{", `{"colour":1,`, 1)
	w.put(topic, extra)
	w.until("it is delivered", func() bool { return w.received()[token(1)] == 1 })
	if app, err := w.sup.App(topic); err != nil || app.TTL != time.Hour || !app.ExtraKeys || !app.Certificate || app.LiveActivities == nil {
		t.Errorf("%+v, %v", app, err)
	}
	if err := w.sup.Apply(w.config(w.app(topic))); err != nil {
		t.Fatal(err)
	}
	w.put(topic, extra)
	w.until("it is buried", func() bool { return w.tube(topic, "current-jobs-buried") == 1 })
	if _, err := w.sup.App("com.example.none"); !errors.Is(err, ErrNoApp) {
		t.Errorf("an app that is not there: %v", err)
	}
	for _, c := range []struct {
		app  config.App
		cert bool
	}{
		{config.App{Server: config.ServerMock}, false},
		{config.App{ByCertificate: true}, true}, // cannot be read
		{config.App{Certificate: new(apnsconn.Certificate)}, true},
		{config.App{SigningKey: new(apnsconn.Key), ByCertificate: true}, false}, // the one before is kept
	} {
		if got := RulesOf(&c.app).Certificate; got != c.cert {
			t.Errorf("%+v: by certificate %v", c.app, got)
		}
	}
}
