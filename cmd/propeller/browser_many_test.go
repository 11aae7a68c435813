package main

import (
	"fmt"
	"testing"

	"propeller/apnsconn/apnstest"
)

// Of very many apps the page shows some; one that breaks comes to the top by itself, and the
// others are found by name.
func TestPageOfManyApps(t *testing.T) {
	broken := func(r *apnstest.Request) apnstest.Answer {
		if r.Header.Get("apns-topic") == brokenTopic {
			return apnstest.Answer{Status: 403, Reason: "BadCertificate"}
		}
		return apnstest.Answer{}
	}
	s := &webSite{site: newSite(t, apnstest.Options{Script: broken})}
	s.cert(brokenTopic)
	s.configure(brokenTopic)
	text := s.read("propeller.yaml")
	for i := range 210 {
		text += fmt.Sprintf("  - {name: app%03d, topic: %s, cert: %s.pem}\n", i, topic, topic)
	}
	s.write("propeller.yaml", text)
	s.stateful()
	s.write("propeller.yaml", s.read("propeller.yaml")+"http: {listen: '127.0.0.1:0'}\n")
	s.start()
	b := newTab(t, s.url)
	b.open("/")
	b.live()
	if n := b.count("tr[data-app]"); n != 200 || b.count(row(brokenTopic, "state")) != 0 {
		t.Errorf("%d apps are shown", n)
	}
	b.says("#more", "11 more apps")
	b.says(`[data-app="app007"] .buried`, "0") // though it sleeps
	if _, ok := eval[bool](b, "window.notLoadedAgain = true"); !ok {
		t.Fatal("no page")
	}
	s.putByHand(brokenTopic, `{"token":"`+token(1)+`","title":"x"}`)
	b.says("tr[data-app]:first-child .state", "broken")
	b.says("#totals", "1 app in trouble")
	if n := b.count("tr[data-app]"); n != 200 || b.count(row(brokenTopic, "state")) != 1 {
		t.Errorf("%d apps are shown after one moved", n)
	}
	if same, _ := eval[bool](b, "window.notLoadedAgain === true"); !same {
		t.Error("the page was loaded again")
	}
	b.fill("#find input", "APP20")
	b.click("#find button")
	b.until("the apps found are shown", func() bool { return b.count("tr[data-app]") == 10 })
	b.live()
	s.putByHand("app205", `{"token":"`+token(2)+`","title":"x"}`)
	b.says(`[data-app="app205"] .delivered`, "1")
	b.says(`[data-app="app204"] .state`, "asleep")
	b.open("/apps/app204")
	b.live()
	b.says("#workers", "asleep until there is a job")
	b.open("/send?app=app203")
	b.fill("#token", token(3))
	b.fill("#title", "Hi")
	b.click("#send")
	b.says("#outcome", "delivered")
	b.open("/?page=2")
	b.live()
	b.says("#more", "201–211 of 211 apps")
	b.click("#more [rel=prev]")
	b.says("#more", "1–200 of 211 apps")
}
