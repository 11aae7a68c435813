package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"propeller/apnsconn/apnstest"
)

// webSite is a site whose daemon serves HTTP.
type webSite struct {
	*site
	daemon *daemonProcess
	url    string
	client *http.Client
}

// listens is the log line that tells the port.
var listens = regexp.MustCompile(`http listens" addr=(\S+)`)

func newWebSite(t *testing.T, keys string) *webSite {
	s := &webSite{site: newSite(t, apnstest.Options{})}
	s.keys(keys)
	s.start()
	return s
}

// start starts the daemon, once its configuration is written.
func (s *webSite) start(args ...string) {
	s.t.Helper()
	s.daemon = startDaemon(s.t, s.dir, args...)
	s.daemon.says("http listens")
	s.url = "http://" + listens.FindStringSubmatch(s.daemon.log())[1]
	tr := new(http.Transport)
	s.t.Cleanup(tr.CloseIdleConnections)
	s.client = &http.Client{Transport: tr, Timeout: patience}
}

// keys writes the configuration with what else http says.
func (s *webSite) keys(more string) {
	s.t.Helper()
	s.configure(topic)
	file := filepath.Join(s.dir, "propeller.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("propeller.yaml", string(text)+"http: {listen: '127.0.0.1:0'"+more+"}\n")
}

// ask makes a request with a key and returns status and body.
func (s *webSite) ask(key, method, path, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// The daemon serves HTTP by the keys of its configuration, and by those of the
// next after a reload.
func TestWeb(t *testing.T) {
	s := newWebSite(t, ", auth_token: first-token")
	if status, body := s.ask("first-token", "GET", "/v1/apps", ""); status != 200 || !strings.Contains(body, topic) {
		t.Errorf("%d %s", status, body)
	}
	until(t, "it is ready", func() bool { status, _ := s.ask("", "GET", "/readyz", ""); return status == 200 })

	s.putByHand(topic, `{"token": "`+token(1)+`", "title": "x"}`)
	until(t, "the push is counted", func() bool {
		_, text := s.ask("first-token", "GET", "/metrics", "")
		return strings.Contains(text, `propeller_pushes_total{app="`+topic+`",class="delivered",reason="",topic="`+topic+`"} 1`) &&
			strings.Contains(text, `propeller_push_seconds_count{app="`+topic+`",topic="`+topic+`"} 1`)
	})

	s.keys(", keys: [{name: n, token: second-token, role: read}], tls_key: ca.pem, tls_cert: " + topic + ".pem")
	s.daemon.signal(syscall.SIGHUP)
	s.daemon.says("reload refused")
	if _, text := s.ask("first-token", "GET", "/metrics", ""); !strings.Contains(text, "\npropeller_config_reload_ok 0\n") {
		t.Error("the metrics do not tell of the reload that was refused")
	}
	s.keys(", keys: [{name: n, token: second-token, role: read}], tls_key: " + topic + ".pem, tls_cert: " + topic + ".pem")
	s.daemon.signal(syscall.SIGHUP)
	s.daemon.says("takes effect at the next start")
	for key, want := range map[string]int{"first-token": 401, "second-token": 200} {
		if status, body := s.ask(key, "GET", "/v1/apps", ""); status != want {
			t.Errorf("%s: %d %s", key, status, body)
		}
	}
	for _, secret := range []string{"first-token", "second-token"} {
		if strings.Contains(s.daemon.log(), secret) {
			t.Error("a token is in the log")
		}
	}
	s.daemon.signal(syscall.SIGTERM)
	if status := s.daemon.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// A port that is taken is an error before anything runs.
func TestWebPortTaken(t *testing.T) {
	s := newSite(t, apnstest.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r := runProgram(t, s.dir, "", "run", "--topic", topic, "--server", "mock", "--queue", s.bs.URL(), "--http-listen", ln.Addr().String())
	if r.status != 1 || !strings.Contains(r.err, "http.listen") || !strings.Contains(r.err, "address already in use") || strings.Contains(r.err, "propeller started") {
		t.Errorf("%+v", r)
	}
}

// A push by each way to send one arrives.
func TestWebSends(t *testing.T) {
	s := newWebSite(t, ", keys: [{name: n, token: sender-token, role: send}]")
	form := "auth_token=sender-token&topic=" + topic + "&token=" + token(1) + "&title=x&badge=3"
	resp, err := s.client.Post(s.url+"/post", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("post: %s", resp.Status)
	}
	one := func(i int) string { return `{"topic": "` + topic + `", "token": "` + token(i) + `", "title": "x"}` }
	status, text := s.ask("sender-token", "POST", "/v1/notifications", one(7))
	var put struct{ ID string }
	if err := json.Unmarshal([]byte(text), &put); err != nil || status != 202 {
		t.Fatalf("%d %s", status, text)
	}
	until(t, "it is said to be delivered", func() bool {
		_, text := s.ask("sender-token", "GET", "/v1/notifications/"+put.ID, "")
		return strings.Contains(text, `"state":"delivered"`) && strings.Contains(text, `"tries":1`) && strings.Contains(text, `"apns_id":"`)
	})
	for _, body := range []string{one(2), "[" + one(3) + "," + one(4) + "]"} {
		if status, text := s.ask("sender-token", "POST", "/v1/notifications", body); status != 202 {
			t.Errorf("%d %s", status, text)
		}
	}
	req, err := http.NewRequest("POST", s.url+"/v1/notifications", strings.NewReader(one(5)+"\n"+one(6)+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sender-token")
	req.Header.Set("Content-Type", "application/x-ndjson")
	if resp, err = s.client.Do(req); err != nil {
		t.Fatal(err)
	}
	answers, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || strings.Count(string(answers), `{"id":`) != 2 {
		t.Errorf("%s, %v", answers, err)
	}
	until(t, "all pushes arrive", func() bool { return s.apns.Count() == 7 })
	seen := make(map[string]bool)
	for _, r := range s.apns.Requests() {
		seen[r.Token] = true
	}
	if len(seen) != 7 {
		t.Errorf("%d tokens", len(seen))
	}
}

// An app that is paused takes no job, whatever is reloaded, until it is resumed.
func TestWebPause(t *testing.T) {
	s := newWebSite(t, ", auth_token: first-token")
	order := func(path string, want int) {
		t.Helper()
		if status, text := s.ask("first-token", "POST", path, ""); status != want {
			t.Fatalf("%s: %d %s", path, status, text)
		}
	}
	order("/v1/apps/"+topic+"/pause", 200)
	job := `{"topic": "` + topic + `", "token": "` + token(1) + `", "title": "x"}`
	if status, text := s.ask("first-token", "POST", "/v1/notifications", job); status != 202 {
		t.Fatal(status, text)
	}
	s.keys(", auth_token: first-token, pprof: maybe")
	order("/v1/reload", 422)
	s.keys(", auth_token: first-token, pprof: true")
	file := filepath.Join(s.dir, "propeller.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.write("propeller.yaml", strings.Replace(string(text), "in_flight: 200", "in_flight: 100", 1)) // another app under the same topic
	order("/v1/reload", 200)
	s.daemon.says("app changed")
	if status, text := s.ask("first-token", "GET", "/debug/pprof/goroutine?debug=1", ""); status != 200 || !strings.Contains(text, "goroutine profile") {
		t.Errorf("pprof: %d %s", status, text)
	}
	if _, text := s.ask("first-token", "GET", "/v1/apps/"+topic, ""); !strings.Contains(text, `"state":"paused"`) || !strings.Contains(text, "paused by auth_token") {
		t.Errorf("after a reload: %s", text)
	}
	if status, text := s.ask("", "GET", "/readyz", ""); status != 200 {
		t.Errorf("%d %s", status, text)
	}
	if n := s.apns.Count(); n != 0 {
		t.Errorf("%d pushes of a paused app", n)
	}
	order("/v1/apps/"+topic+"/resume", 200)
	until(t, "the push arrives", func() bool { return s.apns.Count() == 1 })
}

// A daemon without keys says what that means, and takes a program on this machine
// for an admin, but not what a proxy passes on.
func TestWebWithoutKeys(t *testing.T) {
	s := newWebSite(t, "")
	s.daemon.says("http has no keys")
	if status, body := s.ask("", "GET", "/v1/apps", ""); status != 200 || !strings.Contains(body, topic) {
		t.Errorf("%d %s", status, body)
	}
	req, err := http.NewRequest("GET", s.url+"/v1/apps", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Via", "1.1 proxy")
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("through a proxy: %s", resp.Status)
	}
	s.daemon.signal(syscall.SIGTERM)
	if status := s.daemon.exit(); status != 0 {
		t.Errorf("status %d", status)
	}
}
