package worker

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"propeller/apnsconn"
)

var (
	wrongEnv    = apnsconn.Outcome{Class: apnsconn.Token, Status: 400, Reason: "BadDeviceToken"}
	notForTopic = apnsconn.Outcome{Class: apnsconn.Token, Status: 400, Reason: "DeviceTokenNotForTopic"}
)

// An app whose tokens are all refused is paused after 20 answers: no token is
// reported, one job is tried a minute, and a good answer lets it go on.
func TestWrongEnvironment(t *testing.T) {
	tokens := manyTokens(60)
	singles := make([]string, len(tokens))
	for i, token := range tokens {
		singles[i] = `{"token":"` + token + `","title":"t"}`
	}
	for name, jobs := range map[string][]string{
		"singles": singles, "fan-out": {fanOutText(tokens[:30], ""), fanOutText(tokens[30:], "")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(jobs...)
				b := newBench(t, q)
				b.cfg.InFlight = 7
				var right atomic.Bool
				b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					if right.Load() {
						return delivered(n)
					}
					return wrongEnv, 10 * time.Millisecond
				}
				b.start()
				time.Sleep(10 * time.Second)
				s := b.cfg.Breaker.State()
				if !s.Paused || s.Broken || !strings.HasPrefix(s.Reason, "wrong environment or topic?: ") {
					t.Errorf("%+v", s)
				}
				atFirst := len(b.pushesTo())
				if atFirst < guardFirst || atFirst > guardFirst+8 { // 7 in flight, and a slot is free before the guard knows
					t.Errorf("paused after %d tokens", atFirst)
				}
				time.Sleep(30 * time.Minute)
				probed, most := 0, 0
				for _, n := range b.pushesTo() {
					probed += n
					most = max(most, n)
				}
				probed -= atFirst
				least, atMost := 25, 31
				if len(jobs) < 5 { // each stays away for probePause
					least, atMost = 10, 13
				}
				if probed < least || probed > atMost || most > 8 {
					t.Errorf("%d probes in 30 minutes, %d with one token", probed, most)
				}
				if done, buried, _, _ := q.counts(); done+buried+len(b.rec.all()) != 0 || b.cfg.Memory.Len() != 0 {
					t.Errorf("done %d, buried %d, records %+v, %d remembered", done, buried, b.rec.all(), b.cfg.Memory.Len())
				}
				if n := b.cfg.Counters.Ended(apnsconn.Token); n != 0 {
					t.Errorf("%d tokens counted as dead", n)
				}
				if held := b.Status(); held.Held != 0 || held.Guarded != 0 {
					t.Errorf("%+v", held)
				}
				right.Store(true)
				time.Sleep(10 * time.Minute)
				if s := b.cfg.Breaker.State(); s != (BreakerState{}) {
					t.Errorf("%+v after the environment was put right", s)
				}
				if done, _, _, ready := q.counts(); done != len(jobs)+len(q.puts) || ready != 0 {
					t.Errorf("done %d, put %d, ready %d", done, len(q.puts), ready)
				}
				if n := b.cfg.Counters.Ended(apnsconn.Delivered); n != 60 {
					t.Errorf("%d of 60 delivered", n)
				}
				b.halt(t)
			})
		})
	}
}

// Most of the last 200: an app that worked is paused too; what was refused while
// it worked is reported, nothing of the run that paused it.
func TestEnvironmentTurnsWrong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(400)
		q := newFakeQueue()
		for _, token := range tokens {
			q.add(`{"token":"` + token + `","title":"t"}`)
		}
		b := newBench(t, q)
		b.cfg.InFlight = 1 // one answer after the other
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if i := slices.Index(tokens, n.Token); i == 50 || i >= 200 {
				return wrongEnv, time.Millisecond
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Millisecond
		}
		b.start()
		time.Sleep(30 * time.Second)
		if s := b.cfg.Breaker.State(); !s.Paused || len(b.pushesTo()) > 310 {
			t.Errorf("%+v after %d tokens", s, len(b.pushesTo()))
		}
		if rec := b.rec.all(); len(rec) != 1 || rec[0].Token != tokens[50] {
			t.Errorf("records %+v", rec)
		}
		// By hand: nothing has changed, so it is paused again.
		b.cfg.Breaker.Resume()
		time.Sleep(30 * time.Second)
		if s := b.cfg.Breaker.State(); !s.Paused || len(b.rec.all()) != 1 {
			t.Errorf("%+v, records %+v", s, b.rec.all())
		}
		b.halt(t)
	})
}

// One dead token is doubted until APNs takes another push; a job that is doubted
// holds no slot, and goes back when the worker stops.
func TestDoubtedToken(t *testing.T) {
	for _, stops := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue(jobText(""))
			b := newBench(t, q)
			b.cfg.InFlight = 1
			b.answer = byToken{testToken: wrongEnv}.answer
			b.start()
			time.Sleep(time.Minute)
			if s := b.Status(); s.Held != 1 || s.Guarded != 1 || s.InFlight != 0 || len(b.rec.all()) != 0 {
				t.Errorf("%+v, records %+v", s, b.rec.all())
			}
			if !stops {
				q.add(fanOutText(manyTokens(1), ""))
				time.Sleep(time.Second)
				if done, _, _, _ := q.counts(); done != 2 || len(b.rec.all()) != 1 || b.cfg.Memory.Len() != 1 {
					t.Errorf("done %d, records %+v", done, b.rec.all())
				}
			}
			begun := time.Now()
			b.halt(t)
			if stops {
				if _, _, retried, _ := q.counts(); retried != 1 || len(b.rec.all()) != 0 || time.Since(begun) > time.Second {
					t.Errorf("retried %d, records %+v, after %v", retried, b.rec.all(), time.Since(begun))
				}
			}
		})
	}
}

// Without a guard, and without any memory, every token called wrong is dead.
func TestNoGuard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(fanOutText(manyTokens(100), ""), jobText(""))
		b := newBench(t, q)
		b.cfg.Guard, b.cfg.Memory, b.cfg.Journal, b.cfg.Feedback = nil, nil, nil, nil
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return wrongEnv, 0 }
		b.start()
		time.Sleep(time.Second)
		if done, _, _, _ := q.counts(); done != 2 || b.cfg.Counters.Ended(apnsconn.Token) != 101 {
			t.Errorf("done %d, %d dead", done, b.cfg.Counters.Ended(apnsconn.Token))
		}
		b.halt(t)
	})
}
