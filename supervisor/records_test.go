package supervisor

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"propeller/apnsconn/apnstest"
	"propeller/worker/feedback"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const secret = "0123456789abcdef"

// receiver is somebody's webhook endpoint.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	tokens map[string]int // records by token
	fails  bool
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{tokens: make(map[string]int)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		body, err := io.ReadAll(req.Body)
		var batch struct {
			Records []feedback.Record `json:"records"`
		}
		switch {
		case r.fails || err != nil:
			w.WriteHeader(http.StatusInternalServerError)
			return
		case !genuine(req.Header, body), json.Unmarshal(body, &batch) != nil:
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, rec := range batch.Records {
			r.tokens[rec.Token]++
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// genuine says that a request is signed with secret.
func genuine(h http.Header, body []byte) bool {
	hook, err := standardwebhooks.NewWebhookRaw([]byte(secret))
	return err == nil && hook.Verify(body, h) == nil
}

func (r *receiver) failing(fails bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = fails
}

func (r *receiver) has(n int) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.tokens) == n
	}
}

func hooked(r *receiver) string {
	return fmt.Sprintf("feedback: {webhook: %q, secret: %s}", r.URL+"/path-is-secret", secret)
}

// Dead tokens reach the webhook, also across a reload that replaces the app; a
// webhook that is down shows in the status and makes nothing unready.
func TestWebhookIsServed(t *testing.T) {
	const n = 60
	w := newWorld(t, apnstest.Options{})
	r := newReceiver(t)
	w.apns.SetScript(apnstest.Always(apnstest.Answer{Status: 410, Reason: "Unregistered"}))
	w.start(w.app(topic, hooked(r)))
	put := func(from, to int) {
		for i := from; i < to; i++ {
			w.put(topic, jobBody(i))
		}
	}
	put(0, n/3)
	w.until("the first records arrive", r.has(n/3))
	r.failing(true)
	put(n/3, 2*n/3)
	w.until("the webhook is down", func() bool { h := w.status(topic).Webhook; return h != nil && h.Down })
	if s := w.status(topic); s.Health.State.Trouble() || s.Webhook.Since.IsZero() || s.Webhook.Reason == "" {
		t.Errorf("%q, webhook %+v", s.Health, s.Webhook)
	}
	w.apply(w.app(topic, hooked(r), "in_flight: 7"))
	put(2*n/3, n)
	r.failing(false)
	w.until("all records have arrived", r.has(n))
	w.until("the webhook is up", func() bool { return !w.status(topic).Webhook.Down })
	r.mu.Lock()
	for token, times := range r.tokens {
		if times != 1 {
			t.Errorf("%s: %d records", token, times)
		}
	}
	r.mu.Unlock()
	if w.log.contains("path-is-secret") || w.log.contains(secret) {
		t.Error("the log has the webhook's path or secret")
	}
	w.empty(topic + ".feedback")
	w.apply(w.app(topic))
	if w.status(topic).Webhook != nil {
		t.Error("the webhook is still there")
	}
}

// What APNs says of device tokens is known to all workers of an app, and
// survives a reload that changes neither APNs nor the credential.
func TestMemorySurvivesAReload(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.apns.SetScript(apnstest.ByToken(map[string]apnstest.Answer{token(1): {Status: 410, Reason: "Unregistered"}}))
	w.start(w.app(topic))
	w.put(topic, jobBody(1))
	w.empty(topic)
	w.apply("  - {topic: " + topic + ", cert: " + topic + ".pem, in_flight: 7, workers: 2}\n") // the same certificate
	w.put(topic, jobBody(1), jobBody(2))
	w.empty(topic)
	if n := w.apns.Count(); n != 2 {
		t.Errorf("%d requests, want 2: one of them for the dead token", n)
	}
	w.until("the log says that the token was known to be dead", func() bool { return w.log.contains("remembered=true") })
}
