package feedback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"propeller/queue/beanstalk/beanstalktest"
)

// A configuration that can never work ends Serve, and names no secret.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	q := openQueue(t, beanstalktest.Start(t))
	const secret = "hush"
	for name, c := range map[string]WebhookConfig{
		"no URL":      {Tube: testTube, Secrets: [][]byte{[]byte(secret)}},
		"scheme":      {Tube: testTube, Secrets: [][]byte{[]byte(secret)}, URL: "ftp://user:hush@example.com/hush"},
		"no host":     {Tube: testTube, Secrets: [][]byte{[]byte(secret)}, URL: "http:hush"},
		"not a URL":   {Tube: testTube, Secrets: [][]byte{[]byte(secret)}, URL: "http://hush:%zz@/"},
		"no secret":   {Tube: testTube, URL: "http://127.0.0.1:1/hush"},
		"bad tube":    {Tube: "-", Secrets: [][]byte{[]byte(secret)}, URL: "http://127.0.0.1:1/hush"},
		"empty tube":  {Secrets: [][]byte{[]byte(secret)}, URL: "http://127.0.0.1:1/hush"},
		"nothing set": {},
	} {
		c.App, c.Topic, c.Queue = "com.example.app", "com.example.app", q
		w := NewWebhook(c)
		err := w.Serve(ctxOf(t))
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: served: %v", name, err)
			continue
		}
		all := err.Error() + w.String() + fmt.Sprintf("%v %+v %#v %s", c, c, c, c)
		if strings.Contains(all, secret) || !strings.HasPrefix(err.Error(), "feedback: webhook of com.example.app: ") {
			t.Errorf("%s: %s", name, all)
		}
	}
}

// Nothing of the URL but its host, no secret and no token is ever shown,
// whatever the endpoint does.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	faults := map[string]func(w http.ResponseWriter, r *http.Request){
		"status": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"reset":  func(w http.ResponseWriter, r *http.Request) { reset(w) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusTemporaryRedirect)
		},
		"location": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://%zz/"+r.URL.String())
			w.WriteHeader(302)
		},
		"status line": func(w http.ResponseWriter, r *http.Request) { echo(w, r, "") },
		"headers":     func(w http.ResponseWriter, r *http.Request) { echo(w, r, "HTTP/1.1 200 OK\r\n") },
		"phrase":      func(w http.ResponseWriter, r *http.Request) { echo(w, r, "HTTP/1.1 500 ") },
		"code":        func(w http.ResponseWriter, r *http.Request) { echo(w, r, "HTTP/1.1 ") },
		"encoding":    func(w http.ResponseWriter, r *http.Request) { echo(w, r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: ") },
		"length":      func(w http.ResponseWriter, r *http.Request) { echo(w, r, "HTTP/1.1 200 OK\r\nContent-Length: ") },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := openQueue(t, beanstalktest.Start(t))
			putRecords(t, q, 0, 1)
			var count atomic.Int64
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if user, password, _ := r.BasicAuth(); user != "uuser" || password != "ppass" || r.URL.RequestURI() != "/ppath?qquery" {
					t.Errorf("%s as %s:%s", r.URL.RequestURI(), user, password)
				}
				count.Add(1)
				fault(w, r)
			}))
			t.Cleanup(s.Close)
			h := newHook(q, strings.Replace(s.URL, "//", "//uuser:ppass@", 1)+"/ppath?qquery")
			stop := h.serve(t)
			until(t, "two failures", func() bool { return h.counters.Failed.Load() > 1 })
			stop()
			_, reason, down := h.counters.Down()
			if !down || reason == "" || !strings.Contains(h.logs.String(), s.URL) {
				t.Errorf("down %v, %q, log:\n%s", down, reason, h.logs)
			}
			shown := h.logs.String() + reason + h.String()
			for _, secret := range []string{"uuser", "ppass", "ppath", "qquery", testSecret, testToken(0)[:9]} {
				if strings.Contains(shown, secret) {
					t.Errorf("%q is shown:\n%s", secret, shown)
				}
			}
		})
	}
}

// echo answers with start and then the request's own body.
func echo(w http.ResponseWriter, r *http.Request, start string) {
	body, _ := io.ReadAll(r.Body)
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "%s%s\r\n\r\n", start, body)
}
