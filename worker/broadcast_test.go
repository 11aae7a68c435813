package worker

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"propeller/apnsconn"
)

// What APNs answers to a broadcast settles that job, and stops the app only if
// the credential itself is refused.
func TestBroadcastSettles(t *testing.T) {
	for name, tt := range map[string]struct {
		outcome      apnsconn.Outcome
		done, buried int
		broken       bool
		reason       string // of the buried job
	}{
		"delivered":      {apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 1, 0, false, ""},
		"no channel":     {apnsconn.Outcome{Class: apnsconn.Token, Status: 400, Reason: "ChannelNotRegistered"}, 1, 0, false, ""},
		"no capability":  {apnsconn.Outcome{Class: apnsconn.Credential, Status: 400, Reason: "BroadcastFeatureNotEnabled"}, 0, 1, false, "400 BroadcastFeatureNotEnabled"},
		"bad credential": {apnsconn.Outcome{Class: apnsconn.Credential, Status: 403, Reason: "InvalidProviderToken"}, 0, 0, true, ""},
		"refused by Send": {apnsconn.Outcome{Class: apnsconn.Rejected, Err: &apnsconn.FieldError{Key: "channel_id", Why: "has the character 'x'"}}, 0, 1, false,
			"rejected: apnsconn: channel_id: has the character 'x'"},
		"no reason": {apnsconn.Outcome{Class: apnsconn.Rejected, Status: 404}, 0, 1, false, "404 (no reason given)"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(`{"channel_id":"dHN0LXNyY2gtY2hubA==","payload":{"aps":{}},"ref":"7"}`)
				b := newBench(t, q)
				var log strings.Builder
				b.cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				b.logPushes("all")
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return tt.outcome, 0 }
				b.start()
				time.Sleep(time.Second)
				done, buried, _, _ := q.counts()
				if done != tt.done || buried != tt.buried {
					t.Errorf("done %d, buried %d; want %d, %d", done, buried, tt.done, tt.buried)
				}
				if broken := b.app.breaker.State().Broken; broken != tt.broken {
					t.Errorf("app broken: %v", broken)
				}
				b.halt(t)
				if tt.buried > 0 && b.rec.entries[0].Reason != tt.reason {
					t.Errorf("buried: %q, want %q", b.rec.entries[0].Reason, tt.reason)
				}
				if !strings.Contains(log.String(), " token=dHN0LXNy ") || strings.Contains(log.String(), "dHN0LXNyY") {
					t.Errorf("log:\n%s", log.String())
				}
			})
		})
	}
}

// 429 slows that broadcast's job; other channels go on.
func TestThrottledChannelSlowsItselfOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		job := func(channel string) string { return `{"channel_id":"` + channel + `","payload":{"aps":{}}}` }
		const throttled, other = "dHN0LXNyY2gtY2hubA==", "dHN0LXNyY2gtY2hubB=="
		q := newFakeQueue(job(throttled))
		b := newBench(t, q)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if n.ChannelID == throttled {
				return tooMany, 0
			}
			return delivered(n)
		}
		b.start()
		time.Sleep(time.Second)
		q.add(job(other))
		time.Sleep(time.Second)
		if done, _, retried, _ := q.counts(); done != 1 || retried != 1 {
			t.Errorf("done %d, retried %d", done, retried)
		}
		b.halt(t)
	})
}
