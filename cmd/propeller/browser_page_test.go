package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"propeller/apnsconn/apnstest"
)

// Apps beside topic on a page's site: one like it, and one whose certificate
// APNs refuses.
const (
	otherTopic  = "com.example.other"
	brokenTopic = "com.example.broken"
)

// pageKeys are the keys of a page's site.
const pageKeys = `, auth_token: admin-0123, keys: [
  {name: reader, token: reader-0123, role: read},
  {name: sender, token: sender-0123, role: send},
  {name: guest, token: guest-0123, role: admin, topics: [` + otherTopic + `]}]`

// newPageSite is a daemon with three apps and its page in a browser. A token
// that ends in fa17 and a status is answered with it.
func newPageSite(t *testing.T, keys string) (*webSite, *tab) {
	t.Helper()
	broken := func(r *apnstest.Request) apnstest.Answer {
		if r.Header.Get("apns-topic") == brokenTopic {
			return apnstest.Answer{Status: 403, Reason: "BadCertificate"}
		}
		return apnstest.Answer{}
	}
	s := &webSite{site: newSite(t, apnstest.Options{Script: apnstest.First(broken, apnstest.TokenCodes)})}
	s.cert(otherTopic)
	s.cert(brokenTopic)
	s.configure(topic, otherTopic, brokenTopic)
	s.stateful()
	s.write("propeller.yaml", s.read("propeller.yaml")+"http: {listen: '127.0.0.1:0'"+keys+"}\n")
	s.start()
	return s, newTab(t, s.url)
}

// signIn signs in with a key, and waits for the page to be live.
func (b *tab) signIn(key string) {
	b.t.Helper()
	b.open("/login")
	b.fill("#key", key)
	b.click("#signin")
	b.live()
}

func (b *tab) live() {
	b.t.Helper()
	b.waitFor(`body[data-live="on"]`)
}

func row(topic, class string) string { return fmt.Sprintf("[data-topic=%q] .%s", topic, class) }

// One signs in by the keyboard alone. A wrong key is told apart from none that is
// right, and no script can read the cookie.
func TestPageSignIn(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	b.open("/")
	b.until("who has not signed in is asked to", func() bool { return b.path() == "/login" })
	b.keys("wrong-key" + kb.Enter)
	b.says("[role=alert]", "none of the daemon's keys")
	b.expect("401")
	b.keys("admin-0123" + kb.Enter)
	b.live()
	if n := b.count("[data-topic]"); b.path() != "/" || n != 3 {
		t.Errorf("%s shows %d apps", b.path(), n)
	}
	if cookies, ok := eval[string](b, "document.cookie"); !ok || cookies != "" {
		t.Errorf("a script reads the cookie %q", cookies)
	}
	// The first stop of the keyboard jumps over the header.
	b.keys(kb.Tab)
	if href, _ := eval[string](b, "document.activeElement.getAttribute('href')"); href != "#main" {
		t.Errorf("the first Tab leads to %q", href)
	}
	b.click("#signout button")
	b.waitFor("#key")
	b.open("/")
	b.until("who has signed out is asked again", func() bool { return b.path() == "/login" })
	for _, line := range []string{"sign-in refused", "signed in", "signed out"} {
		s.daemon.says(line)
	}
	if strings.Contains(s.daemon.log(), "-0123") || strings.Contains(s.daemon.log(), "wrong-key") {
		t.Error("a key is in the log")
	}
}

// What the page shows changes by itself, without its being loaded again: a push
// delivered, and an app that APNs refuses, with the reason.
func TestPageIsLive(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	b.signIn("reader-0123")
	b.says(row(topic, "delivered"), "0")
	if _, ok := eval[bool](b, "window.notLoadedAgain = true"); !ok {
		t.Fatal("no page")
	}
	for i := range 3 {
		s.putByHand(topic, `{"token":"`+token(i+1)+`","title":"x"}`)
	}
	b.says(row(topic, "delivered"), "3")
	b.says(row(topic, "state"), "running")
	s.putByHand(brokenTopic, `{"token":"`+token(1)+`","title":"x"}`)
	b.says(row(brokenTopic, "state"), "broken")
	b.says(row(brokenTopic, "why"), "BadCertificate")
	b.says(row(otherTopic, "delivered"), "0")
	b.says(row(brokenTopic, "ready"), "1") // its job is still there
	if same, _ := eval[bool](b, "window.notLoadedAgain === true"); !same {
		t.Error("the page was loaded again")
	}
	s.daemon.signal(syscall.SIGKILL)
	b.waitFor(`body[data-live="off"]`)
	b.do("leave", chromedp.Navigate("about:blank")) // it would go on trying
	b.expect("ERR_")
}
