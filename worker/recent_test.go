package worker

import (
	"strings"
	"testing"
	"time"

	"propeller/apnsconn"
)

// What went wrong stays to be seen when very many deliveries follow; of a token
// no more than its first characters.
func TestRecent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const refused = 60
		q := newFakeQueue()
		b := newBench(t, q)
		recent := new(Recent)
		b.cfg.Sinks = []Sink{recent}
		n := 0
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if n++; n <= refused {
				return apnsconn.Outcome{Class: apnsconn.Rejected, Status: 400, Reason: "BadTopic" + strings.Repeat("x", 300)}, 30 * time.Millisecond
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200, APNsID: "A"}, 30 * time.Millisecond
		}
		b.cfg.InFlight = 1
		for range refused + 100 {
			q.add(jobText(""))
		}
		b.start()
		time.Sleep(time.Minute)
		b.halt(t)
		all, failures := recent.Last()
		if at := recent.Active(); at.IsZero() || at != all[0].At {
			t.Errorf("active at %v", at)
		}
		if len(all) != maxRecent || len(failures) != maxRecent {
			t.Fatalf("%d and %d failures", len(all), len(failures))
		}
		for i := range maxRecent {
			if e := all[i]; e.Class != apnsconn.Delivered || e.Status != 200 || e.APNsID != "A" || e.Took != 30*time.Millisecond || e.Detail() != "" || e.Token != testToken[:8] {
				t.Errorf("%+v", e)
			}
			if e := failures[i]; e.Class != apnsconn.Rejected || e.Status != 400 || !strings.HasPrefix(e.Detail(), "400 BadTopicx") || len(e.Detail()) > maxShown || e.p != nil || e.t != nil {
				t.Errorf("%+v", e)
			}
			if i > 0 && (all[i].At.After(all[i-1].At) || failures[i].At.After(failures[i-1].At)) {
				t.Error("not the latest first")
			}
		}
	})
}

// A worker says what its connection is, and how APNs ended the one before.
func TestLinkView(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, newFakeQueue(jobText("")))
		b.start()
		time.Sleep(time.Minute)
		l := b.Status().Link
		if l.Since.IsZero() || time.Since(l.Since) < 59*time.Second || !l.GoAway.At.IsZero() {
			t.Errorf("%+v", l)
		}
		b.conns[0].end(&apnsconn.GoAwayError{Reason: "Shutdown"})
		time.Sleep(time.Minute)
		if l := b.Status().Link; !l.Since.IsZero() || l.GoAway.Reason != "Shutdown" || time.Since(l.GoAway.At) != time.Minute {
			t.Errorf("%+v", l)
		}
		b.halt(t)
	})
}

// Of very many deliveries only some are noted.
func TestRecentOfMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		recent := new(Recent)
		b.cfg.Sinks = []Sink{recent}
		for range 10_000 {
			q.add(jobText(""))
		}
		b.start()
		time.Sleep(time.Minute)
		b.halt(t)
		all, _ := recent.Last()
		took := all[0].At.Sub(all[len(all)-1].At)
		if most := recentBurst + int(took/recentEvery) + 1; len(all) > most || len(all) < recentBurst {
			t.Errorf("%d noted within %v", len(all), took)
		}
	})
}
