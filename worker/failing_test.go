package worker

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// A push that is tried again and again has a line for its first failure and one for its
// end. With log.pushes all, or at level debug, every failure is there.
func TestRepeatedFailureIsLoggedOnce(t *testing.T) {
	const tries = 8 // within the time below
	for name, tt := range map[string]struct {
		pushes string
		level  slog.Level
		body   string
		lines  int // about failures that are tried again and, for a list, the ends of its other pushes
		ends   int
	}{
		"one":       {"failures", slog.LevelInfo, jobText(""), 1, 1},
		"a list":    {"failures", slog.LevelInfo, fanOutText(manyTokens(3), ""), 5, 1},
		"debug":     {"failures", slog.LevelDebug, jobText(""), tries, 1},
		"all":       {"all", slog.LevelInfo, jobText(""), tries, 1},
		"none":      {"none", slog.LevelInfo, jobText(""), 0, 1},
		"all, list": {"all", slog.LevelInfo, fanOutText(manyTokens(3), ""), 3 * tries, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBench(t, newFakeQueue(tt.body))
				var log bytes.Buffer
				b.cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: tt.level}))
				b.logPushes(tt.pushes)
				b.cfg.Retry = Retry{Min: time.Minute, Max: time.Minute, GiveUpAfter: tries * time.Minute}
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					return apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "ServiceUnavailable"}, 0
				}
				b.start()
				time.Sleep(2 * tries * time.Minute)
				synctest.Wait()
				b.halt(t)
				text := log.String()
				lines, ends := strings.Count(text, "msg=push "), strings.Count(text, `msg="job buried"`)
				if exact := lines == tt.lines; ends != tt.ends || tt.lines < tries && !exact || lines < tt.lines/2 {
					t.Errorf("%d lines, want %d, and %d ends, want %d:\n%s", lines, tt.lines, ends, tt.ends, text)
				}
			})
		})
	}
}

// What a set of failing pushes knows is bounded, and a push that has ended is new to it.
func TestFailingIsBounded(t *testing.T) {
	var f failing
	event := func(i int) *Event {
		return &Event{App: "a", Job: fmt.Sprint(i), p: &push{n: apnsconn.Notification{Token: "t"}}}
	}
	for i := range 3 * maxFailing {
		if !f.first(event(i)) || f.first(event(i)) {
			t.Fatal(i)
		}
	}
	if len(f.new)+len(f.last) > 2*maxFailing {
		t.Errorf("%d are known", len(f.new)+len(f.last))
	}
	if last := 3*maxFailing - 1; f.first(event(last-maxFailing/2)) || !f.first(event(0)) {
		t.Error("not the oldest are forgotten")
	}
	other := event(5)
	other.p.n.Token = "u"
	f.first(event(5))
	if !f.first(other) {
		t.Error("two tokens of a list are one")
	}
	if f.end(event(5)); !f.first(event(5)) {
		t.Error("one that has ended is still known")
	}
}
