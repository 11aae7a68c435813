package worker

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker/job"
)

// The record is stored before the job goes, and Config.Buried is called after.
func TestRecordsComeBeforeTheJobGoes(t *testing.T) {
	other := manyTokens(2)
	for name, tt := range map[string]struct {
		job    string
		answer apnsconn.Outcome
		want   string
	}{
		"dead":           {jobText(""), gone, "record token, done 1"},
		"rejected":       {jobText(""), badTopic, "record rejected, bury 1, told 1"},
		"garbage":        {"garbage", badTopic, "record rejected, bury 1, told 1"},
		"expired":        {jobText(`,"expiration":1`), gone, "record expired, done 1"},
		"delivered":      {jobText(""), apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, "done 1"},
		"several dead":   {fanOutText(other, ""), gone, "record token, record token, done 1"},
		"several buried": {fanOutText(other, ""), badTopic, "record rejected, record rejected, bury 1, told 1"},
		"channel":        {`{"channel_id":"dHN0LXNyY2gtY2hubA==","payload":{"aps":{}}}`, apnsconn.Outcome{Class: apnsconn.Token, Status: 400, Reason: "BadChannelId"}, "record token, done 1"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(tt.job)
				b := newBench(t, q)
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return tt.answer, 0 }
				b.start()
				synctest.Wait()
				b.halt(t)
				if got := strings.Join(q.log, ", "); got != tt.want {
					t.Errorf("got %s; want %s", got, tt.want)
				}
			})
		})
	}
}

func TestWhatIsInARecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		body := jobText(`,"ref":"order 7"`)
		other := manyTokens(1)[0]
		q := newFakeQueue(body, strings.Replace(body, testToken, other, 1))
		b := newBench(t, q)
		answers := []apnsconn.Outcome{gone, {Class: apnsconn.Rejected, Status: 413, Reason: "PayloadTooLarge", APNsID: "ID"}}
		b.answer = func(*apnsconn.Notification) (o apnsconn.Outcome, d time.Duration) {
			o, answers = answers[0], answers[1:]
			return o, 0
		}
		b.cfg.InFlight = 1
		b.start()
		synctest.Wait()
		b.halt(t)
		rec := b.rec.all()
		if len(rec) != 2 {
			t.Fatalf("%+v", rec)
		}
		r := rec[0]
		if r.Topic != topic || r.Token != testToken || r.Class != "token" || r.Status != 410 || r.Reason != "Unregistered" ||
			r.Since != 1_700_000_000 || r.Ref != "order 7" || r.Job != "1" || !r.At.Equal(time.Now()) {
			t.Errorf("%+v", r)
		}
		if r := rec[1]; r.Class != "rejected" || r.Status != 413 || r.Reason != "PayloadTooLarge" || r.APNsID != "ID" || r.Job != "2" || r.Since != 0 {
			t.Errorf("%+v", r)
		}
		e := b.rec.entries[0]
		want := job.Burial{
			Job: "2", Class: "rejected", Reason: "413 PayloadTooLarge", Token: other[:8], Ref: "order 7", APNsID: "ID", Status: 413,
			Tries: 1, Tokens: 1, At: time.Now(), Put: time.Now(), Seed: job.SeedOf("2", job.AsPut([]byte(q.buried[0].body))),
		}
		if e.ID != "2" || e.Burial != want {
			t.Errorf("%+v, want %+v", e, want)
		}
		got := job.BurialOf([]byte(q.buried[0].body), topic)
		want.At, want.Put = got.At, got.Put
		if got != want || got.At.Unix() != time.Now().Unix() || got.Put.Unix() != time.Now().Unix() {
			t.Errorf("read again: %+v, want %+v", got, want)
		}
	})
}

// While no record can be put, no job is deleted, buried or pushed again, and
// that is said once.
func TestRecordCannotBePut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		one := manyTokens(2)[0]
		q := newFakeQueue(jobText(""), "garbage", fanOutText(manyTokens(2)[1:], `,"expiration":1`), fanOutText([]string{one, testToken}, ""))
		b := newBench(t, q)
		var log strings.Builder
		b.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		b.rec.setFail(fmt.Errorf("no: %w", queue.ErrUnavailable))
		b.answer = byToken{testToken: gone}.answer
		b.start()
		time.Sleep(5 * time.Minute)
		if done, buried, retried, _ := q.counts(); done+buried+retried != 0 {
			t.Errorf("done %d, buried %d, retried %d", done, buried, retried)
		}
		b.rec.setFail(nil)
		time.Sleep(2 * time.Minute)
		if done, buried, _, ready := q.counts(); done != 3 || buried != 1 || ready != 0 {
			t.Errorf("then done %d, buried %d, ready %d", done, buried, ready)
		}
		if sent := b.pushesTo(); sent[testToken] > 2 || sent[one] != 1 {
			t.Errorf("sent again: %v", sent)
		}
		b.halt(t)
		var classes []string
		for _, r := range b.rec.all() {
			classes = append(classes, r.Class)
		}
		slices.Sort(classes)
		if want := []string{"expired", "rejected", "token", "token"}; !slices.Equal(classes, want) {
			t.Errorf("records %q, want %q", classes, want)
		}
		if n := strings.Count(log.String(), "cannot store feedback records"); n != 1 || !strings.Contains(log.String(), "are stored again") {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
	})
}

// However long the queue took no records, those held are stored soon after it takes them again.
func TestRecordsDoNotWaitAfterTheOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const jobs = 30
		q := newFakeQueue(slices.Repeat([]string{"garbage"}, jobs)...)
		b := newBench(t, q)
		b.rec.setFail(fmt.Errorf("no: %w", queue.ErrUnavailable))
		b.start()
		time.Sleep(17 * time.Minute)
		b.rec.setFail(nil)
		time.Sleep(2 * firstMax)
		if _, buried, _, _ := q.counts(); buried != jobs {
			t.Errorf("%d of %d jobs settled %v after the outage", buried, jobs, 2*firstMax)
		}
		b.halt(t)
	})
}

// give_up_after, ttl and expiration end a job with a record.
func TestEndsWithARecord(t *testing.T) {
	for name, tt := range map[string]struct {
		extra          string
		ttl, expire    time.Duration // of the app
		giveUp         time.Duration
		within, reason string
		class          string
	}{
		"give_up_after":  {"", 0, 0, time.Hour, "2h", "gave up after 1h", "unavailable"},
		"ttl":            {`,"ttl":1800`, 0, 0, 24 * time.Hour, "31m", "expires before it can be tried again", "unavailable"},
		"app's ttl":      {"", 30 * time.Minute, 0, 24 * time.Hour, "31m", "expires before it can be tried again", "unavailable"},
		"expiration":     {`,"expiration":946686600`, 0, 0, 24 * time.Hour, "31m", "expires before it can be tried again", "unavailable"},
		"app's":          {"", 0, 30 * time.Minute, 24 * time.Hour, "31m", "expires before it can be tried again", "unavailable"},
		"ttl over app's": {`,"ttl":1800`, time.Minute, 0, 24 * time.Hour, "31m", "expires before it can be tried again, after ", "unavailable"},
	} {
		for _, body := range []string{jobText(tt.extra), fanOutText(manyTokens(1), tt.extra)} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) { // begins at 2000-01-01, which is 946684800
					q := newFakeQueue(body)
					b := newBench(t, q)
					b.cfg.TTL, b.cfg.Expiration, b.cfg.Retry.GiveUpAfter = tt.ttl, tt.expire, tt.giveUp
					b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return busy, 0 }
					b.start()
					within, _ := time.ParseDuration(tt.within)
					time.Sleep(within)
					synctest.Wait()
					rec := b.rec.all()
					if len(rec) != 1 || rec[0].Class != tt.class || !strings.HasPrefix(rec[0].Reason, tt.reason) || rec[0].Status != 503 {
						t.Errorf("records %+v", rec)
					}
					if _, buried, _, _ := q.counts(); buried != 1 || len(b.rec.entries) != 1 || !strings.HasPrefix(b.rec.entries[0].Reason, tt.reason) {
						t.Errorf("buried %d, %+v", buried, b.rec.entries)
					}
					b.halt(t)
				})
			})
		}
	}
}

// The app's default expiration goes into the header of jobs that give none.
func TestDefaultExpiration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""), jobText(`,"expiration":0`))
		b := newBench(t, q)
		b.cfg.Expiration = time.Hour
		b.start()
		time.Sleep(time.Second)
		b.halt(t)
		at := time.Now().Add(-time.Second).Add(time.Hour).Unix()
		if got := *b.conns[0].sent[0].Expiration; got != at {
			t.Errorf("expiration %d, want %d", got, at)
		}
		if got := *b.conns[0].sent[1].Expiration; got != 0 {
			t.Errorf("the job's own 0 became %d", got)
		}
	})
}

// A token that APNs called dead is not sent again, but has its record each time.
func TestDeadTokenIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		var log strings.Builder
		b.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		b.answer = byToken{testToken: gone}.answer
		b.start()
		time.Sleep(time.Minute)
		q.add(jobText(""))
		q.add(fanOutText(append(manyTokens(2), testToken), ""))
		time.Sleep(time.Minute)
		if sent := b.pushesTo(); sent[testToken] != 1 || len(sent) != 3 {
			t.Errorf("%v", sent)
		}
		rec := b.rec.all()
		if len(rec) != 3 {
			t.Fatalf("%d records", len(rec))
		}
		for _, r := range rec {
			if r.Token != testToken || r.Class != "token" || r.Status != 410 || r.Reason != "Unregistered" || r.Since != gone.Since.Unix() {
				t.Errorf("%+v", r)
			}
		}
		time.Sleep(time.Hour)
		q.add(jobText(""))
		time.Sleep(time.Minute)
		b.halt(t)
		if sent := b.pushesTo(); sent[testToken] != 2 {
			t.Errorf("sent %d times after an hour", sent[testToken])
		}
		if n := strings.Count(log.String(), "remembered=true"); n != 2 {
			t.Errorf("%d lines say remembered:\n%s", n, log.String())
		}
	})
}

// No time is made up for a dead token of which APNs did not say since when.
func TestRememberedWithoutSince(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.answer = byToken{testToken: {Class: apnsconn.Token, Status: 410, Reason: "ExpiredToken"}}.answer
		b.start()
		time.Sleep(time.Minute)
		q.add(jobText(""))
		time.Sleep(time.Minute)
		b.halt(t)
		rec := b.rec.all()
		if len(rec) != 2 || b.sent() != 1 {
			t.Fatalf("%d records, %d sent", len(rec), b.sent())
		}
		for _, r := range rec {
			if r.Since != 0 {
				t.Errorf("since %d", r.Since)
			}
		}
	})
}

// A job whose push type is not one for its token says nothing of the token, nor
// of the app's environment: it is buried, and ordinary pushes go on.
func TestTokenNotForThePushType(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(2 * guardFirst)
		q := newFakeQueue()
		for _, token := range tokens {
			q.add(fmt.Sprintf(`{"token":%q,"title":"t","push_type":"voip"}`, token))
		}
		b := newBench(t, q)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if n.Topic == topic+".voip" {
				return notForTopic, 0
			}
			return delivered(n)
		}
		b.start()
		time.Sleep(time.Minute)
		if _, buried, _, _ := q.counts(); buried != len(tokens) || b.app.breaker.State().Guarded || b.app.tokens.len() != 0 {
			t.Errorf("%d buried, %+v, %d remembered", buried, b.app.breaker.State(), b.app.tokens.len())
		}
		for _, r := range b.rec.all() {
			if r.Class != "rejected" || r.Reason != "DeviceTokenNotForTopic" {
				t.Fatalf("%+v", r)
			}
		}
		for _, token := range tokens {
			q.add(fmt.Sprintf(`{"token":%q,"title":"t"}`, token))
		}
		time.Sleep(time.Second)
		if done, _, _, _ := q.counts(); done != len(tokens) {
			t.Errorf("%d of %d ordinary pushes done", done, len(tokens))
		}
		b.halt(t)
	})
}

// DeviceTokenNotForTopic in the app's own topic ends the job with a record, and
// is not remembered: the token may be another topic's.
func TestNotForTopicIsNotRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		other := manyTokens(1)[0]
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.answer = byToken{testToken: notForTopic}.answer
		b.start()
		for range 2 {
			time.Sleep(time.Second)
			q.add(fanOutText([]string{other}, "")) // which shows the environment right
			time.Sleep(time.Second)
			q.add(jobText(""))
		}
		time.Sleep(time.Second)
		if n := b.pushesTo()[testToken]; n != 3 || len(b.rec.all()) != 2 || b.app.tokens.len() != 0 {
			t.Errorf("%d pushes, %d remembered, records %+v", n, b.app.tokens.len(), b.rec.all())
		}
		b.halt(t)
	})
}

// A 410 from before the app registered the token is not believed.
func TestTokenSince(t *testing.T) {
	before, after := gone.Since.Add(-time.Hour).Unix(), gone.Since.Add(time.Hour).Unix()
	bad := apnsconn.Outcome{Class: apnsconn.Token, Status: 410, Reason: "Unregistered"} // does not say since when
	for name, tt := range map[string]struct {
		since   int64
		answer  apnsconn.Outcome
		records int
	}{
		"registered before it died": {before, gone, 1}, "registered since": {after, gone, 0}, "not said": {0, gone, 1}, "died at no time": {after, bad, 1},
	} {
		for _, format := range []string{`{"token":"%s","title":"t","token_since":%d}`, `{"tokens":["%s"],"title":"t","token_since":"%d"}`} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					q := newFakeQueue(fmt.Sprintf(format, testToken, tt.since))
					b := newBench(t, q)
					var taking atomic.Bool
					b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
						if taking.Load() {
							return delivered(n)
						}
						return tt.answer, 0
					}
					b.start()
					time.Sleep(time.Second)
					if n := len(b.rec.all()); n != tt.records {
						t.Errorf("%d records, want %d", n, tt.records)
					}
					if n := b.app.tokens.len(); n != tt.records {
						t.Errorf("%d tokens remembered, want %d", n, tt.records)
					}
					if done, _, retried, _ := q.counts(); done != tt.records || retried != 1-tt.records {
						t.Errorf("done %d, retried %d", done, retried)
					}
					taking.Store(true)
					time.Sleep(5 * time.Minute)
					if done, _, _, _ := q.counts(); done != 1 {
						t.Error("not done when APNs took it")
					}
					b.halt(t)
				})
			})
		}
	}
}

// What is remembered of a token does not hold for one registered since.
func TestRegisteredAgainIsSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		b.app.tokens.setDead(topic, testToken, "Unregistered", 410, time.Now())
		b.start()
		time.Sleep(time.Minute)
		q.add(jobText(fmt.Sprintf(`,"token_since":%d`, time.Now().Add(-2*time.Minute).Unix())))
		time.Sleep(time.Second)
		if b.sent() != 0 || len(b.rec.all()) != 1 {
			t.Errorf("%d sent, records %+v", b.sent(), b.rec.all())
		}
		q.add(jobText(fmt.Sprintf(`,"token_since":%d`, time.Now().Unix())))
		time.Sleep(time.Second)
		if b.sent() != 1 || b.app.tokens.len() != 0 {
			t.Errorf("%d sent, %d remembered", b.sent(), b.app.tokens.len())
		}
		b.halt(t)
	})
}

// 429 slows that device token only: others go on, and pushes to it wait unsent.
func TestThrottledTokenSlowsItselfOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		answers := byToken{testToken: tooMany}
		b.answer = answers.answer
		b.start()
		time.Sleep(time.Second)
		others := manyTokens(50)
		for _, token := range others {
			q.add(fanOutText([]string{token}, ""))
		}
		q.add(jobText(""))
		q.add(fanOutText(append(others, testToken), ""))
		time.Sleep(time.Second)
		sent := b.pushesTo()
		for _, token := range others {
			if sent[token] != 2 {
				t.Fatalf("another token was sent %d pushes of 2", sent[token])
			}
		}
		if sent[testToken] != 1 {
			t.Errorf("%d pushes to the throttled token", sent[testToken])
		}
		b.mu.Lock()
		c := b.conns[0]
		b.mu.Unlock()
		c.mu.Lock()
		delete(answers, testToken)
		c.mu.Unlock()
		time.Sleep(time.Minute)
		if sent := b.pushesTo(); sent[testToken] != 4 {
			t.Errorf("%d pushes to the throttled token in the end, want 4", sent[testToken])
		}
		if done, _, _, ready := q.counts(); ready != 0 || done != 54 {
			t.Errorf("done %d, ready %d", done, ready)
		}
		b.halt(t)
	})
}

// A restart gives the jobs back at once; Replace makes a new connection.
func TestReplaceAndRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""), fanOutText(manyTokens(2), ""))
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return silence, time.Hour }
		b.start()
		time.Sleep(10 * time.Second)
		b.Replace("stuck")
		q.add(jobText(""))
		synctest.Wait()
		if n := len(b.dialTimes()); n != 2 {
			t.Errorf("%d dials", n)
		}
		b.restart()
		begun := time.Now()
		if err := <-b.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("restart took %v", d)
		}
		if !q.closed || b.Status().Serving || b.Status().Received != 3 {
			t.Errorf("closed %v, %+v", q.closed, b.Status())
		}
		b.Replace("not serving")
	})
}
