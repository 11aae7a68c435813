package main

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"propeller/apnsconn/apnstest"
	"propeller/queue"
)

// The names of two more apps of topic: one in another environment, and a lane of its own.
const (
	sandboxApp = "app-sandbox"
	bulkApp    = "app-bulk"
)

// laneSite is a daemon with three apps of one topic, and the stand-in of the second.
type laneSite struct {
	*webSite
	sandbox *apnstest.Server
	first   string // the entry of the app that is named after the topic
}

func newLaneSite(t *testing.T) *laneSite {
	s := &laneSite{webSite: &webSite{site: newSite(t, apnstest.Options{})}, sandbox: apnstest.NewServer(apnstest.Options{})}
	t.Cleanup(s.sandbox.Close)
	s.write("sandbox-ca.pem", string(s.sandbox.CACertPEM()))
	s.write("sandbox.pem", string(s.sandbox.ClientCertPEM(topic)))
	s.first = "  - {topic: " + topic + ", cert: " + topic + ".pem}\n"
	s.configureApps(s.first + "  - {name: " + sandboxApp + ", topic: " + topic + ", cert: sandbox.pem, ca_file: sandbox-ca.pem, server: '" + s.sandbox.URL + "'}\n" +
		"  - {name: " + bulkApp + ", topic: " + topic + ", cert: " + topic + ".pem}\n")
	s.start()
	return s
}

func (s *laneSite) configureApps(apps string) {
	s.write("propeller.yaml", "queue: "+s.bs.URL()+"\nstate_dir: state\nlog: {pushes: all}\n"+
		"http: {listen: '127.0.0.1:0', keys: [{name: all, token: all-012345, role: admin}, {name: lane, token: lane-01234, role: send, apps: ["+bulkApp+"]}, {name: old, token: old-012345, role: send, topics: ["+topic+"]}]}\n"+
		"defaults: {server: '"+s.apns.URL+"', ca_file: ca.pem}\napps:\n"+apps)
}

// Apps of one topic each reach their own APNs, whichever way they are addressed by name, and who
// says only the topic means the app that is named after it.
func TestAppsOfOneTopic(t *testing.T) {
	s := newLaneSite(t)
	n := 0
	push := func(more string) string {
		n++
		return `{"token":"` + token(n) + `","title":"x"` + more + `}`
	}
	post := func(key, path, body string, want int) {
		t.Helper()
		if status, text := s.ask(key, "POST", path, body); status != want {
			t.Fatalf("POST %s %s: %d %s", path, body, status, text)
		}
	}
	send := func(args ...string) {
		t.Helper()
		n++
		if r := runProgram(t, s.dir, "", append([]string{"send", "--title", "x", "--token", token(n)}, args...)...); r.status != 0 {
			t.Fatalf("send %q: %+v", args, r)
		}
	}
	for _, app := range []string{topic, sandboxApp, bulkApp} {
		s.putByHand(app, push(""))
		post("all-012345", "/v1/notifications", push(`,"app":"`+app+`"`), 202)
		post("all-012345", "/v1/apps/"+app+"/jobs", push(""), 200)
		send("--app", app)
	}
	// What says only the topic.
	post("old-012345", "/v1/notifications", push(`,"topic":"`+topic+`"`), 202)
	send("--topic", topic)
	form := url.Values{"auth_token": {"old-012345"}, "topic": {topic}, "token": {token(90)}, "title": {"x"}}
	if resp, err := s.client.PostForm(s.url+"/post", form); err != nil || resp.StatusCode != 200 {
		t.Errorf("a form: %v %v", resp, err)
	}
	// Keys.
	post("lane-01234", "/v1/notifications", push(`,"app":"`+bulkApp+`"`), 202)
	post("lane-01234", "/v1/notifications", push(`,"topic":"`+topic+`"`), 403)
	post("old-012345", "/v1/notifications", push(`,"app":"`+sandboxApp+`"`), 202)

	want := map[string]int{topic: 4 + 3, sandboxApp: 4 + 1, bulkApp: 4 + 1}
	until(t, "all are delivered", func() bool {
		_, text := s.ask("all-012345", "GET", "/metrics", "")
		for app, n := range want {
			if !strings.Contains(text, fmt.Sprintf("propeller_pushes_total{app=%q,class=\"delivered\",reason=\"\",topic=%q} %d\n", app, topic, n)) {
				return false
			}
		}
		return true
	})
	if a, b := len(s.apns.Requests()), len(s.sandbox.Requests()); a != want[topic]+want[bulkApp] || b != want[sandboxApp] {
		t.Errorf("%d and %d requests", a, b)
	}
	for _, r := range s.sandbox.Requests() {
		if r.Header.Get("apns-topic") != topic {
			t.Errorf("a push for the topic %q", r.Header.Get("apns-topic"))
		}
	}
	if r := runProgram(t, s.dir, "", "status", "--app", sandboxApp); r.status != 0 || !strings.Contains(r.out, sandboxApp+" ("+topic+")") || strings.Contains(r.out, bulkApp) {
		t.Errorf("%+v", r)
	}
	if r := runProgram(t, s.dir, "", "check"); r.status != 0 || !strings.Contains(r.out, "NAME") || !strings.Contains(r.out, bulkApp+" ") {
		t.Errorf("%+v", r)
	}
}

// The jobs of one lane are given to another while the daemon runs: waiting, delayed and buried
// ones, and no others.
func TestMoveToAnotherApp(t *testing.T) {
	s := newLaneSite(t)
	s.putByHand(bulkApp, `{"token":"`+token(1)+`","nonsense":1}`)
	s.daemon.says("job buried")
	if status, text := s.ask("all-012345", "POST", "/v1/apps/"+bulkApp+"/pause", ""); status != 200 {
		t.Fatal(status, text)
	}
	putJobs(t, s.bs.URL(), bulkApp, 2, 50, queue.PutOptions{})
	r := runProgram(t, s.dir, "", "jobs", "move", "--app", bulkApp, "--to-app", topic)
	if r.status != 0 || !strings.Contains(r.err, "50 ready, 0 delayed, 1 buried") || strings.Contains(r.err, "warning") {
		t.Fatalf("%+v", r)
	}
	until(t, "the other lane delivers them", func() bool { return len(s.apns.Requests()) == 50 })
	until(t, "the buried job is the other lane's", func() bool { // the daemon counts them now and then
		return strings.Contains(s.jobs("list", "--app", topic), "nonsense") && s.jobs("list", "--app", bulkApp) == "no buried jobs\n"
	})
	if r := runProgram(t, s.dir, "", "jobs", "move", "--app", bulkApp, "--to-app", sandboxApp); r.status != 0 || !strings.Contains(r.err, "warning: app "+bulkApp+" sends to "+s.apns.URL) {
		t.Errorf("%+v", r)
	}
}
