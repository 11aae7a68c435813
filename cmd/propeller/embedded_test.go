package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"propeller/apnsconn/apnstest"
	"propeller/httpapi"
	"propeller/supervisor"
)

// The commands work on an embedded queue while the daemon has it, and when no
// daemon runs.
func TestCommandsOnAnEmbeddedQueue(t *testing.T) {
	t.Parallel()
	s := &site{t: t, dir: t.TempDir(), apns: apnstest.NewServer(apnstest.Options{})}
	t.Cleanup(s.apns.Close)
	s.write("ca.pem", string(s.apns.CACertPEM()))
	s.cert(topic)
	s.write("propeller.yaml", "queue: embedded://./queue\nlog: {pushes: all}\napps:\n"+
		"  - {topic: "+topic+", server: "+s.apns.URL+", ca_file: ca.pem, cert: "+topic+".pem}\n")
	send := func(n int, more ...string) result {
		return runProgram(t, s.dir, "", append([]string{"send", "--topic", topic, "--token", token(n), "--title", "x"}, more...)...)
	}

	if r := send(1); r.status != 0 {
		t.Fatalf("send without a daemon: %+v", r)
	}
	d := startDaemon(t, s.dir)
	until(t, "the push that waited arrives", func() bool { return s.apns.Count() == 1 })
	for i, more := range [][]string{nil, {"--delay", "300ms"}, {"--queue", "embedded://./queue"}} {
		if r := send(2, more...); r.status != 0 || strings.TrimSpace(r.out) == "" {
			t.Fatalf("send %v: %+v", more, r)
		}
		until(t, "its push arrives", func() bool { return s.apns.Count() == int64(2+i) })
	}
	if r := send(2, "--tube", "other"); r.status != 1 || !strings.Contains(r.err, "leave --tube out") {
		t.Errorf("send to a tube that is not the daemon's: %+v", r)
	}

	bad := `{"token":"` + token(3) + `","payload":{"aps":{"alert":"` + strings.Repeat("x", 5000) + `"}}}`
	if r := runProgram(t, s.dir, bad, "send", "--topic", topic, "--json", "-"); r.status != 1 || !strings.Contains(r.err, "would be buried") {
		t.Fatalf("%+v", r)
	}
	s.apns.SetScript(apnstest.Faults(1, apnstest.Fault{Answer: apnstest.Answer{Status: 400, Reason: "BadCollapseId"}}))
	if r := send(3); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	list := func() string {
		r := runProgram(t, s.dir, "", "jobs", "list", "--topic", topic)
		if r.status != 0 {
			t.Fatalf("jobs list: %+v", r)
		}
		return r.out
	}
	until(t, "the refused job is listed", func() bool { return strings.Contains(list(), "BadCollapseId") })
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 0 {
		t.Fatalf("status %d", status)
	}
	if out := list(); !strings.Contains(out, "BadCollapseId") {
		t.Errorf("without the daemon: %s", out)
	}
	s.apns.SetScript(nil)
	if r := runProgram(t, s.dir, "", "jobs", "kick", "--topic", topic, "--all"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	n := s.apns.Count()
	startDaemon(t, s.dir)
	until(t, "the kicked job arrives", func() bool { return s.apns.Count() == n+1 })
}

// The job of a broken app is ready in the numbers, also when it was given back to a
// queue that has no state for that.
func TestBrokenAppOnAnEmbeddedQueue(t *testing.T) {
	t.Parallel()
	s := &site{t: t, dir: t.TempDir(), apns: apnstest.NewServer(apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 403, Reason: "BadCertificate"})})}
	t.Cleanup(s.apns.Close)
	s.write("ca.pem", string(s.apns.CACertPEM()))
	s.cert(topic)
	s.write("propeller.yaml", "queue: embedded://./queue\nstate_dir: state\nwatchdog: 5s\napps:\n"+
		"  - {topic: "+topic+", server: "+s.apns.URL+", ca_file: ca.pem, cert: "+topic+".pem}\n")
	startDaemon(t, s.dir)
	if r := runProgram(t, s.dir, "", "send", "--topic", topic, "--token", token(1), "--title", "x"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	until(t, "its job is ready", func() bool {
		r := runProgram(t, s.dir, "", "status", "--json")
		if r.status == exitUnknown { // the daemon is only starting
			return false
		}
		var apps httpapi.Apps
		if err := json.Unmarshal([]byte(r.out), &apps); err != nil || len(apps.Apps) != 1 {
			t.Fatalf("%v: %+v", err, r)
		}
		a := &apps.Apps[0]
		return a.State == supervisor.Broken && a.Queue != nil && a.Queue.At.After(a.Since) && a.Waiting() == 1
	})
}

// What README says first works with the configuration as it is shipped.
func TestShippedConfiguration(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../propeller.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "propeller.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	var steps []string
	for line := range strings.Lines(readme(t)) {
		if step, ok := strings.CutPrefix(line, "    go run ./cmd/propeller"); ok {
			step, _, _ = strings.Cut(step, "#")
			steps = append(steps, strings.TrimSpace(step))
		}
	}
	if len(steps) != 3 || steps[0] != "demo" || steps[1] != "" || !strings.HasPrefix(steps[2], "send ") {
		t.Fatalf("README.md says %q", steps)
	}
	d := startDaemon(t, dir)
	d.says("propeller started")
	if r := runProgram(t, dir, "", strings.Fields(steps[2])...); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	d.says("class=delivered")
	d.signal(syscall.SIGTERM)
	if status := d.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}
