package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"propeller/apnsconn/apnstest"
)

// Apps of the pictures, each in another state.
const (
	shop  = "com.example.shop"  // busy
	news  = "com.example.news"  // now and then; its certificate expires soon
	chat  = "com.example.chat"  // broken
	games = "com.example.games" // paused
)

// looks are the ways in which each page is looked at.
var looks = []struct { // never written to
	name   string
	width  int64 // CSS pixels
	scheme string
}{
	{"light", 1280, "light"},
	{"dark", 1280, "dark"},
	{"phone", 390, "light"},
}

// Every page can be read as light, as dark, and on a phone: nothing is wider than
// the screen, every text stands out from what is behind it, every field has a
// label. With SCREENSHOTS in the environment, a folder, pictures are written there,
// after enough traffic for the charts.
func TestPageLooks(t *testing.T) {
	s := newScene(t)
	b := newTab(t, s.url)
	dir, traffic := os.Getenv("SCREENSHOTS"), 2*time.Second
	if dir != "" {
		traffic = 100 * time.Second
	}
	b.look("login", "/login", dir, func() { b.waitFor("#key") })
	b.signIn("admin-0123")
	s.busy(traffic, func() {
		b.look("overview", "/", dir, func() { b.says(row(shop, "state"), "running") })
		b.look("app", "/apps/"+shop, dir, func() { b.says("#failures", "Unregistered") })
	})
	b.look("broken", "/apps/"+chat, dir, func() { b.says(row(chat, "why"), "BadCertificate") })
	b.look("buried", "/apps/"+shop+"/buried", dir, func() {
		b.click(".job .show")
		b.says("main", "title")
	})
	b.look("send", "/send?app="+news, dir, func() {
		b.fill("[name=token]", token(7))
		b.fill("[name=title]", "Hello")
		b.fill("[name=body]", "from the form")
		b.click("#preview")
		b.says("main", "apns-topic")
		b.click("#send")
		b.says("#outcome", "delivered")
	})
}

// scene is a site as the pictures show it.
type scene struct{ *webSite }

func newScene(t *testing.T) scene {
	t.Helper()
	refuse := func(r *apnstest.Request) apnstest.Answer {
		if r.Header.Get("apns-topic") == chat {
			return apnstest.Answer{Status: 403, Reason: "BadCertificate"}
		}
		return apnstest.Answer{}
	}
	s := scene{&webSite{site: newSite(t, apnstest.Options{Script: apnstest.First(refuse, apnstest.TokenCodes), Delay: 30 * time.Millisecond})}}
	var apps strings.Builder
	for app, certificate := range map[string][]byte{
		shop: s.apns.ClientCertPEM(shop), chat: s.apns.ClientCertPEM(chat), games: s.apns.ClientCertPEM(games),
		news: s.apns.ClientCertPEM(news, apnstest.ValidUntil(time.Now().Add(6*24*time.Hour+time.Hour))),
	} {
		s.write(app+".pem", string(certificate))
	}
	for _, app := range []string{shop, news, chat, games} {
		fmt.Fprintf(&apps, "  - {topic: %s, cert: %s.pem, workers: %d}\n", app, app, map[string]int{shop: 3}[app]+1)
	}
	s.write("propeller.yaml", "state_dir: state\nqueue: "+s.bs.URL()+"\nhttp: {listen: '127.0.0.1:0', auth_token: admin-0123}\n"+
		"defaults: {server: "+s.apns.URL+", ca_file: ca.pem}\napps:\n"+apps.String())
	s.start()
	if status, text := s.ask("admin-0123", "POST", "/v1/apps/"+games+"/pause", ""); status != 200 {
		t.Fatal(text)
	}
	for i, to := range []string{failing(1, 413), failing(2, 413), failing(3, 404), failing(4, 410), failing(5, 410)} {
		s.put(shop, to, fmt.Sprintf(`"title": "Order %d is on its way", "ref": "order-%d"`, 4700+i, 4700+i))
	}
	s.put(games, token(1), `"title": "Your turn"`)
	s.put(news, token(1), `"title": "Tomorrow", "delay": 3600`)
	for i := range 40 {
		s.put(chat, token(i), `"title": "Hi"`)
	}
	until(t, "three are buried", func() bool { return s.buried() == 3 })
	return s
}

func (s scene) put(app, token, rest string) {
	s.t.Helper()
	if status, text := s.ask("admin-0123", "POST", "/v1/notifications", fmt.Sprintf(`{"topic": %q, "token": %q, %s}`, app, token, rest)); status != 202 {
		s.t.Fatal(text)
	}
}

// busy puts pushes for a while, in waves, then does what there is to be done, and
// goes on meanwhile.
func (s scene) busy(d time.Duration, do func()) {
	s.t.Helper()
	const each = 100 * time.Millisecond
	end := make(chan struct{})
	var putting sync.WaitGroup
	putting.Go(func() {
		tick := time.NewTicker(each)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			at := (time.Duration(i) * each).Seconds()
			n := int(30 + 18*math.Sin(at/7) + 9*math.Sin(at*1.3)) // a tick
			items := make([]string, n, n+1)
			for k := range items {
				items[k] = fmt.Sprintf(`{"topic": %q, "token": %q, "title": "Sale"}`, shop, token(i*100+k))
			}
			if i%8 == 0 {
				items = append(items, fmt.Sprintf(`{"topic": %q, "token": %q, "title": "News"}`, news, token(i)))
			}
			s.ask("admin-0123", "POST", "/v1/notifications", "["+strings.Join(items, ",")+"]")
		}
	})
	defer putting.Wait()
	defer close(end)
	time.Sleep(d) // what the charts show is of this time
	do()
}

// look shows a page in each way, checks what anybody can see, and keeps a picture.
func (b *tab) look(name, path, dir string, ready func()) {
	b.t.Helper()
	for _, l := range looks {
		scheme := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}},
			})
			return err
		})
		b.do("look", chromedp.EmulateViewport(l.width, 300), scheme)
		b.open(path)
		ready()
		b.until("the page is live, if it can be", func() bool { return b.count("[data-live=off]") == 0 && b.count(".chart polyline:not([points])") == 0 })
		at := name + "-" + l.name
		if wide, ok := eval[int64](b, "document.documentElement.scrollWidth"); !ok || wide > l.width {
			b.t.Errorf("%s is %d px wide", at, wide)
		}
		for _, fault := range b.faults() {
			b.t.Errorf("%s: %s", at, fault)
		}
		if dir == "" {
			continue
		}
		picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, at+".png"), picture, 0o644)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// faults lists what of the page cannot be read or has no name: WCAG 2.2, success
// criteria 1.4.3 (contrast of 4.5, large text 3), 1.1.1, 3.3.2 and 4.1.2.
func (b *tab) faults() []string {
	b.t.Helper()
	text, err := os.ReadFile("testdata/faults.js")
	if err != nil {
		b.t.Fatal(err)
	}
	found, ok := eval[[]string](b, string(text))
	if !ok {
		b.t.Fatal("testdata/faults.js does not work")
	}
	return found
}
