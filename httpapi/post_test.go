package httpapi

import (
	"bytes"
	"errors"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/time/rate"

	"propeller/queue"
)

var goodToken = strings.Repeat("0a", 32)

// postForm posts a form from another machine.
func postForm(h http.Handler, bearer string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/post", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// The clients of the version in Python: what they send is queued as it was, and
// they see the statuses that they know.
func TestPost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the rate is by time
		tree := new(putTree)
		api := New(tree, Options{})
		api.Use(Settings{Keys: append([]Key{{Name: "slow", Token: "slow-0123", Role: RoleSend, Rate: 1}}, testKeys...)})
		h := api.Network()
		form := func(more ...string) url.Values {
			v := url.Values{"auth_token": {"admin-0123"}, "topic": {topic}, "token": {goodToken}, "title": {"Hi & <you>"}, "body": {"é"}}
			for i := 0; i < len(more); i += 2 {
				v.Set(more[i], more[i+1])
			}
			return v
		}
		for _, c := range []struct {
			form       url.Values
			bearer     string
			status     int
			say, queue string
		}{
			{form(), "", 200, `{"token":"` + goodToken + `","title":"Hi & <you>","body":"é","badge":null}`, " 0s"},
			{form("badge", "3", "delay", "60"), "", 200, `"badge":3}`, " 1m0s"},
			{form("badge", "", "delay", "", "title", "", "body", ""), "", 200, `"title":null,"body":null,"badge":null}`, " 0s"},
			{form("auth_token", ""), "sender-0123", 200, goodToken, " 0s"},
			{form("auth_token", "x"), "", 401, "Unauthorized", ""},
			{form("auth_token", ""), "", 401, "Unauthorized", ""},
			{form("auth_token", "", "topic", ""), "", 401, "Unauthorized", ""},
			{url.Values{}, "", 401, "Unauthorized: auth_token must be in the body, as a form", ""},
			{form("auth_token", "reader-0123"), "", 401, "Unauthorized", ""},
			{form("auth_token", "other-0123"), "", 403, "topic", ""},
			{form("topic", "com.example.none"), "", 400, "topic: ", ""},
			{form("topic", ""), "", 400, "topic: ", ""},
			{form("token", ""), "", 400, "token: ", ""},
			{form("token", "xyz"), "", 400, "token: ", ""},
			{form("badge", "-1"), "", 400, "badge: ", ""},
			{form("badge", "three"), "", 400, "badge: ", ""},
			{form("delay", "-1"), "", 400, "delay: ", ""},
			{form("delay", "1.5"), "", 400, "delay: ", ""},
			{form("delay", "99999999999"), "", 400, "delay: ", ""},
			{form("title", strings.Repeat("x", 5000)), "", 400, "payload", ""},
			{form("title", strings.Repeat("x", maxForm)), "", 413, "form: ", ""},
		} {
			before := len(tree.jobs)
			w := postForm(h, c.bearer, c.form)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.say) {
				t.Errorf("%.300v: %d %s", c.form, w.Code, w.Body)
			}
			switch put := tree.jobs[before:]; {
			case c.status != 200 && len(put) > 0:
				t.Errorf("%v: put %q", c.form, put)
			case c.status == 200 && (len(put) != 1 || put[0] != strings.TrimSpace(w.Body.String())+c.queue):
				t.Errorf("%v: put %q, answered %s", c.form, put, w.Body)
			}
		}
		limited := 0
		for range maxItems + 50 {
			if w := postForm(h, "", form("auth_token", "slow-0123")); w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") != "" {
				limited++
			}
		}
		if limited != 50 {
			t.Errorf("%d of 50 too many were refused", limited)
		}
		tree.err = queue.ErrUnavailable
		if w := postForm(h, "", form()); w.Code != 503 {
			t.Errorf("%d", w.Code)
		}
		tree.err = errors.New("odd")
		if w := postForm(h, "", form()); w.Code != 500 {
			t.Errorf("%d", w.Code)
		}
	})
}

// A form with files, as curl -F sends it, is read too; without keys nobody needs
// one.
func TestPostMultipart(t *testing.T) {
	t.Parallel()
	tree := new(putTree)
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	for k, v := range map[string]string{"topic": topic, "token": goodToken, "title": "x", "auth_token": "whatever"} {
		if err := m.WriteField(k, v); err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	r := httptest.NewRequest("POST", "http://localhost/post", &body)
	r.RemoteAddr = "127.0.0.1:1"
	r.Header.Set("Content-Type", m.FormDataContentType())
	w := httptest.NewRecorder()
	New(tree, Options{}).Network().ServeHTTP(w, r)
	if w.Code != 200 || len(tree.jobs) != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Whatever is posted, what is put is a job, and only with the key.
func FuzzPost(f *testing.F) {
	f.Add("auth_token=admin-0123&topic=com.example.app&token=" + goodToken + "&badge=3&delay=4")
	f.Add("auth_token=%zz&topic;token")
	tree := new(putTree)
	api := New(tree, Options{})
	api.Use(Settings{Keys: testKeys})
	api.wrong.limit.SetLimit(rate.Inf) // there are many
	h := api.Network()
	f.Fuzz(func(t *testing.T, body string) {
		tree.jobs = nil
		r := httptest.NewRequest("POST", "/post", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code == 200 != (len(tree.jobs) == 1) || len(tree.jobs) > 0 && !strings.Contains(body, "dmin-0123") && !strings.Contains(body, "%") {
			t.Fatalf("%q: %d %s, put %q", body, w.Code, w.Body, tree.jobs)
		}
	})
}
