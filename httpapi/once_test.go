package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
)

// keyedForm posts a form with an Idempotency-Key.
func keyedForm(h http.Handler, bearer string, form url.Values) *httptest.ResponseRecorder {
	return send(h, bearer, "POST", "/post", form.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Idempotency-Key", "k")
}

// Forms and whole jobs are carried out once, too.
func TestIdempotencyOfFormsAndJobs(t *testing.T) {
	t.Parallel()
	form := func(more ...string) url.Values {
		v := url.Values{"topic": {topic}, "token": {goodToken}, "title": {"x"}}
		for i := 0; i < len(more); i += 2 {
			v.Set(more[i], more[i+1])
		}
		return v
	}
	job := fmt.Sprintf(`{"token":%q,"title":"x"}`, goodToken)
	putJob := func(h http.Handler, query, body string) *httptest.ResponseRecorder {
		return send(h, "sender-0123", "POST", "/v1/apps/"+topic+"/jobs"+query, body, "Idempotency-Key", "k")
	}
	type ask func(h http.Handler) *httptest.ResponseRecorder
	for name, c := range map[string]struct{ first, again, other ask }{
		"form": {
			func(h http.Handler) *httptest.ResponseRecorder { return keyedForm(h, "sender-0123", form()) },
			func(h http.Handler) *httptest.ResponseRecorder {
				return keyedForm(h, "", form("auth_token", "sender-0123"))
			},
			func(h http.Handler) *httptest.ResponseRecorder {
				return keyedForm(h, "sender-0123", form("badge", "3"))
			},
		},
		"job": {
			func(h http.Handler) *httptest.ResponseRecorder { return putJob(h, "", job) },
			func(h http.Handler) *httptest.ResponseRecorder { return putJob(h, "", job) },
			func(h http.Handler) *httptest.ResponseRecorder { return putJob(h, "?delay=10s", job) },
		},
		"job, then form": {
			func(h http.Handler) *httptest.ResponseRecorder { return putJob(h, "", job) },
			func(h http.Handler) *httptest.ResponseRecorder { return putJob(h, "", job) },
			func(h http.Handler) *httptest.ResponseRecorder { return keyedForm(h, "sender-0123", form()) },
		},
	} {
		tree := new(putTree)
		h := newKeyed(tree)
		first, again, other := c.first(h), c.again(h), c.other(h)
		if first.Code != 200 || first.Header().Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %s", name, first.Code, first.Body)
		}
		if again.Code != 200 || again.Body.String() != first.Body.String() || again.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s, again: %d %s", name, again.Code, again.Body)
		}
		if other.Code != http.StatusUnprocessableEntity || len(tree.jobs) != 1 {
			t.Errorf("%s, another: %d %s, put %q", name, other.Code, other.Body, tree.jobs)
		}
	}
}

// What has put nothing holds no place, whatever was asked for.
func TestIdempotencyOfRefusedFormsAndJobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the rate is by time
		tree := new(putTree)
		api := New(tree, Options{})
		api.Use(Settings{Keys: []Key{{Name: "slow", Token: "slow-0123", Role: RoleSend, Rate: 1}}})
		h := api.Network()
		post := func(more string) int {
			return send(h, "slow-0123", "POST", "/post", more, "Content-Type", "application/x-www-form-urlencoded", "Idempotency-Key", "f").Code
		}
		put := func(body string) int {
			return send(h, "slow-0123", "POST", "/v1/apps/"+topic+"/jobs", body, "Idempotency-Key", "j").Code
		}
		good := "topic=" + topic + "&title=x&token=" + goodToken
		if a, b := post("topic="+topic), put("{}"); a != 400 || b != 400 {
			t.Errorf("%d, %d", a, b)
		}
		for range maxItems + 10 { // the rest of the rate
			send(h, "slow-0123", "POST", "/v1/lint", "{}")
		}
		if a, b := post(good), put("{}"); a != 429 || b != 429 {
			t.Errorf("beyond the rate: %d, %d", a, b)
		}
		long := send(h, "slow-0123", "POST", "/post", good, "Content-Type", "application/x-www-form-urlencoded", "Idempotency-Key", strings.Repeat("k", maxKeyLen+1))
		if long.Code != 400 || !strings.HasPrefix(long.Header().Get("Content-Type"), "text/plain") || !strings.Contains(long.Body.String(), "255 bytes") {
			t.Errorf("%d %s", long.Code, long.Body)
		}
		if len(api.answers.shelves) != 0 || len(tree.jobs) != 0 {
			t.Errorf("%d clients' answers kept, put %q", len(api.answers.shelves), tree.jobs)
		}
	})
}
