package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"propeller/apnsconn/apnstest"
	"propeller/worker/job"
)

// Every command in docs/migrating.md does what it is shown for, in that order: a topic is
// taken from its script, with the flags that it had; the file is checked; jobs that a script
// buried are found and sent; what was put without choosing a tube is sent, too.
func TestMigrating(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	commands := migratingCommands(t)
	pushes := int64(0)
	arrives := func(what string) {
		t.Helper()
		pushes++
		until(t, what+" arrives", func() bool { return s.apns.Count() == pushes })
	}
	own := strings.NewReplacer("certs/example.pem", filepath.Join(s.dir, topic+".pem"), "beanstalk://127.0.0.1:11300", s.bs.URL(),
		"--server Sandbox", "--server "+s.apns.URL+" --ca-file "+filepath.Join(s.dir, "ca.pem"),
		"--server production", "--server "+s.apns.URL+" --ca-file "+filepath.Join(s.dir, "ca.pem"))
	args := func(n int) []string { return strings.Fields(own.Replace(commands[n])) }
	done := func(n int) string {
		t.Helper()
		r := runProgram(t, s.dir, "", args(n)...)
		if r.status != 0 {
			t.Fatalf("%s: %+v", commands[n], r)
		}
		return r.out
	}

	s.putByHand(topic, `{"token":"`+token(1)+`","title":"Hi","body":null,"badge":3}`)
	d := startDaemon(t, t.TempDir(), args(0)...)
	arrives("the job that waited")
	d.signal(syscall.SIGTERM)
	d.exit()

	done(1)

	buriedByHand(t, s, `{"token":"`+token(2)+`","title":"Hi"}`)
	if out := done(2); !strings.Contains(out, job.NotRecorded) || !strings.Contains(document(t, "migrating.md"), "`"+job.NotRecorded+"`") {
		t.Errorf("a buried job is listed as\n%s", out)
	}
	done(3)
	putWithoutTube(t, s, `{"token":"`+token(3)+`","title":"Hi"}`)
	d = startDaemon(t, s.dir)
	arrives("the kicked job")
	d.says("tube=default")
	startDaemon(t, t.TempDir(), args(4)...)
	arrives("the job in the tube default")
	s.putByHand(topic, `{"token":"`+token(4)+`","title":"Hi"}`)
	arrives("one in the topic's tube")
}

// migratingCommands are the commands of docs/migrating.md, without the program's name.
func migratingCommands(t *testing.T) (all []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^ {4,}propeller (.*)$`).FindAllStringSubmatch(document(t, "migrating.md"), -1) {
		all = append(all, m[1])
	}
	var known []string
	for _, c := range all {
		known = append(known, regexp.MustCompile(` (?:--(?:topic|cert|server|queue) \S+)`).ReplaceAllString(c, ""))
	}
	if want := []string{"run --log-pushes all", "check", "jobs list", "jobs kick --all", "run --tube default"}; !slices.Equal(known, want) {
		t.Fatalf("the commands are %q, this test knows %q", known, want)
	}
	return all
}

// putWithoutTube puts a job as a client does that chooses no tube.
func putWithoutTube(t *testing.T, s *site, job string) {
	t.Helper()
	c, err := net.Dial("tcp", s.bs.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "put 0 0 60 %d\r\n%s\r\n", len(job), job)
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "INSERTED") {
		t.Fatalf("%q, %v", line, err)
	}
}

// An app may have the tube default for its own, and what docs/migrating.md says of the
// jobs and requests of old clients holds.
func TestMigratingClients(t *testing.T) {
	s := newWebSite(t, ", auth_token: admin-0123")
	file := s.read("propeller.yaml")
	s.write("propeller.yaml", strings.Replace(file, "- {topic: "+topic, "- {tube: default, extra_keys: ignore, topic: "+topic, 1))
	s.daemon.signal(syscall.SIGHUP)
	s.daemon.says("msg=reloaded")
	putWithoutTube(t, s.site, `{"token":"`+token(1)+`","title":"`+strings.Repeat(`\u4e2d`, 700)+`","badge":" 3 ","colour":"red"}`)
	until(t, "the push arrives", func() bool { return s.apns.Count() == 1 })
	if body, want := string(s.apns.Requests()[0].Body), `{"aps":{"alert":{"title":"`+strings.Repeat("中", 700)+`"},"badge":3}}`; body != want {
		t.Errorf("body %.100s…", body)
	}

	form := url.Values{"auth_token": {"admin-0123"}, "topic": {topic}, "token": {token(2)}, "title": {"Hi"}, "badge": {" 3 "}, "colour": {"red"}}.Encode()
	const ofForm = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		method, path, kind, body string
		status                   int
	}{
		{"POST", "/post", ofForm, form, 200},
		{"POST", "/post?" + form, ofForm, "", 401},
		{"POST", "/post", "application/json", `{"auth_token":"admin-0123"}`, 401},
		{"GET", "/form", "", "", 404},
		{"POST", "/form", ofForm, form, 404},
		{"GET", "/send", "", "", 200}, // by way of the form to sign in
	} {
		req, err := http.NewRequest(c.method, s.url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", c.kind)
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s %.40s: %d, want %d", c.method, c.path, resp.StatusCode, c.status)
		}
	}
	until(t, "the form's push arrives", func() bool { return s.apns.Count() == 2 })
}
