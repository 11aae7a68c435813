package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"propeller/apnsconn/apnstest"
	"propeller/httpapi"
	"propeller/supervisor"
)

// statusApps are apps in every state.
func statusApps(now time.Time) []httpapi.App {
	worker := []httpapi.Worker{{Serving: true, Connected: true, InFlight: 480, Held: 500}, {Serving: true, Connected: true, InFlight: 20}}
	return []httpapi.App{
		{Topic: "com.example.app", State: supervisor.Running, Ready: true, Workers: worker, Pushes: httpapi.Pushes{Ended: map[string]int64{"delivered": 123456}},
			Latency: &httpapi.Latency{P50: 31.2, P99: 1250}, Queue: &httpapi.Queue{Ready: 12, Delayed: 1234567, Buried: 3}, CredentialExpires: now.Add(100 * 24 * time.Hour)},
		{Topic: "com.example.held", State: supervisor.Paused, Ready: true, Held: true, Reason: "paused by ops", Since: now.Add(-2 * time.Hour),
			Workers: worker[:1], CredentialExpires: now.Add(20 * 24 * time.Hour)},
		{Topic: "com.example.idle", State: supervisor.Idle, Ready: true, Active: now.Add(-2 * time.Minute), Workers: []httpapi.Worker{{Serving: true}}, CredentialExpires: now.Add(-time.Hour)},
		{Topic: "com.example.broken", State: supervisor.Broken, Reason: "403 BadCertificate", Since: now.Add(-3 * time.Minute), Workers: []httpapi.Worker{{}},
			Queue: &httpapi.Queue{Ready: 9999, Incomplete: "1 of 2 servers answer"}, Pushes: httpapi.Pushes{PossibleDuplicates: 2}, Webhook: &httpapi.Webhook{Down: true, Reason: "500 \x1b[2J"}},
		{Topic: "com.example.a-long-bundle-id.voip", State: supervisor.NoQueue, Reason: "queue unavailable: dial tcp 127.0.0.1:11300: " + strings.Repeat("refused ", 12), Workers: worker},
		{Topic: "com.example.slow", State: supervisor.Running, Ready: true, Active: now.Add(-50 * time.Second), Workers: []httpapi.Worker{{Connected: true}, {Waiting: "apns not reachable"}}, CredentialFault: `cert "a.pem": expired`},
	}
}

func TestStatusTable(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var out strings.Builder
	v := newStatusView(&out, false)
	if err := v.once(httpapi.Apps{Apps: statusApps(now)}, now); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > statusWidth {
			t.Errorf("%d characters: %s", n, line)
		}
	}
	for _, part := range []string{"com.example.broken: broken: 403 BadCertificate (for 3m)", "com.example.held: paused by ops (for 2h)",
		"com.example.slow: worker 1 waits: apns not reachable", "com.example.broken: webhook takes no records: 500 [2J", "2 possible duplicates",
		"com.example.broken: the queue's numbers are incomplete: 1 of 2 servers answer",
		"com.example.slow: its new credential cannot be used, so it keeps the one it"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("lacks %q", part)
		}
	}
	const want = `
APP                  STATE    SENT  P50  P99 FLIGHT CONN READY DELAY BURIED CERT
com.example.broken   broken      0    -    -      0  0/1  9999     0      0    -
…long-bundle-id.voip no queue    0    -    -    500  2/2     -     -      -    -
com.example.app      running  123k 31ms 1.2s    500  2/2    12  1.2M      3 100d
com.example.held     paused      0    -    -    480  1/1     -     -      -  20d
com.example.idle     idle        0    -    -      0  0/1     -     -      - over
com.example.slow     running     0    -    -      0  1/2     -     -      -    -
`
	if got := "\n" + out.String(); !strings.HasPrefix(got, want) {
		t.Errorf("%s\nwant%s", got, want)
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("control characters, and no terminal")
	}
}

// Of more apps than a terminal has lines, those in trouble are shown.
func TestStatusTableCut(t *testing.T) {
	t.Parallel()
	v := newStatusView(new(strings.Builder), false)
	lines := v.table(statusApps(time.Now()), time.Now(), 5)
	if len(lines) != 5 || !strings.Contains(lines[1], "broken") || !strings.Contains(lines[2], "no queue") || !strings.Contains(lines[4], "… and 3 more") {
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{
		0: "0", 3: "3", 3.25: "3.2", 9.96: "10", 12.5: "12", 9999: "9999", 9999.6: "10k", 999_499: "999k", 999_500: "1.0M", 9_960_000: "10M", 123_456_789: "123M",
	} {
		if got := short(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	if got := strings.Join(wrap("a bc  def ghijklmno p", 5), "|"); got != "a bc|def|ghijk|lmno|p" {
		t.Error(got)
	}
}

// statusAnswer is one of a daemon's to a question for its apps.
type statusAnswer struct {
	apps    []httpapi.App
	refused *httpapi.RefusedReload
	err     error
}

// watched is what status --watch prints while a daemon gives these answers, the
// last of them until the end.
func watched(t *testing.T, json bool, answers ...statusAnswer) (text string, err error) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(len(answers))*watchEvery-time.Second)
		defer cancel()
		i := 0
		ask := func(context.Context) (httpapi.Apps, error) {
			a := answers[min(i, len(answers)-1)]
			i++
			return httpapi.Apps{Apps: a.apps, RefusedReload: a.refused}, a.err
		}
		var out strings.Builder
		err = watchStatus(ctx, ask, newStatusView(&out, json))
		text = out.String()
	})
	return text, err
}

// pushed is an app that has delivered n pushes, all at the same pace.
func pushed(n int64) statusAnswer {
	return statusAnswer{apps: []httpapi.App{{Topic: topic, State: supervisor.Running, Ready: true, Workers: []httpapi.Worker{{Connected: true, Held: 1}},
		Pushes:  httpapi.Pushes{Ended: map[string]int64{"delivered": n}},
		Latency: &httpapi.Latency{Pushes: uint64(n), P50: 77, P99: 88, Buckets: []httpapi.Bucket{{AtMost: 5}, {AtMost: 10, Pushes: uint64(n)}, {}}}}}}
}

// Rates and latency are those since the last look; a daemon that goes is told
// of, and so is the next one, which counts from nothing.
func TestStatusWatch(t *testing.T) {
	t.Parallel()
	gone := statusAnswer{err: errors.New("no daemon")}
	text, err := watched(t, false, gone, pushed(100), pushed(1100), gone, gone, pushed(30), pushed(31))
	if err != nil {
		t.Fatal(err)
	}
	frames := strings.Split(text, "propeller ")[1:]
	if len(frames) != 7 {
		t.Fatalf("%d looks:\n%s", len(frames), text)
	}
	for i, want := range [][]string{
		{"has not answered for 0s: no daemon"},
		{"1 app, all ready", "SENT", " 100 ", " 77ms", " 88ms"},
		{"PUSH/S", " 500 ", " 7.5ms", " 10ms"},
		{"has not answered for 0s", "Before that:", " 500 "},
		{"has not answered for 2s", " 500 "},
		{"1 app, all ready", "PUSH/S", "running      - 77ms"},
		{" 0.5 ", "7.5ms"}, // one in 2 s
	} {
		for _, part := range want {
			if !strings.Contains(frames[i], part) {
				t.Errorf("look %d lacks %q:\n%s", i, part, frames[i])
			}
		}
	}
}

// A reload that was refused is told beside the apps, until one succeeds.
func TestStatusRefusedReload(t *testing.T) {
	t.Parallel()
	refused := pushed(100)
	refused.refused = &httpapi.RefusedReload{At: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), Fault: "propeller.yaml:3: no\npropeller.yaml:4: nor this"} // when synctest begins
	text, err := watched(t, false, refused, pushed(101))
	if err != nil {
		t.Fatal(err)
	}
	const want = "the last reload, 0s ago, was refused, and nothing is changed:\n  propeller.yaml:3: no\n  propeller.yaml:4: nor this\n\n"
	if frames := strings.Split(text, "propeller ")[1:]; len(frames) != 2 || !strings.Contains(frames[0], want) || strings.Contains(frames[1], "refused") {
		t.Errorf("%s", text)
	}
	var out strings.Builder
	if err := newStatusView(&out, false).once(httpapi.Apps{Apps: refused.apps, RefusedReload: refused.refused}, refused.refused.At); err != nil || !strings.Contains(out.String(), strings.TrimSpace(want)) {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestStatusWatchJSON(t *testing.T) {
	t.Parallel()
	text, err := watched(t, true, pushed(100), statusAnswer{err: errors.New("gone")}, pushed(101))
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if err != nil || len(lines) != 3 || lines[1] != `{"error":"gone"}` {
		t.Fatalf("%v\n%s", err, text)
	}
	var a httpapi.Apps
	if err := json.Unmarshal([]byte(lines[2]), &a); err != nil || a.Apps[0].Pushes.Ended["delivered"] != 101 {
		t.Errorf("%v %s", err, lines[2])
	}
}

func TestStatusUnknownTubes(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	apps := httpapi.Apps{UnknownTubes: []httpapi.UnknownTube{{Tube: "com.example.ap\x1b", Ready: 2, Reserved: 1, Buried: 4}}}
	if err := newStatusView(&out, false).once(apps, time.Now()); err != nil || !strings.HasSuffix(out.String(), "\n\nno app works on tube com.example.ap : 3 ready, 0 delayed, 4 buried\n") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// A daemon that refuses the question ends it, unless it answered before.
func TestStatusWatchRefused(t *testing.T) {
	t.Parallel()
	refused := statusAnswer{err: &httpapi.Problem{Status: 401, Detail: "a key"}}
	_, err := watched(t, false, refused)
	if own, ok := errors.AsType[statusError](err); !ok || own.status != exitUnknown {
		t.Errorf("%v", err)
	}
	if text, err := watched(t, false, pushed(1), refused); err != nil || !strings.Contains(text, "a key") {
		t.Errorf("%v\n%s", err, text)
	}
}

// status asks a running daemon by its socket and by its URL, and its exit status
// tells how the apps are.
func TestStatus(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	s.stateful()
	s.write("propeller.yaml", s.read("propeller.yaml")+"http: {listen: '127.0.0.1:0', keys: [{name: n, token: reader-token, role: read}]}\n")
	none := runProgram(t, s.dir, "", "status")
	if none.status != exitUnknown || !strings.Contains(none.err, "no running daemon found there: start it") {
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
		if r := runProgram(t, s.dir, "", args...); r.status != exitOK || r.err != "" || !strings.Contains(r.out, topic+" running") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	for _, wrong := range []struct {
		says string
		args []string
	}{
		{"must hold one of the daemon's keys: show one with --key-file", []string{"--url", url}},
		{"no such app", []string{"--topic", "com.example.none"}},
		{"--key-file: open", []string{"--url", url, "--key-file", "none"}},
		{"httpapi: the daemon's URL", []string{"--url", "localhost"}},
		{"do not go together", []string{"--url", url, "--state-dir", "x"}},
		{"a key is for --url", []string{"--key", "x"}},
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
	const failure = "credential  403 BadCertificate  token 00000000\n"
	if r := runProgram(t, s.dir, "", "status", "--topic", topic); r.status != exitFailed || !strings.Contains(r.out, failure) {
		t.Errorf("%+v", r)
	}
	d.signal(syscall.SIGTERM)
	d.exit()
}

// status --watch goes on over a daemon's end and the next one's start, and ends
// at a signal.
func TestStatusWatchDaemonRestarts(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	s.stateful()
	d := startDaemon(t, s.dir)
	out, err := os.Create(filepath.Join(s.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := program("status", "--watch")
	cmd.Stdout = out
	w, err := startProgram(t, s.dir, cmd)
	if err != nil {
		t.Fatal(err)
	}
	seen := func(what string, times int) {
		t.Helper()
		until(t, what, func() bool { return strings.Count(s.read("out"), what) >= times })
	}
	d.says("propeller started")
	seen("1 app, all ready", 1)
	d.signal(syscall.SIGTERM)
	d.exit()
	seen("the daemon has not answered", 1)
	before := strings.Count(s.read("out"), "1 app, all ready")
	startDaemon(t, s.dir)
	seen("1 app, all ready", before+1)
	w.signal(syscall.SIGTERM)
	if status := w.exit(); status != exitOK || w.log() != "" {
		t.Errorf("status %d, %s", status, w.log())
	}
}
