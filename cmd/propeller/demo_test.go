package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"propeller/worker/job"
)

// demonstration runs propeller demo, with the folder that it makes its own in. What it
// prints is among its log.
func demonstration(t *testing.T, args ...string) (d *daemonProcess, tmp string) {
	t.Helper()
	tmp = t.TempDir()
	cmd := program(append([]string{"demo", "--every", "20ms"}, args...)...)
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = out
	var copied sync.WaitGroup
	t.Cleanup(copied.Wait) // after startProgram's, which ends the program
	d, err = startProgram(t, tmp, cmd)
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	copied.Go(func() {
		defer in.Close()
		for s := bufio.NewScanner(in); s.Scan(); {
			d.mu.Lock()
			d.lines = append(d.lines, s.Text())
			d.mu.Unlock()
		}
	})
	return d, tmp
}

// A person sees what can become of a push, finds the page, follows the advice, and
// leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	d, tmp := demonstration(t)
	for _, word := range []string{
		"topic=" + demoNews, "topic=" + demoChat, "class=token status=410 reason=Unregistered", "status=429 reason=TooManyRequests",
		"status=503 reason=ServiceUnavailable", `msg="job buried"`, "reason=PayloadTooLarge", "gave up after ",
	} {
		d.says(word)
	}
	file := regexp.MustCompile(`-c (\S+)`).FindStringSubmatch(d.log())[1]
	if r := runProgram(t, tmp, "", "send", "-c", file, "--topic", demoNews, "--token", demoToken(0, ""), "--title", "Hello", "--ref", "mine"); r.status != 0 {
		t.Errorf("send: %+v", r)
	}
	d.says("token=" + demoToken(0, "")[:8] + " status=200")
	if r := runProgram(t, tmp, "", "jobs", "list", "-c", file, "--topic", demoChat); r.status != 0 || !strings.Contains(r.out, "413 PayloadTooLarge") {
		t.Errorf("jobs list: %+v", r)
	}
	if r := runProgram(t, tmp, "", "status", "-c", file); r.status != 0 || !strings.Contains(r.out, demoNews+"  running") {
		t.Errorf("status: %+v", r)
	}
	page := regexp.MustCompile(`In a browser: (http://127\.0\.0\.1:\d+/)\n`).FindStringSubmatch(d.log())[1]
	d.says("msg=demo page=" + page + " delivered=")
	for path, want := range map[string]string{"": demoNews, "apps/" + demoChat: "delivered", "apps/" + demoChat + "/buried": "413 PayloadTooLarge"} {
		resp, err := http.Get(page + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), want) {
			t.Errorf("page %s: %s, %v: %s", path, resp.Status, err, text)
		}
	}
	d.signal(syscall.SIGINT)
	if status := d.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
	for _, text := range []string{"\x1b", "level=ERROR", "demo: not put"} {
		if strings.Contains(d.log(), text) {
			t.Errorf("shows %q", text)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDemoEndsByItself(t *testing.T) {
	t.Parallel()
	d, tmp := demonstration(t, "--for", "1s")
	if status := d.exit(); status != 0 || !strings.Contains(d.log(), "stopping") {
		t.Errorf("status %d", status)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, args := range [][]string{{"--for", "-1s"}, {"--every", "0s"}, {"more"}} {
		if r := runProgram(t, tmp, "", append([]string{"demo"}, args...)...); r.status != 2 {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// Each job of the traffic is one that works, for a device token of its own, and each app
// gets every kind.
func TestDemoJobs(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	ends := make(map[string]bool)
	for n := range 2 * len(demoEnds) {
		job, err := job.Parse(demoJob(n), demoNews, "")
		if err != nil || len(job.Malformed) > 0 || seen[job.Notification.Token[:8]] {
			t.Errorf("%s: %v, token seen %t", demoJob(n), err, seen[job.Notification.Token[:8]])
		}
		seen[job.Notification.Token[:8]] = true
		ends[fmt.Sprint(n%2, demoEnds[n%len(demoEnds)])] = true
	}
	kinds := make(map[string]bool)
	for _, end := range demoEnds {
		kinds[end] = true
	}
	if len(ends) != 2*len(kinds) {
		t.Errorf("%d kinds of pushes, the apps have %d: %v", len(kinds), len(ends), ends)
	}
}
