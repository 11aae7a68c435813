package main

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// A key sees what its role and its apps allow, and the server refuses what the
// page does not offer.
func TestPageRoles(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	s.putByHand(topic, `{"token":"`+failing(1, 413)+`","title":"x"}`)
	until(t, "a job is buried", func() bool { return s.buried() == 1 })

	b.signIn("reader-0123")
	if n := b.count(`nav a[href$="/send"]`); n != 0 {
		t.Error("a reader is offered to send")
	}
	for _, path := range []string{"/", "/apps/" + topic, "/apps/" + topic + "/buried"} {
		b.open(path)
		b.waitFor("h1")
		if n := b.count("#main button, #main input, #main .button"); n != 0 {
			t.Errorf("%s has %d buttons or fields for a reader", path, n)
		}
	}
	b.open("/apps/" + topic + "/buried")
	b.waitFor(".job")
	b.open("/send")
	b.says("[role=alert]", "role")
	for _, path := range []string{"/send", "/send/preview", "/apps/" + topic + "/pause", "/apps/" + topic + "/resume", "/apps/" + topic + "/buried/kick", "/apps/" + topic + "/buried/delete"} {
		if status := b.post(path); status != 403 {
			t.Errorf("a reader's POST %s: %d", path, status)
		}
	}
	b.expect("403")
	b.click("#signout button")
	b.waitFor("#key")

	b.signIn("guest-0123")
	if n := b.count("[data-topic]"); n != 1 || b.text(row(otherTopic, "state")) == "" {
		t.Errorf("a key for one app sees %d", n)
	}
	for _, path := range []string{"/apps/" + topic, "/apps/" + topic + "/buried"} {
		b.open(path)
		b.says("[role=alert]", "other apps")
	}
	b.open("/send")
	b.waitFor("[name=app]")
	if options := b.text("[name=app]"); strings.Contains(options, topic) {
		t.Errorf("a key for one app may choose of %s", options)
	}
	if status := b.post("/apps/" + topic + "/pause"); status != 403 {
		t.Errorf("a guest's pause: %d", status)
	}
	b.expect("403")
	if _, text := s.ask("admin-0123", "GET", "/v1/apps/"+topic, ""); strings.Contains(text, `"held":true`) || s.buried() != 1 {
		t.Errorf("something was done: %s", text)
	}
}

// post has a script of the page that is shown post an empty form, and returns the
// answer's status.
func (b *tab) post(path string) int {
	b.t.Helper()
	request := fmt.Sprintf(`fetch(%q, {method: "POST", body: new URLSearchParams(), headers: {Accept: "application/json"}}).then(r => r.status)`, path)
	status, err := chromedp.Run(b.ctx, chromedp.Evaluate[int](request, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return status
}

// evil is a site of somebody else on this machine, whose page submits a form to
// the daemon at once, or shows the daemon in a frame.
func evil(t *testing.T, target string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><h1>evil</h1>`)
		if r.URL.Path == "/frame" {
			fmt.Fprintf(w, `<iframe src="%s/"></iframe>`, html.EscapeString(target))
			return
		}
		fmt.Fprintf(w, `<form method="post" action="%s%s"></form><script>document.forms[0].submit()</script>`,
			html.EscapeString(target), html.EscapeString(r.URL.Path))
	}))
	t.Cleanup(s.Close)
	return s
}

// Nobody but the page itself acts for who has signed in, and no other site. The second way to write this machine's name makes it another site to the
// browser, which then keeps the cookie back; the first does not.
func TestPageRefusesOthers(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	b.signIn("admin-0123")
	b.open("/apps/" + topic)
	b.live()
	held := func() bool {
		_, text := s.ask("admin-0123", "GET", "/v1/apps/"+topic, "")
		return strings.Contains(text, `"held":true`)
	}
	site := evil(t, s.url)
	for _, from := range []string{site.URL, strings.Replace(site.URL, "127.0.0.1", "localhost", 1)} {
		b.do("an evil page", chromedp.Navigate(from+"/apps/"+topic+"/pause"))
		b.waitFor("[role=alert]") // of the daemon
		b.expect("40")            // 403, or without the cookie 401
		b.do("an evil page", chromedp.Navigate(from+"/frame"))
		b.says("h1", "evil")
		b.expect("frame")
	}
	if held() {
		t.Error("the app was paused")
	}
	b.open("/apps/" + topic)
	if status := b.post("/apps/" + topic + "/pause"); status != 200 || !held() {
		t.Errorf("with everything right: %d", status)
	}
}

// The page works by plain HTTP to a name that is not this machine's own, where a
// browser says nothing of a request's site but its origin.
func TestPageByPlainHTTP(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	as := func(url, name string) string { return strings.Replace(url, "127.0.0.1", name, 1) }
	b.base = as(s.url, "propeller.corp.example")
	b.signIn("admin-0123")
	b.open("/apps/" + topic)
	b.click("#pause")
	b.says(row(topic, "state"), "paused")
	// For the browser of the same site, so that it sends the cookie along.
	site := evil(t, b.base)
	b.do("an evil page", chromedp.Navigate(as(site.URL, "evil.corp.example")+"/apps/"+topic+"/resume"))
	b.says("[role=alert]", "did not come from the page itself")
	b.expect("403")
	if _, text := s.ask("admin-0123", "GET", "/v1/apps/"+topic, ""); !strings.Contains(text, `"held":true`) {
		t.Error("another site has resumed the app")
	}
}

// Without keys the page opens on this machine, and no other site can use that.
func TestPageWithoutKeys(t *testing.T) {
	s, b := newPageSite(t, "")
	b.open("/")
	b.live()
	if n := b.count("#signout, #key"); n != 0 {
		t.Error("there is something to sign in or out with")
	}
	b.open("/apps/" + topic)
	site := evil(t, s.url)
	for _, from := range []string{site.URL, strings.Replace(site.URL, "127.0.0.1", "localhost", 1)} {
		b.do("an evil page", chromedp.Navigate(from+"/apps/"+topic+"/pause"))
		b.waitFor("[role=alert]")
		b.expect("403")
	}
	// A name of somebody else's that leads here, as by DNS rebinding.
	b.do("rebinding", chromedp.Navigate(strings.Replace(s.url, "127.0.0.1", "rebound.example", 1)+"/"))
	b.says("[role=alert]", "only browsers on this machine")
	b.expect("403")
	if _, text := s.ask("", "GET", "/v1/apps/"+topic, ""); strings.Contains(text, `"held":true`) {
		t.Error("the app was paused")
	}
	b.open("/apps/" + topic)
	b.click("#pause")
	b.says(row(topic, "state"), "paused")
}
