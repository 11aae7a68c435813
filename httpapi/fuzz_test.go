package httpapi

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"golang.org/x/time/rate"
)

// fuzzed are the requests of /v1 whose body is free, besides the notifications of
// FuzzNotifications.
var fuzzed = []string{ // never written to
	"/v1/lint", "/v1/apps/" + topic + "/buried/kick", "/v1/apps/" + topic + "/buried/delete", "/v1/apps/" + topic + "/jobs",
}

// Whatever the body is, the answer is JSON and no fault of the daemon's, and one
// that refuses has done nothing.
func FuzzBodies(f *testing.F) {
	for i, body := range []string{push, choice, `{"all":true,"limit":3}`, goodJob} {
		f.Add(uint8(i), body)
		f.Add(uint8(i), body+body)
	}
	f.Add(uint8(1), `{"ids":["7","`+strings.Repeat("7", 300)+`"],"reason":"x"}`)
	tree := newTouchedTree()
	h := newKeyed(tree)
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		path := fuzzed[int(which)%len(fuzzed)]
		tree.take()
		w := send(h, "admin-0123", "POST", path, body)
		if done := changes(tree); w.Code >= 500 || !json.Valid(w.Body.Bytes()) || w.Code >= 400 && len(done) > 0 {
			t.Fatalf("%s: %d %s, done %q", path, w.Code, w.Body, done)
		}
	})
}

// Whatever a form holds, nothing is done unless the page itself sends it, and nothing
// that the answer denies.
func FuzzForms(f *testing.F) {
	f.Add("/send", form, true)
	f.Add("/send/preview", form+"&badge=x&delay=-1", true)
	f.Add("/apps/"+topic+"/buried/kick", "ids=7&ids=8&reason=x", true)
	f.Add("/apps/"+topic+"/pause", "", false)
	f.Add("/login", "key=admin-0123&next=//x", false)
	tree := newTouchedTree()
	api := New(tree, Options{Outcomes: new(Outcomes)})
	api.Use(Settings{Keys: testKeys})
	api.wrong.limit.SetLimit(rate.Inf) // there are many
	h := api.Network()
	session := newGuest(f, h).signIn("admin-0123")
	paths := map[string]bool{"/send": true, "/send/preview": true, "/login": true}
	for _, action := range []string{"/pause", "/resume", "/buried/kick", "/buried/delete"} {
		paths["/apps/"+topic+action] = true
	}
	f.Fuzz(func(t *testing.T, path, body string, own bool) {
		if !paths[path] {
			return
		}
		session.headers["Sec-Fetch-Site"] = "cross-site"
		if own {
			session.headers["Sec-Fetch-Site"] = "same-origin"
		}
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		tree.take()
		w := session.do(r)
		done := changes(tree)
		if w.Code >= 500 || len(done) > 0 && (!own || w.Code >= 400) {
			t.Fatalf("%s: %d %s, done %q", path, w.Code, w.Body, done)
		}
		if to := w.Header().Get("Location"); to != "" && (!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//")) {
			t.Fatalf("%s leads to %q", path, to)
		}
	})
}

// changes are what has been done, but for looking.
func changes(tree *touchedTree) []string {
	return slices.DeleteFunc(tree.take(), func(what string) bool { return what == "peek" })
}
