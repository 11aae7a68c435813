package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/httpapi"
	"propeller/supervisor"
)

// statusApps are apps in every state.
func statusApps(now time.Time) []httpapi.App {
	worker := []httpapi.Worker{{Serving: true, Connected: true, InFlight: 480, Held: 500}, {Serving: true, Connected: true, InFlight: 20}}
	return []httpapi.App{
		{Name: "com.example.app", Topic: "com.example.app", State: supervisor.Running, Ready: true, Workers: worker, Pushes: httpapi.Pushes{Ended: map[string]int64{"delivered": 123456}},
			Latency: &httpapi.Latency{P50: 31.2, P99: 1250}, Queue: &httpapi.Queue{Ready: 12, Delayed: 1234567, Buried: 3}, CredentialExpires: now.Add(100 * 24 * time.Hour)},
		{Name: "com.example.held", Topic: "com.example.held", State: supervisor.Paused, Ready: true, Held: true, Reason: "paused by ops", Since: now.Add(-2 * time.Hour),
			Workers: worker[:1], CredentialExpires: now.Add(20 * 24 * time.Hour)},
		{Name: "com.example.idle", Topic: "com.example.idle", State: supervisor.Idle, Ready: true, Active: now.Add(-2 * time.Minute), Workers: []httpapi.Worker{{Serving: true}}, CredentialExpires: now.Add(-time.Hour)},
		{Name: "com.example.sleeps", Topic: "com.example.sleeps", State: supervisor.Idle, Ready: true, Asleep: true, Workers: make([]httpapi.Worker, 2)},
		{Name: "com.example.broken", Topic: "com.example.broken", State: supervisor.Broken, Reason: "403 BadCertificate", Since: now.Add(-3 * time.Minute), Workers: []httpapi.Worker{{}},
			Queue: &httpapi.Queue{Ready: 9999, Incomplete: "1 of 2 servers answer"}, Pushes: httpapi.Pushes{PossibleDuplicates: 2}, Webhook: &httpapi.Webhook{Down: true, Reason: "500 \x1b[2J"}},
		{Name: "com.example.a-long-bundle-id.voip", Topic: "com.example.a-long-bundle-id.voip", State: supervisor.NoQueue, Reason: "dial tcp 127.0.0.1:11300: refused", Workers: worker},
		{Name: "com.example.slow", Topic: "com.example.slow", State: supervisor.Running, Ready: true, Active: now.Add(-50 * time.Second), Workers: []httpapi.Worker{{Connected: true}, {Waiting: "apns not reachable"}}, CredentialFault: `cert "a.pem": expired`},
	}
}

// printed is what status prints.
func printed(t *testing.T, apps httpapi.Apps, now time.Time) string {
	t.Helper()
	var out strings.Builder
	if err := printStatus(&out, apps, now); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestStatusTable(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	const want = `APP                                STATE     SENT     P50    P99    FLIGHT  CONN  READY  DELAY      BURIED  CERT
com.example.broken                 broken    0        -      -      0       0/1   9999   0          0       -
com.example.a-long-bundle-id.voip  no queue  0        -      -      500     2/2   -      -          -       -
com.example.app                    running   123,456  31 ms  1.2 s  500     2/2   12     1,234,567  3       2001-12-18
com.example.held                   paused    0        -      -      480     1/1   -      -          -       in 20 days
com.example.idle                   idle      0        -      -      0       0/1   -      -          -       expired
com.example.sleeps                 asleep    0        -      -      0       0/2   -      -          -       -
com.example.slow                   running   0        -      -      0       1/2   -      -          -       -

com.example.broken: broken: 403 BadCertificate (for 3 min)
com.example.broken: The client certificate is not valid; renew it
com.example.broken: the queue's numbers are incomplete: 1 of 2 servers answer
com.example.broken: webhook takes no records: 500  [2J
com.example.broken: 2 possible duplicates since startup
com.example.a-long-bundle-id.voip: no queue: dial tcp 127.0.0.1:11300: refused
com.example.held: paused by ops (for 2 h)
com.example.slow: worker 1 waits: apns not reachable
com.example.slow: its new credential cannot be used, so it keeps the old one: cert "a.pem": expired
`
	if got := printed(t, httpapi.Apps{Apps: statusApps(now)}, now); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// A command in a reason is in one line, so that it can be copied.
func TestStatusBreaksNoCommand(t *testing.T) {
	t.Parallel()
	const command = "convert it: openssl pkcs12 -legacy -in 'a long name.p12' -nodes | openssl pkcs12 -export -keypbe AES-256-CBC -certpbe AES-256-CBC -out 'a long name (new).p12'"
	apps := []httpapi.App{{Name: topic, Topic: topic, State: supervisor.Broken, Reason: command}, {Name: "com.example.other", Topic: "com.example.other", State: supervisor.Idle, Ready: true, Workers: []httpapi.Worker{{}}, CredentialFault: command}}
	if got := printed(t, httpapi.Apps{Apps: apps}, time.Now()); strings.Count(got, command) != 2 {
		t.Errorf("%s", got)
	}
}

// A reload that was refused is told below the apps.
func TestStatusRefusedReload(t *testing.T) {
	t.Parallel()
	now := time.Now()
	apps := httpapi.Apps{RefusedReload: &httpapi.RefusedReload{At: now, Fault: "propeller.yaml:3: no\x1b\npropeller.yaml:4: nor this"}}
	const want = "no apps\n\nthe last reload, 0 s ago, was refused, and nothing is changed:\n  propeller.yaml:3: no \n  propeller.yaml:4: nor this\n"
	if got := printed(t, apps, now); got != want {
		t.Errorf("%q", got)
	}
	apps.RefusedReload.Fault = "" // of a key with topics
	if got := printed(t, apps, now); !strings.HasSuffix(got, "\n\nthe last reload, 0 s ago, was refused, and nothing is changed\n") {
		t.Errorf("%q", got)
	}
}

func TestStatusUnknownTubes(t *testing.T) {
	t.Parallel()
	var apps httpapi.Apps
	if err := json.Unmarshal([]byte(`{"unknown_tubes": [{"tube": "com.example.ap\u001b", "ready": 2, "reserved": 1, "buried": 4}]}`), &apps); err != nil {
		t.Fatal(err)
	}
	if got := printed(t, apps, time.Now()); !strings.HasSuffix(got, "\n\nno app works on tube com.example.ap : 3 ready, 0 delayed, 4 buried\n") {
		t.Errorf("%q", got)
	}
}

// status asks a running daemon by its socket and by its URL, and its exit status
// tells how the apps are.
func TestStatus(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	s.stateful()
	s.write("propeller.yaml", s.read("propeller.yaml")+"http: {listen: '127.0.0.1:0', keys: [{name: n, token: reader-token, role: read}]}\n")
	none := runProgram(t, s.dir, "", "status")
	if none.status != exitUnknown || !strings.Contains(none.err, "no running daemon found in ") || !strings.Contains(none.err, "start it") {
		t.Errorf("without a daemon: %+v", none)
	}
	s.write("key", "reader-token\n")
	d := startDaemon(t, s.dir)
	d.says("http listens")
	url := "http://" + listens.FindStringSubmatch(d.log())[1]
	s.putByHand(topic, `{"token": "`+token(1)+`", "title": "x"}`)
	ways := [][]string{{"status"}, {"status", "--state-dir", "state"}, {"status", "--topic", topic}, {"status", "--url", url, "--key-file", "key"}}
	for _, args := range ways {
		until(t, "the push is told of", func() bool {
			r := runProgram(t, s.dir, "", append(args, "--json")...)
			var a httpapi.Apps
			if err := json.Unmarshal([]byte(r.out), &a); err != nil || r.status != exitOK || len(a.Apps) != 1 {
				t.Fatalf("%v: %v %+v", args, err, r)
			}
			app := a.Apps[0]
			return app.Topic == topic && app.Ready && app.Pushes.Ended["delivered"] == 1 && app.Latency != nil && app.Latency.Pushes == 1
		})
		if r := runProgram(t, s.dir, "", args...); r.status != exitOK || r.err != "" || !strings.Contains(r.out, topic+"  running") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	s.write("wrong", "wrong-key\n")
	for _, wrong := range []struct {
		says string
		args []string
	}{
		{"must hold one of the daemon's keys: give one with --key-file", []string{"--url", url}},
		{`refuses the key in the file "wrong" of --key-file`, []string{"--url", url, "--key-file", "wrong"}},
		{"refuses the key of --key", []string{"--url", url, "--key", "wrong-key"}},
		{"no such app", []string{"--topic", "com.example.none"}},
		{"--key-file: open", []string{"--url", url, "--key-file", "none"}},
		{"propeller: the daemon's URL: must", []string{"--url", "localhost"}},
		{"only one of these may be given: --state-dir, --url", []string{"--url", url, "--state-dir", "x"}},
		{"a key is for --url", []string{"--key", "x"}},
		{"unknown flag: --watch", []string{"--watch"}},
		{"connection refused: is the daemon running", []string{"--url", "http://127.0.0.1:1"}}, // tcpmux: nobody has that
	} {
		if r := runProgram(t, s.dir, "", append([]string{"status"}, wrong.args...)...); r.status != exitUnknown || !strings.Contains(r.err, wrong.says) || r.out != "" {
			t.Errorf("%v: %+v", wrong.args, r)
		}
	}
	if r := runProgram(t, t.TempDir(), "", "status"); r.status != exitUnknown || !strings.Contains(r.err, "--state-dir") {
		t.Errorf("%+v", r)
	}
	d.signal(syscall.SIGTERM)
	d.exit()
}

// An app whose certificate is refused is in the status, and in the exit status.
func TestStatusOfABrokenApp(t *testing.T) {
	s := newSite(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 403, Reason: "BadCertificate"})})
	s.stateful()
	d := startDaemon(t, s.dir)
	s.putByHand(topic, `{"token": "`+token(1)+`", "title": "x"}`)
	until(t, "the status is 1", func() bool { return runProgram(t, s.dir, "", "status").status == exitFailed })
	if r := runProgram(t, s.dir, "", "status"); !strings.Contains(r.out, "broken: 403 BadCertificate") || !strings.Contains(r.out, "The client certificate is not valid; renew it") || strings.Contains(r.out, "failures") || r.err != "" {
		t.Errorf("%+v", r)
	}
	const failure = " ago  credential   token 00000000  403 BadCertificate\n"
	if r := runProgram(t, s.dir, "", "status", "--topic", topic); r.status != exitFailed || !strings.Contains(r.out, failure) {
		t.Errorf("%+v", r)
	}
	d.signal(syscall.SIGTERM)
	d.exit()
}
