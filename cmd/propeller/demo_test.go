package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"propeller/worker"
)

// demonstration runs propeller demo, with the folder that it makes its own in.
func demonstration(t *testing.T, args ...string) (d *daemonProcess, tmp string) {
	t.Helper()
	tmp = t.TempDir()
	cmd := program(append([]string{"demo", "--every", "20ms"}, args...)...)
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	d = &daemonProcess{t: t, cmd: cmd, ended: make(chan struct{})}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.mu.Lock()
			d.lines = append(d.lines, s.Text())
			d.mu.Unlock()
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-d.ended
		if t.Failed() {
			t.Logf("what was seen:\n%s", d.log())
		}
	})
	return d, tmp
}

// A person sees everything that can become of a push, follows the advice, and
// leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	d, tmp := demonstration(t)
	for _, word := range []string{
		"put         " + demoNews, "put         " + demoChat, "delivered   " + demoNews, "delivered   " + demoChat,
		"410 Unregistered", "is dead, take it off your list", "429 TooManyRequests", "503 ServiceUnavailable", `"tittle": unknown key`, "413 PayloadTooLarge",
	} {
		d.says(word)
	}
	file := regexp.MustCompile(`-c (\S+)`).FindStringSubmatch(d.log())[1]
	if r := runProgram(t, tmp, "", "send", "-c", file, "--topic", demoNews, "--token", demoToken(0, ""), "--title", "Hello", "--ref", "mine"); r.status != 0 {
		t.Errorf("send: %+v", r)
	}
	d.says("to " + demoToken(0, "")[:8] + "…: 200")
	if r := runProgram(t, tmp, "", "jobs", "list", "-c", file, "--topic", demoChat); r.status != 0 || !strings.Contains(r.out, "unknown key") {
		t.Errorf("jobs list: %+v", r)
	}
	page := regexp.MustCompile(`page +(http://127\.0\.0\.1:\d+/) `).FindStringSubmatch(d.log())[1]
	for path, want := range map[string]string{"": demoNews, "apps/" + demoChat: "delivered", "apps/" + demoChat + "/buried": "unknown key"} {
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
	for _, text := range []string{"jobs put; of the pushes", "Next:"} {
		if !strings.Contains(d.log(), text) {
			t.Errorf("lacks %s", text)
		}
	}
	for _, text := range []string{"\x1b", "error", "mock"} {
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

// Of the traffic only the job that no program should put is refused, and each
// device token is another.
func TestDemoJobs(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for n := range 10 * len(acts) {
		a := &acts[n%len(acts)]
		body := a.job(n)
		if _, err := worker.ParseJob(body, a.topic, ""); (err != nil) != (a.more != nil) {
			t.Errorf("%s: %v", body, err)
		}
		var job struct {
			Token  string
			Tokens []string
		}
		if err := json.Unmarshal(body, &job); err != nil {
			t.Fatal(err)
		}
		for _, token := range append(job.Tokens, job.Token) {
			if token != "" && (len(token) != 64 || seen[token[:8]]) {
				t.Errorf("token %s: seen before, or of %d digits", token, len(token))
			}
			seen[token[:min(8, len(token))]] = true
		}
	}
}

func TestScreen(t *testing.T) {
	t.Parallel()
	for _, colour := range []bool{false, true} {
		var out bytes.Buffer
		s := newScreen(&out, colour)
		log := slog.New(s.handler()).With("topic", "com.example.app", "worker", 0)
		log.Debug("not shown")
		log.Info("push", "job", "7", "token", "00fc13ad", "class", "delivered", "status", 200, "reason", "", "ms", 3)
		log.Warn("job buried", "class", "rejected", "job", "8", "status", 413, "reason", "PayloadTooLarge")
		log.Error("no", "err", "why")
		want := []string{
			" delivered   com.example.app   job 7 to 00fc13ad…: 200 (3 ms)",
			" buried      com.example.app   job 8: set aside, see `propeller jobs`: 413 PayloadTooLarge",
			" error       com.example.app   no worker=0 err=why",
			"",
		}
		lines := strings.Split(out.String(), "\n")
		if len(lines) != len(want) {
			t.Fatalf("%q", lines)
		}
		escape := regexp.MustCompile("\x1b\\[[0-9]+m")
		for i, line := range lines {
			if escape.MatchString(line) != (colour && line != "") || strings.Count(line, "\x1b[0m")*2 != len(escape.FindAllString(line, -1)) {
				t.Errorf("colour %v: %q", colour, line)
			}
			if plain := escape.ReplaceAllString(line, ""); !strings.HasSuffix(plain, want[i]) {
				t.Errorf("got  %q\nwant …%q", plain, want[i])
			}
		}
	}
	if colourful(new(bytes.Buffer)) {
		t.Error("a buffer is no terminal")
	}
}

// Events may come from everywhere at once.
func TestScreenIsShared(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newScreen(&out, true)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				s.event("put", demoNews, "x")
			}
		})
	}
	wg.Wait()
	if n := strings.Count(out.String(), "x\n"); n != 800 || !strings.HasPrefix(s.summary(), "800 jobs put") {
		t.Errorf("%d lines, %s", n, s.summary())
	}
}
