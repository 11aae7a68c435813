package worker

import (
	"fmt"
	"math"
	"math/rand/v2"
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
				recent := new(Recent)
				b.cfg.Sinks = []Sink{recent}
				b.start()
				time.Sleep(10 * time.Second)
				if _, failures := recent.Last(); len(failures) < guardFirst || failures[0].Reason != wrongEnv.Reason || failures[0].Token == "" {
					t.Errorf("%d failures are to be seen: %+v", len(failures), failures)
				}
				s := b.app.breaker.State()
				if !s.Guarded || s.Broken || !strings.HasPrefix(s.Reason, "wrong environment or topic?: ") {
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
				if len(jobs) < 5 { // each stays away whole, for as long as the app has been paused
					least, atMost = 6, 14
				}
				if probed < least || probed > atMost || most > 8 {
					t.Errorf("%d probes in 30 minutes, %d with one token", probed, most)
				}
				if done, buried, _, _ := q.counts(); done+buried+len(b.rec.all()) != 0 || b.app.tokens.len() != 0 {
					t.Errorf("done %d, buried %d, records %+v, %d remembered", done, buried, b.rec.all(), b.app.tokens.len())
				}
				if n := b.app.Counters.Ended(apnsconn.Token); n != 0 {
					t.Errorf("%d tokens counted as dead", n)
				}
				if held := b.Status(); held.Reserved != 0 || held.PendingAnswers != 0 {
					t.Errorf("%+v", held)
				}
				right.Store(true)
				time.Sleep(38 * time.Minute) // as long as it was wrong, and 20 % more
				if s := b.app.breaker.State(); s != (BreakerState{}) {
					t.Errorf("%+v after the environment was put right", s)
				}
				if done, _, _, ready := q.counts(); done != len(jobs)+len(q.puts) || ready != 0 {
					t.Errorf("done %d, put %d, ready %d", done, len(q.puts), ready)
				}
				if n := b.app.Counters.Ended(apnsconn.Delivered); n != 60 {
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
		tokens := manyTokens(500)
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
		if s := b.app.breaker.State(); !s.Guarded || len(b.pushesTo()) > 310 {
			t.Errorf("%+v after %d tokens", s, len(b.pushesTo()))
		}
		if rec := b.rec.all(); len(rec) != 1 || rec[0].Token != tokens[50] {
			t.Errorf("records %+v", rec)
		}
		// By hand: nothing has changed, so it is paused again.
		b.app.Resume()
		time.Sleep(30 * time.Second)
		if s := b.app.breaker.State(); !s.Guarded || len(b.rec.all()) != 1 {
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
			time.Sleep(pendingTime / 2)
			if s := b.Status(); s.Reserved != 1 || s.PendingAnswers != 1 || s.InFlight != 0 || len(b.rec.all()) != 0 {
				t.Errorf("%+v, records %+v", s, b.rec.all())
			}
			if !stops {
				q.add(fanOutText(manyTokens(1), ""))
				time.Sleep(time.Second)
				if done, _, _, _ := q.counts(); done != 2 || len(b.rec.all()) != 1 || b.app.tokens.len() != 1 {
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

// Without a place for records, a dead token's job is deleted all the same.
func TestNoFeedback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(fanOutText(manyTokens(100), ""), jobText(""))
		b := newBench(t, q)
		b.cfg.Feedback = nil
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return gone, 0 }
		b.start()
		time.Sleep(time.Second)
		if done, _, _, _ := q.counts(); done != 2 || b.app.Counters.Ended(apnsconn.Token) != 101 {
			t.Errorf("done %d, %d dead", done, b.app.Counters.Ended(apnsconn.Token))
		}
		b.halt(t)
	})
}

// An app of the wrong environment that has little to send reports no token dead
// either: its jobs come again, ever more seldom, and are buried in the end.
func TestQuietWrongEnvironment(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(40)
		q := newFakeQueue()
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return wrongEnv, 0 }
		b.start()
		for i, token := range tokens {
			if i%2 == 0 {
				q.add(`{"token":"` + token + `","title":"t"}`)
			} else {
				q.add(fanOutText([]string{token}, ""))
			}
			time.Sleep(2 * pendingTime)
		}
		time.Sleep(10 * time.Hour)
		if done, buried, _, _ := q.counts(); done+buried+len(b.rec.all()) != 0 || b.app.tokens.len() != 0 || !b.app.breaker.State().Guarded {
			t.Errorf("done %d, buried %d, %d remembered, %+v, records %+v", done, buried, b.app.tokens.len(), b.app.breaker.State(), b.rec.all())
		}
		most := 0
		for _, n := range b.pushesTo() {
			most = max(most, n)
		}
		if most < 3 || most > 12 { // doubling, then every 2 hours
			t.Errorf("%d pushes to one token in 10 hours", most)
		}
		time.Sleep(24 * time.Hour)
		if _, buried, _, _ := q.counts(); buried != len(tokens) || len(b.rec.all()) != len(tokens) || b.app.Counters.Ended(apnsconn.Rejected) != int64(len(tokens)) {
			t.Errorf("%d buried, %d records, %d counted", buried, len(b.rec.all()), b.app.Counters.Ended(apnsconn.Rejected))
		}
		for _, r := range b.rec.all() {
			if r.Class != "rejected" || r.Status != 400 || !strings.HasPrefix(r.Reason, "gave up after 24h") ||
				!strings.HasSuffix(r.Reason, "400 BadDeviceToken, and no answer showed that environment and topic are right") {
				t.Fatalf("%+v", r)
			}
		}
		b.halt(t)
	})
}

// Stale tokens, however many and in whatever jobs, do not keep an app that
// works from its work, and end with a record.
func TestStaleTokens(t *testing.T) {
	single := func(token string) string { return `{"token":"` + token + `","title":"t"}` }
	singles := func(tokens []string) (jobs []string) {
		for _, token := range tokens {
			jobs = append(jobs, single(token))
		}
		return jobs
	}
	all := manyTokens(1200)
	good, bad := all[:300], all[300:]
	for name, jobs := range map[string][]string{
		"one token":      slices.Repeat(singles(bad[:1]), 150),
		"150 tokens":     singles(bad[:150]),
		"a fan-out":      {fanOutText(bad[:200], "")},
		"many fan-outs":  {fanOutText(bad[:150], ""), fanOutText(bad[150:300], ""), fanOutText(bad[300:450], ""), fanOutText(bad[450:600], ""), fanOutText(bad[600:750], ""), fanOutText(bad[750:], "")},
		"mixed fan-outs": {fanOutText(slices.Concat(bad[:150], good[200:210]), ""), fanOutText(slices.Concat(good[210:220], bad[150:300]), "")},
	} {
		for _, inFlight := range []int{1, 10, 500} {
			t.Run(fmt.Sprint(name, " in_flight ", inFlight), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					q := newFakeQueue(singles(good[:200])...)
					b := newBench(t, q)
					b.cfg.InFlight = inFlight
					b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
						if slices.Contains(bad, n.Token) {
							return wrongEnv, 50 * time.Millisecond
						}
						return delivered(n)
					}
					b.start()
					time.Sleep(time.Minute)
					for _, job := range append(jobs, singles(good[200:])...) {
						q.add(job)
					}
					time.Sleep(48 * time.Hour)
					pushes, wasted := b.pushesTo(), 0
					for i, token := range good {
						if pushes[token] == 0 {
							t.Errorf("good token %d: no push", i)
						}
					}
					for _, token := range bad {
						wasted += pushes[token]
					}
					if wasted > 2500 {
						t.Errorf("%d pushes to bad tokens", wasted)
					}
					if b.Status().Reserved != 0 {
						t.Errorf("%+v", b.Status())
					}
					b.halt(t)
				})
			})
		}
	}
}

// What is left of a probe's job stays away whole, also when the job itself is
// over for other reasons.
func TestProbesRestStaysAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(fanOutText(append(manyTokens(4), "not hex"), ""))
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return wrongEnv, 0 }
		b.app.breaker.guardApp("test", time.Now())
		b.start()
		time.Sleep(ProbeEvery + DoubtMin/2)
		if pushes := b.pushesTo(); len(pushes) != 1 {
			t.Errorf("%v", pushes)
		}
		b.halt(t)
	})
}

// A push in doubt stays away for as long as the doubt has lasted, however often
// its job has been tried for other reasons, and not past its end.
func TestDoubtPause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const day = 24 * time.Hour
		b := newBench(t, newFakeQueue())
		b.start()
		time.Sleep(time.Second)
		p := &push{t: &task{r: b.cur.Load()}, doubted: true}
		want := func(when string, age, least, most time.Duration) {
			t.Helper()
			for range 100 {
				if d := p.nextDelay(1+rand.IntN(100), age); d < least || d > most {
					t.Errorf("%s: %v, want %v to %v", when, d, least, most)
					return
				}
			}
		}
		if pendingTime+doubtTime > DoubtMin*8/10 || (guardWindow/2+1)*ProbeEvery > doubtMax {
			t.Error("the bounds are not what they are meant to be")
		}
		g := b.app.guard
		want("nothing known", 0, DoubtMin*8/10, DoubtMin*12/10)
		g.noteWrong(token(1), "BadDeviceToken", time.Now())
		want("at once", 0, DoubtMin*8/10, DoubtMin*12/10)
		time.Sleep(time.Hour)
		want("after an hour", 0, 48*time.Minute, 72*time.Minute)
		// Nor past the end of its job, and a probe before it.
		job := &p.t.decoded
		job.TTL = time.Hour
		want("an hour to live", 0, 48*time.Minute, 59*time.Minute)
		want("ten minutes to live", 50*time.Minute, 9*time.Minute, 9*time.Minute)
		want("no time for another try", 59*time.Minute, 48*time.Minute, 72*time.Minute)
		job.TTL = 0
		at := time.Now().Add(20 * time.Minute).Unix()
		job.Notification.Expiration = &at
		want("expires in 20 minutes", 0, 19*time.Minute-time.Second, 19*time.Minute)
		at = 0 // do not store; no time
		want("is not to be stored", 0, 48*time.Minute, 72*time.Minute)
		at = math.MaxInt64
		want("expires never", 0, 48*time.Minute, 72*time.Minute)
		at = -1 << 63
		want("has expired", 0, 48*time.Minute, 72*time.Minute)
		job.Notification.Expiration = nil
		p.t.decoded.DefaultExpiration, p.t.r.cfg.Expiration = true, 30*time.Minute
		want("of an app whose pushes expire", 0, 29*time.Minute, 29*time.Minute)
		p.t.decoded.DefaultExpiration = false
		want("near its end", day-time.Minute, time.Minute, time.Minute)
		want("past its end", day+time.Minute, time.Second, time.Second)
		time.Sleep(day)
		want("after a day", 0, doubtMax*8/10, doubtMax)
		g.noteRight()
		g.noteWrong(token(2), "BadDeviceToken", time.Now())
		want("after a right answer", 0, DoubtMin*8/10, DoubtMin*12/10)
		b.halt(t)
	})
}
