package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
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
	b.says("[role=alert]", "Invalid key")
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
	for _, line := range []string{"wrong keys", "signed in", "signed out"} {
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
	link := fmt.Sprintf("document.querySelector('[data-topic=%q] a')", topic)
	if _, ok := eval[bool](b, "window.focused = "+link+", focused.focus(), true"); !ok {
		t.Fatal("no row")
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
	if kept, _ := eval[bool](b, "focused.isConnected && document.activeElement === focused && focused === "+link); !kept {
		t.Error("a row that changed lost the focus")
	}
	if same, _ := eval[bool](b, "window.notLoadedAgain === true"); !same {
		t.Error("the page was loaded again")
	}
	s.daemon.signal(syscall.SIGKILL)
	b.waitFor(`body[data-live="off"]`)
	b.do("leave", chromedp.Navigate("about:blank")) // it would go on trying
	b.expect("ERR_")
}

// Of many apps those are shown whose name or state contains a text, also while the others
// change.
func TestPageFilter(t *testing.T) {
	s := &webSite{site: newSite(t, apnstest.Options{})}
	topics := []string{topic}
	for i := range 9 {
		topics = append(topics, fmt.Sprintf("com.example.other%d", i))
		s.cert(topics[i+1])
	}
	s.configure(topics...)
	s.stateful()
	s.write("propeller.yaml", s.read("propeller.yaml")+"http: {listen: '127.0.0.1:0'}\n")
	s.start()
	b := newTab(t, s.url)
	b.open("/")
	b.live()
	if n := b.count("tr[data-topic]"); n != len(topics) {
		t.Errorf("%d apps without a filter", n)
	}
	b.fill("#filter", "OTHER3")
	b.until("one app is left", func() bool { return b.count("tr[data-topic]") == 1 })
	s.putByHand(topic, `{"token":"`+token(1)+`","title":"x"}`)
	b.until("an app that is not shown has changed", func() bool {
		delivered, _ := eval[string](b, fmt.Sprintf("document.querySelector('%s').textContent", row(topic, "delivered")))
		return delivered == "1"
	})
	if n := b.count("tr[data-topic]"); n != 1 {
		t.Errorf("%d apps are shown after a change", n)
	}
	b.fill("#filter", "running")
	b.until("the app that sends is left", func() bool { return b.count("tr[data-topic]") == 1 && b.text(row(topic, "state")) == "running" })
}

// A reload that is refused is told on every page, and by propeller status, until one
// succeeds.
func TestPageRefusedReload(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	b.signIn("reader-0123")
	if b.count("#refused") != 0 {
		t.Errorf("none was refused, and the page says %s", b.text("#refused"))
	}
	good := s.read("propeller.yaml")
	s.write("propeller.yaml", good+"nonsense: true\n")
	s.daemon.signal(syscall.SIGHUP)
	b.says("#refused", "nonsense")
	b.says("#refused", "was refused, and nothing is changed")
	if r := runProgram(t, s.dir, "", "status", "--state-dir", "state"); r.status != exitOK || !strings.Contains(r.out, "was refused") || !strings.Contains(r.out, "nonsense") {
		t.Errorf("%+v", r)
	}
	b.open("/apps/" + topic + "/buried") // which is not live
	b.says("#refused", "nonsense")
	b.open("/")
	b.says("#refused", "nonsense")
	s.write("propeller.yaml", good)
	s.daemon.signal(syscall.SIGHUP)
	b.until("nothing is said of it any more", func() bool { return b.count("#refused") == 0 && b.path() == "/" })
}

// failing is a device token that the stand-in answers with a status.
func failing(i, status int) string { return fmt.Sprintf("%056xfa17%04d", i, status) }

// An app's page shows its workers, what has ended how, and why pushes failed; its
// buttons pause the app, and have a broken one go on when its certificate is
// taken again.
func TestPageOfAnApp(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	b.signIn("admin-0123")
	b.click(row(topic, "state") + ", th a") // its name
	b.until("the app's page", func() bool { return b.path() == "/apps/"+brokenTopic || b.path() == "/apps/"+topic })
	b.open("/apps/" + topic)
	b.live()
	for i, to := range []string{token(0), failing(1, 410), failing(2, 413)} {
		s.putByHand(topic, `{"token":"`+to+`","title":"x"}`)
		until(t, "it is answered", func() bool { return s.apns.Count() == int64(i+1) })
	}
	b.says("#refusals", "Unregistered")
	b.says("#failures", "PayloadTooLarge")
	b.says("#outcomes", "delivered")
	b.says("#workers", "1")
	b.says("#refusals", "413 PayloadTooLarge")
	b.says("#refusals", "The payload is over 4096 bytes")
	if strings.Contains(b.text("#failures"), "delivered") || strings.Contains(b.text("main"), failing(1, 410)) {
		t.Errorf("failures, and whole tokens: %s", b.text("main"))
	}

	b.click("#pause")
	b.says(row(topic, "state"), "paused")
	b.says(row(topic, "why"), "paused by auth_token")
	s.putByHand(topic, `{"token":"`+token(3)+`","title":"x"}`)
	b.says(row(topic, "ready"), "1")
	if n := s.apns.Count(); n != 3 {
		t.Errorf("%d pushes of a paused app", n-3)
	}
	b.click("#resume")
	b.says(row(topic, "delivered"), "2")
	const pushes = "#outcomes tbody tr"
	for i := range 10 {
		s.putByHand(topic, `{"token":"`+token(10+i)+`","title":"x"}`)
	}
	b.click("[aria-controls=outcomes]")
	b.until("all pushes are shown", func() bool { return b.count(pushes) == 14 })
	b.click("[aria-controls=outcomes]")
	b.until("ten pushes are shown", func() bool { return b.count(pushes) == 10 })

	s.putByHand(brokenTopic, `{"token":"`+token(1)+`","title":"x"}`)
	b.open("/apps/" + brokenTopic)
	b.live()
	b.says(row(brokenTopic, "state"), "broken")
	b.says(row(brokenTopic, "why"), "BadCertificate")
	b.says(row(brokenTopic, "help"), "renew it")
	s.apns.SetScript(nil)
	b.click("#resume")
	b.says(row(brokenTopic, "delivered"), "1")
	b.says(row(brokenTopic, "state"), "running")
	for _, line := range []string{"app paused", "app resumed"} {
		s.daemon.says(line)
	}
}

// A push of the form is previewed, sent, and its outcome told as it comes.
func TestPageSends(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	b.signIn("sender-0123")
	b.click(`a[href$="/send"]`)
	b.waitFor("#send")
	b.choose("[name=app]", otherTopic)
	b.fill("[name=token]", token(1))
	b.fill("[name=title]", "Grüße & <b>more</b>")
	b.fill("[name=body]", "there")
	b.fill("[name=badge]", "many")
	b.click("#preview")
	b.says("main", "badge:")
	b.fill("[name=badge]", "3")
	b.click("#preview")
	b.says("main", "apns-topic")
	if s.apns.Count() != 0 {
		t.Error("a preview was sent")
	}
	b.click("#send")
	b.says("#outcome", "delivered")
	sent := s.apns.Requests()[0]
	const want = `{"aps":{"alert":{"title":"Grüße & <b>more</b>","body":"there"},"badge":3}}`
	if got := sent.Header.Get("apns-topic"); got != otherTopic || sent.Token != token(1) || string(sent.Body) != want {
		t.Errorf("%s to %s: %s", got, sent.Token, sent.Body)
	}
	for status, state := range map[int]string{410: "refused", 413: "buried"} {
		b.fill("[name=token]", failing(1, status))
		b.click("#send")
		b.says("#outcome", state)
	}
	b.fill("[name=token]", token(2))
	b.fill("[name=delay]", "2")
	b.click("#send")
	b.says("#outcome", "delayed")
	b.says("#outcome", "delivered")
	b.fill("[name=token]", "no token")
	b.click("#send")
	b.says("#outcome", "token")
	b.expect("400")
	s.daemon.says("key=sender")
}

// fill takes places for a stream of events until there is none left, and returns
// what gives one back; nil if there was none.
func (s *webSite) fill(b *tab, path string) (leave func()) {
	s.t.Helper()
	cookies, err := chromedp.Run(b.ctx, func(ctx context.Context, t *chromedp.Target) (string, error) {
		got, err := cdp.Call(ctx, t, network.GetCookies, network.GetCookiesParams{})
		if err != nil || len(got.Cookies) != 1 {
			return "", fmt.Errorf("%d cookies: %w", len(got.Cookies), err)
		}
		return got.Cookies[0].Name + "=" + got.Cookies[0].Value, nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	tr := new(http.Transport)
	s.t.Cleanup(tr.CloseIdleConnections)
	for {
		r, err := http.NewRequest("GET", s.url+path, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		r.Header.Set("Cookie", cookies)
		resp, err := tr.RoundTrip(r)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { resp.Body.Close() })
		switch resp.StatusCode {
		case http.StatusServiceUnavailable:
			return leave
		case http.StatusOK:
			leave = func() { resp.Body.Close() }
		default:
			s.t.Fatal(resp.Status)
		}
	}
}

// Without a place to be told as it happens, a page says so, is not loaded again and
// again, and is live once there is one; and a push of the form shows its id at once
// and then its outcome.
func TestPageWithoutPlaces(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	b.signIn("sender-0123")
	b.open("/send")
	b.waitFor("#send") // this page is not live
	leave := s.fill(b, "/events")
	b.open("/")
	if _, ok := eval[bool](b, "window.notLoadedAgain = true"); !ok {
		t.Fatal("no page")
	}
	b.says("#stale", "too many streams and live pages")
	leave()
	b.live()
	if b.count("#stale") != 0 {
		t.Errorf("a page that is live says %s", b.text("#stale"))
	}
	if same, _ := eval[bool](b, "window.notLoadedAgain === true"); !same {
		t.Error("the page was loaded again")
	}

	b.open("/send")
	b.waitFor("#send")
	until(t, "what the page before had is taken", func() bool { return s.fill(b, "/events") != nil })
	b.choose("[name=app]", otherTopic)
	b.fill("[name=token]", token(2))
	b.fill("[name=delay]", "2")
	b.click("#send")
	b.says("#outcome", "job")
	b.says("#outcome", "not live")
	b.says("#outcome", "delivered")
	b.expect("503")
}

// A push to an app that is broken says so, and no time that has passed.
func TestPageSendsToABrokenApp(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	b.signIn("sender-0123")
	b.sendFromForm(brokenTopic, token(1))
	b.says("#outcome", "the app is broken: 403 BadCertificate")
	b.says("#outcome", "one job a minute is tried")
	if text := b.text("#outcome"); strings.Contains(text, "not before") {
		t.Errorf("%s", text)
	}
	s.daemon.says("key=sender")
}

// Buried jobs are grouped by reason; one, some, or a group of them are sent again
// or deleted, and a job's text is shown to who asks for it.
func TestPageBuried(t *testing.T) {
	s, b := newPageSite(t, pageKeys)
	var ids []string
	for i, status := range []int{413, 413, 413, 413, 404, 404, 404} {
		ids = append(ids, s.putByHand(topic, fmt.Sprintf(`{"token":"%s","title":"secret %d"}`, failing(i, status), i+1)))
		until(t, "it is buried", func() bool { return s.buried() == i+1 })
	}
	b.signIn("admin-0123")
	b.says(row(topic, "buried"), "7")
	b.open("/apps/" + topic + "/buried")
	job := func(n int) string { return fmt.Sprintf(".job[data-id=%q] ", ids[n-1]) }
	group := func(reason string) string { return fmt.Sprintf(".group[data-reason*=%q] ", reason) }
	left := func(large, bad int) {
		t.Helper()
		b.until(fmt.Sprintf("%d and %d are left", large, bad), func() bool {
			return b.count(group("PayloadTooLarge")+".job") == large && b.count(group("BadPath")+".job") == bad
		})
	}
	left(4, 3)
	if text := b.text("main"); strings.Contains(text, "secret") || strings.Contains(text, failing(0, 413)) {
		t.Errorf("a payload or a whole token is shown: %s", text)
	}
	b.click(job(1) + ".show")
	b.says("main", "secret 1")
	b.click(job(1) + ".kick") // and is refused again
	b.waitFor(".notice")
	until(t, "it is sent again", func() bool { return s.apns.Count() == 8 })
	until(t, "it is buried again", func() bool { return s.buried() == 7 })
	s.apns.SetScript(nil)
	b.open("/apps/" + topic + "/buried")
	b.click(job(1) + ".kick")
	left(3, 3)
	b.click(job(2) + "[name=ids]")
	b.click(job(6) + "[name=ids]")
	b.click("#kick-selected")
	left(2, 2)
	b.click(group("PayloadTooLarge") + ".kick-reason")
	left(0, 2)
	until(t, "what was kicked arrives", func() bool { return s.apns.Count() == 13 })
	sure := func(button string) { b.click(button); b.click(button) } // it asks again
	sure(job(5) + ".delete")
	left(0, 1)
	sure(group("BadPath") + ".delete-reason")
	left(0, 0)
	if n := s.buried(); n != 0 {
		t.Errorf("%d are still buried", n)
	}
	if n := s.apns.Count(); n != 13 {
		t.Errorf("%d pushes of jobs that were deleted", n-13)
	}
	for _, line := range []string{"buried jobs kicked", "buried jobs deleted"} {
		s.daemon.says(line)
	}
}
