package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// loseAnswer is a queue server that takes a job and hangs up.
func loseAnswer(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			for in := bufio.NewScanner(c); in.Scan(); {
				command, tube, _ := strings.Cut(in.Text(), " ")
				if answer := map[string]string{"use": "USING " + tube, "kick": "KICKED 0"}[command]; answer != "" {
					fmt.Fprintf(c, "%s\r\n", answer)
					continue
				}
				break // the put
			}
			c.Close()
		}
	}()
	return ln.Addr().String()
}

// A job that may have been put is not said to be "not put": who believes that
// sends it twice.
func TestSendWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	send := func(more ...string) result {
		return runProgram(t, dir, "", append([]string{"send", "--topic", topic, "--token", token(1), "--title", "x"}, more...)...)
	}
	if r := runProgram(t, dir, "", "send", "--topic", topic, "--token", token(1), "--queue", "beanstalk://127.0.0.1:1"); !strings.HasPrefix(r.err, "no alert: nothing will be shown\n") {
		t.Errorf("only a token: %+v", r)
	}
	queue := send("--queue", "beanstalk://"+loseAnswer(t))

	ln, err := net.Listen("unix", filepath.Join(dir, "propeller.sock"))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" { // before the job is sent
			return
		}
		asked <- struct{}{}
		panic(http.ErrAbortHandler)
	})}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	if r := send("--queue", "embedded://"+filepath.Join(dir, "queue")); r.status != 1 || !strings.Contains(r.err, "no such folder") || !missing(filepath.Join(dir, "queue")) {
		t.Errorf("a queue that is not there: %+v", r)
	}
	daemon := send("--queue", "embedded://"+dir, "--state-dir", dir)
	<-asked

	for from, r := range map[string]result{"the queue": queue, "the daemon": daemon} {
		if r.status != 1 || r.out != "" || !strings.Contains(r.err, "the job may be in it; if you put it again") || strings.Contains(r.err, "not put") {
			t.Errorf("no answer from %s: %+v", from, r)
		}
	}
}

// A request with an Idempotency-Key whose client gives up on a queue that hangs is
// put once and pushed once, however often it is repeated.
func TestIdempotencyOverAFrozenQueue(t *testing.T) {
	s := newWebSite(t, `, auth_token: "admin-0123"`)
	body := fmt.Sprintf(`{"topic":%q,"token":%q,"title":"x"}`, topic, token(1))
	post := func(ctx context.Context) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/notifications", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer admin-0123")
		r.Header.Set("Idempotency-Key", "k")
		resp, err := s.client.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	s.bs.Freeze()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := post(short)
	s.bs.Thaw()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("from a frozen queue: %v", err)
	}
	until(t, "the answer is there", func() bool {
		resp, err := post(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode != http.StatusConflict
	})
	resp, err := post(t.Context())
	if err != nil || resp.StatusCode != http.StatusAccepted || resp.Header.Get("Idempotency-Replayed") == "" {
		t.Fatalf("%v %+v", err, resp)
	}
	// One that was put after it has arrived: there is no other on its way.
	last := strings.Repeat("2", 64)
	if status, text := s.ask("admin-0123", "POST", "/v1/notifications", strings.Replace(body, token(1), last, 1)); status != http.StatusAccepted {
		t.Fatal(status, text)
	}
	s.daemon.says(last[:8])
	if n := s.apns.Count(); n != 2 {
		t.Errorf("%d pushes, want 2", n)
	}
}

// send judges a job as the daemon would, by what the configuration says of its app; no
// certificate is read for that.
func TestSendKnowsTheApp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := []byte(`
queue: beanstalk://127.0.0.1:1
defaults: {ttl: 1m}
apps:
  - {topic: com.example.app, cert: none.pem}
  - {topic: com.example.own, key: none.p8, key_id: ABC123DEFG, team_id: DEF123GHIJ, extra_keys: ignore}
`)
	if err := os.WriteFile(filepath.Join(dir, "propeller.yaml"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	const nobody = "start the queue server" // the job is good, and there is no queue
	for _, test := range []struct{ topic, more, delay, want, warning string }{
		{"com.example.app", ``, "59s", nobody, ""},
		{"com.example.app", ``, "60s", "delay: is 1m0s from now, when the job's ttl of 1m0s is over", ""},
		{"com.example.app", `,"expiration":3600`, "0s", "expiration: is 3600, a time in 1970", ""},
		{"com.example.app", `,"push_type":"location"`, "0s", "push_type: location works with a key", ""},
		{"com.example.app", `,"push_type":"liveactivity","data":{"a":null}`, "0s", nobody, "warning: a Live Activity with a certificate"},
		{"com.example.app", `,"colour":1`, "0s", `"colour": unknown key`, ""},
		{"com.example.own", `,"colour":1`, "0s", nobody, `warning: job: "colour": unknown key: it is ignored`},
		{"com.example.own", `,"push_type":"location"`, "0s", nobody, ""},
	} {
		job := "\xef\xbb\xbf" + `{"token":"` + token(1) + `","title":"x"` + test.more + `}`
		r := runProgram(t, dir, job, "send", "--topic", test.topic, "--json", "-", "--delay", test.delay)
		if r.status != 1 || !strings.Contains(r.err, test.want) || strings.Contains(r.err, "warning") != (test.warning != "") || !strings.Contains(r.err, test.warning) {
			t.Errorf("%s%s, delay %s: %+v", test.topic, test.more, test.delay, r)
		}
	}
}
