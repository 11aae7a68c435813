package worker

import (
	"bytes"
	"log/slog"
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
		pushes Pushes
		level  slog.Level
		lines  int
	}{
		"usual": {LogFailures, slog.LevelInfo, listLines},
		"debug": {LogFailures, slog.LevelDebug, n},
		"all":   {LogAll, slog.LevelInfo, n},
		"none":  {LogNone, slog.LevelInfo, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tokens := manyTokens(n)
				q := newFakeQueue(fanOutText(tokens, ""))
				b := newBench(t, q)
				var log bytes.Buffer
				b.cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: tt.level}))
				b.cfg.Live.Pushes.Store(int32(tt.pushes))
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
