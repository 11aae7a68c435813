package main

import (
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
)

// clientExample is a program in a document that puts a job: over what, in which
// language, and with which library if it needs one.
type clientExample struct{ name, over, language, library, code string }

// Every client in README.md and docs/clients.md puts a job that arrives. What needs a
// library that cannot be had here is skipped, and says so.
func TestClients(t *testing.T) {
	s := newWebSite(t, ", auth_token: admin-0123")
	_, port, _ := strings.Cut(s.bs.Addr(), ":")
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string][2]string{"beanstalkd": {"11300", port}, "http": {"8080", u.Port()}}
	for _, e := range clientExamples(t) {
		if p, here := ports[e.over]; here {
			t.Run(e.name, func(t *testing.T) { e.try(t, s.site, p[0], p[1]) })
		} else if e.over != "nats" {
			t.Errorf("%s: over %q", e.name, e.over)
		}
	}
}

// Those for NATS do so with an embedded queue that listens.
func TestClientsOfNATS(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close() // for the daemon
	s.write("propeller.yaml", strings.Replace(s.read("propeller.yaml"), s.bs.URL(), "embedded://./.propeller/queue?listen="+addr, 1))
	startDaemon(t, s.dir)
	file := filepath.Join(s.dir, ".propeller/queue/listen")
	until(t, "the queue listens", func() bool { _, err := os.Stat(file); return err == nil })
	_, port, _ := strings.Cut(addr, ":")
	for _, e := range clientExamples(t) {
		if e.over == "nats" {
			t.Run(e.name, func(t *testing.T) { e.try(t, s, "4222", port) })
		}
	}
}

// clientExamples are the programs of the two documents: every block in the language of
// a client has a line above that says how it is run.
func clientExamples(t *testing.T) (all []clientExample) {
	t.Helper()
	for document, text := range map[string]string{"README": readme(t), "clients.md": document(t, "clients.md")} {
		for _, m := range regexp.MustCompile("(?s)<!-- run: (\\w+) (\\w+)(?: (\\S+))? -->\n```(\\w+)\n(.*?)```").FindAllStringSubmatch(text, -1) {
			if m[2] != m[4] {
				t.Errorf("%s: a block in %s is marked as %s", document, m[4], m[2])
			}
			name := strings.ReplaceAll(strings.TrimSpace(strings.Join([]string{document, m[1], m[2], m[3]}, " ")), "/", "_")
			all = append(all, clientExample{name, m[1], m[2], m[3], m[5]})
		}
		blocks := len(regexp.MustCompile("(?m)^```(python|php|ruby|js|go)$").FindAllString(text, -1))
		if run := len(regexp.MustCompile(`(?m)^<!-- run: \w+ (python|php|ruby|js|go)\b`).FindAllString(text, -1)); run != blocks {
			t.Errorf("%s has %d clients, of which %d are run", document, blocks, run)
		}
	}
	if len(all) < 15 {
		t.Errorf("%d clients", len(all))
	}
	return all
}

// try runs the example with the port it shall use, and waits for its push.
func (e clientExample) try(t *testing.T, s *site, shown, port string) {
	e.need(t)
	if !strings.Contains(e.code, shown) {
		t.Fatalf("no port %s in\n%s", shown, e.code)
	}
	e.code = strings.ReplaceAll(e.code, shown, port)
	before := s.apns.Count()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := e.command(t, ctx)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "PROPELLER_AUTH_TOKEN=admin-0123")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s(make test-tools installs what this needs)", err, out)
	}
	t.Logf("ran: %s", out)
	until(t, "the push arrives", func() bool { return s.apns.Count() == before+1 })
	title := regexp.MustCompile(`From \w+( shell)?`).FindString(e.code)
	if body := string(s.apns.Requests()[before].Body); title == "" || !strings.Contains(body, title) {
		t.Errorf("%q came, it puts %q", body, title)
	}
}

// need skips an example whose library is not here and that make test-tools cannot install.
func (e clientExample) need(t *testing.T) {
	const later = `require "Pheanstalk/autoload.php"; $later = class_exists("Pheanstalk\\PheanstalkPublisher");`
	probe, debian := []string{"true"}, true
	switch e.library {
	case "greenstalk", "nats":
		probe, debian = []string{"python3", "-c", "import " + e.library}, false
	case "beaneater":
		probe = []string{"ruby", "-e", `require "beaneater"`}
	case "pheanstalk8":
		probe = []string{"php", "-r", later + `echo $later ? "pheanstalk 5 or later" : "pheanstalk 4 behind testdata/pheanstalk8.php";`}
	case "pheanstalk4":
		probe, debian = []string{"php", "-r", later + `if ($later) { echo "a later one is here"; exit(1); }`}, false
	}
	out, err := exec.Command(probe[0], probe[1:]...).CombinedOutput()
	if err == nil {
		t.Logf("with: %s", out)
		return
	}
	if _, apt := exec.LookPath("apt-get"); debian && apt == nil {
		t.Fatalf("%v: %v\n%s(make test-tools installs what this needs)", probe, err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Skipf("NOT RUN: %s is not on this machine: %s", e.library, lines[len(lines)-1])
}

// command is how the example's language is run.
func (e clientExample) command(t *testing.T, ctx context.Context) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	here := func(name string) string {
		name, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	switch e.language {
	case "sh":
		return exec.CommandContext(ctx, "sh", "-c", e.code)
	case "python":
		return exec.CommandContext(ctx, "python3", "-c", e.code)
	case "ruby":
		return exec.CommandContext(ctx, "ruby", "-e", e.code)
	case "js":
		if err := os.Symlink(here("../../.tools/npm/node_modules"), filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
		return exec.CommandContext(ctx, "node", file("client.mjs", e.code))
	case "php":
		head := "<?php\n"
		if strings.HasPrefix(e.library, "pheanstalk") {
			head += `require "Pheanstalk/autoload.php";` + "\n"
		}
		if e.library == "pheanstalk8" {
			head += `if (!class_exists("Pheanstalk\\PheanstalkPublisher")) require "` + here("testdata/pheanstalk8.php") + `";` + "\n"
		}
		return exec.CommandContext(ctx, "php", file("client.php", head+e.code))
	case "go":
		build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "client"), file("main.go", e.code))
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return exec.CommandContext(ctx, filepath.Join(dir, "client"))
	}
	t.Fatalf("nothing runs %s", e.language)
	return nil
}
