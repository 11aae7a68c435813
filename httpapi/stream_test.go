package httpapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"propeller/apnsconn/apnstest"
)

// openStream is a stream of notifications under way.
type openStream struct {
	t   *testing.T
	out *io.PipeWriter // what the client sends
	in  *bufio.Reader  // the answers
}

// openAt begins a stream with a key.
func openAt(t *testing.T, client *http.Client, url, token string) *openStream {
	t.Helper()
	body, out := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/v1/notifications", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", ndjson)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		out.Close()
		resp.Body.Close()
	})
	if resp.StatusCode != http.StatusAccepted {
		t.Fatal(resp.Status)
	}
	return &openStream{t, out, bufio.NewReader(resp.Body)}
}

// ask sends a line and returns the answer.
func (s *openStream) ask(line string) result {
	s.t.Helper()
	if _, err := io.WriteString(s.out, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
	return s.answer()
}

func (s *openStream) answer() (r result) {
	s.t.Helper()
	text, err := s.in.ReadBytes('\n')
	if err != nil || json.Unmarshal(text, &r) != nil {
		s.t.Fatalf("%s, %v", text, err)
	}
	return r
}

// ends wants that nothing more comes.
func (s *openStream) ends() {
	s.t.Helper()
	if rest, err := io.ReadAll(s.in); err != nil || len(rest) > 0 {
		s.t.Errorf("%s, %v", rest, err)
	}
}

// A reload holds for the streams that are open, too: from the next line on.
func TestStreamAfterReload(t *testing.T) {
	t.Parallel()
	key := func(role Role, rate int, topics ...string) []Key {
		return []Key{{Name: "k", Token: "k-0123456", Role: role, Rate: rate, Topics: topics}}
	}
	api := New(new(putTree), Options{})
	url, client := "http://"+serveWeb(t, Web{Listen: "127.0.0.1:0"}, api.Network()), newClient(t)
	open := func(keys []Key) *openStream {
		api.Use(Settings{Keys: keys})
		s := openAt(t, client, url, "k-0123456")
		if r := s.ask(notification("")); r.ID == "" {
			t.Fatalf("%+v", r)
		}
		return s
	}

	s := open(key(RoleSend, 0))
	api.Use(Settings{Keys: key(RoleSend, 0, "com.example.other")})
	if r := s.ask(notification("")); r.Error == nil || r.Error.Status != http.StatusForbidden || r.Error.Key != "topic" {
		t.Errorf("for other apps now: %+v", r)
	}
	api.Use(Settings{Keys: key(RoleSend, 1)})
	if r := s.ask(notification("")); r.ID == "" {
		t.Errorf("slower now: %+v", r)
	}
	if tokens := api.access.Load().find("k-0123456").limit.Tokens(); tokens > maxItems-0.5 {
		t.Errorf("of its new limit it has used nothing: %v are left", tokens)
	}
	api.Use(Settings{Keys: key(RoleRead, 0)})
	if r := s.ask(notification("")); r.Error == nil || r.Error.Status != http.StatusForbidden || !strings.Contains(r.Error.Detail, "role") {
		t.Errorf("for reading now: %+v", r)
	}
	s.ends()

	s = open(key(RoleSend, 0))
	api.Use(Settings{Keys: testKeys})
	if r := s.ask(notification("")); r.Error == nil || r.Error.Status != http.StatusUnauthorized {
		t.Errorf("the key is gone: %+v", r)
	}
	s.ends()
}

// Who asks on the daemon's socket needs no key, whichever there are.
func TestStreamOnSocket(t *testing.T) {
	t.Parallel()
	api := New(new(putTree), Options{})
	api.Use(Settings{Keys: testKeys})
	if w := send(api.Socket(), "", "POST", "/v1/notifications", notification("")+"\n", "Content-Type", ndjson); w.Body.String() != `{"id":"job1"}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A daemon that stops waits for no stream: what has been read is answered, then
// there is a last line; nothing that is not answered has been put.
func TestStreamsEndWithServer(t *testing.T) {
	t.Parallel()
	apns, err := apnstest.Start(apnstest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer apns.Close()
	file := filepath.Join(t.TempDir(), "c.pem")
	if err := os.WriteFile(file, apns.ClientCertPEM("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, web := range map[string]Web{
		"http://":  {Listen: "127.0.0.1:0"},
		"https://": {Listen: "127.0.0.1:0", TLSCert: file, TLSKey: file}, // HTTP/2
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := new(putTree)
			server, err := NewWeb(web, quiet)
			if err != nil {
				t.Fatal(err)
			}
			server.Answer(newKeyed(tree))
			url := name + server.Addr().String()
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(ctx) }()
			client := newClient(t)
			tr := client.Transport.(*http.Transport)
			tr.ForceAttemptHTTP2, tr.TLSClientConfig = true, &tls.Config{InsecureSkipVerify: true} // its name is no host's

			idle, halfway, busy := openAt(t, client, url, "sender-0123"), openAt(t, client, url, "sender-0123"), openAt(t, client, url, "sender-0123")
			idle.ask(notification(""))
			if _, err := io.WriteString(halfway.out, notification("")[:20]); err != nil {
				t.Fatal(err)
			}
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				for lines := strings.Repeat(notification("")+"\n", 50); ; {
					if _, err := io.WriteString(busy.out, lines); err != nil {
						return
					}
				}
			}()
			busy.answer()
			cancel()
			var answered atomic.Int64
			answered.Store(2) // idle's and the first of busy
			var reading sync.WaitGroup
			for name, s := range map[string]*openStream{"idle": idle, "halfway": halfway, "busy": busy} {
				reading.Go(func() {
					rest, err := io.ReadAll(s.in)
					lines := strings.SplitAfter(string(rest), "\n")
					ids := strings.Count(string(rest), `{"id":`)
					answered.Add(int64(ids))
					if last := strings.Join(lines[ids:], ""); err != nil || last != `{"error":{"status":503,"detail":"the daemon is stopping"}}`+"\n" {
						t.Errorf("%s: after %d answers: %s, %v", name, ids, last, err)
					}
				})
			}
			reading.Wait()
			<-ended
			busy.out.Close()
			<-stopped
			if len(tree.jobs) != int(answered.Load()) {
				t.Errorf("put %d, answered %d", len(tree.jobs), answered.Load())
			}
		})
	}
}
