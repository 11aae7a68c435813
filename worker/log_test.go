package worker

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// A list's failures do not flood the log: the first ones have lines, all others one
// line together, unless log.pushes or the level asks for every one.
func TestLinesOfAListAreBounded(t *testing.T) {
	const n = 1000
	unavailable := apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "ServiceUnavailable"}
	for name, tt := range map[string]struct {
		pushes string
		level  slog.Level
		lines  int
	}{
		"usual": {"failures", slog.LevelInfo, listLines},
		"debug": {"failures", slog.LevelDebug, n},
		"all":   {"all", slog.LevelInfo, n},
		"none":  {"none", slog.LevelInfo, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tokens := manyTokens(n)
				q := newFakeQueue(fanOutText(tokens, ""))
				b := newBench(t, q)
				var log bytes.Buffer
				b.cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: tt.level}))
				b.logPushes(tt.pushes)
				b.answer = func(m *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					if m.Token == tokens[n-1] {
						return badTopic, 0
					}
					return unavailable, 0
				}
				b.start()
				time.Sleep(time.Second)
				synctest.Wait()
				b.halt(t)
				text := log.String()
				more := strings.Count(text, `msg="more pushes of the list failed"`)
				if got := strings.Count(text, "msg=push "); got != tt.lines || (more == 1) != (tt.lines == listLines || name == "debug") || more > 1 {
					t.Errorf("%d lines, want %d, and %d about more", got, tt.lines, more)
				}
				if more == 1 && !strings.Contains(text, `pushes=980 of="979 unavailable: 503 ServiceUnavailable; 1 rejected: 400 `) {
					t.Errorf("%s", text[strings.Index(text, `msg="more`):])
				}
			})
		})
	}
}

// However many reasons there are, they are not all told apart.
func TestKindsOfFailuresAreBounded(t *testing.T) {
	var l lines
	for i := range 1000 {
		l.full(&Event{Class: apnsconn.Rejected, Status: i, Reason: "x"})
	}
	if len(l.kinds) > listKinds+1 || l.more != 1000-listLines || l.kinds["others"] != l.more-listKinds {
		t.Errorf("%d kinds, %d more", len(l.kinds), l.more)
	}
}

// A queue that serves a job again and again does not fill the log; how many lines were
// left out is told. With log.pushes all, or at level debug, every one is there.
func TestLinesOfAServedAgainJobAreBounded(t *testing.T) {
	const n = 3000
	for name, tt := range map[string]struct {
		pushes string
		level  slog.Level
		body   string
		msg    string
		lines  int
	}{
		"unfit":         {"failures", slog.LevelInfo, "{}", "job buried", 200},
		"none":          {"none", slog.LevelInfo, "{}", "job buried", 200},
		"unfit, all":    {"all", slog.LevelInfo, "{}", "job buried", n},
		"unfit, debug":  {"failures", slog.LevelDebug, "{}", "job buried", n},
		"expired":       {"failures", slog.LevelInfo, jobText(`,"expiration":1`), "expired, not sent", 200},
		"perhaps again": {"failures", slog.LevelInfo, jobText(""), "job may have been finished before: it may have been pushed twice", 200},
		"refused":       {"failures", slog.LevelInfo, jobText(`,"id":"x"`), "job buried", 200},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue()
				for range n {
					q.add(tt.body).repeats = true
				}
				b := newBench(t, q)
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 0
				}
				var log bytes.Buffer
				b.cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: tt.level}))
				b.logPushes(tt.pushes)
				b.start()
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				b.halt(t)
				if got := strings.Count(log.String(), fmt.Sprintf("msg=%q", tt.msg)); got != tt.lines {
					t.Errorf("%d lines, want %d", got, tt.lines)
				}
			})
		})
	}
}

// Each job that APNs refuses has its line, at whatever rate.
func TestLinesOfRefusedJobsAreAllThere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 3000
		q := newFakeQueue(slices.Repeat([]string{jobText("")}, n)...)
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return badTopic, 0 }
		var log bytes.Buffer
		b.cfg.Log = newTextLog(&log)
		b.start()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		b.halt(t)
		if got := strings.Count(log.String(), `msg="job buried"`); got != n {
			t.Errorf("%d lines of %d", got, n)
		}
	})
}

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
