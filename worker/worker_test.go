package worker

import (
	"context"
	"errors"
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
)

func TestDeliversAndDeletes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 1000 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		b.start()
		time.Sleep(5 * time.Second)
		b.halt(t)
		if done, buried, retried, ready := q.counts(); done != 1000 || buried+retried+ready != 0 {
			t.Errorf("done %d, buried %d, retried %d, ready %d; want 1000 done", done, buried, retried, ready)
		}
		if got := b.app.Counters.Ended(apnsconn.Delivered); got != 1000 {
			t.Errorf("delivered counter %d", got)
		}
		if n := len(b.dialTimes()); n != 1 {
			t.Errorf("%d dials for 1000 jobs, want 1", n)
		}
		if q.stats != 0 {
			t.Errorf("the queue was asked %d times about jobs that were delivered", q.stats)
		}
		if !q.closed {
			t.Error("consumer not closed")
		}
	})
}

// An idle worker must not connect: Apple takes needless connections for an attack.
func TestNoDialWithoutJob(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, newFakeQueue())
		b.start()
		time.Sleep(24 * time.Hour)
		if n := len(b.dialTimes()); n != 0 {
			t.Errorf("%d dials without a job", n)
		}
		b.q.add(jobText(""))
		synctest.Wait()
		if b.sent() != 1 {
			t.Error("first job after a day not sent at once")
		}
		b.halt(t)
	})
}

func TestNeverMoreThanInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 500 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		b.cfg.InFlight = 7
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Hour
		}
		b.start()
		time.Sleep(time.Minute)
		if n := b.sent(); n != 7 {
			t.Errorf("%d sent with in_flight 7", n)
		}
		synctest.Wait()
		if s := b.Status(); s.Reserved != 7 || !s.Connected || !s.Serving {
			t.Errorf("status %+v", s)
		}
		b.halt(t)
		if _, _, retried, _ := q.counts(); retried != 7 {
			t.Errorf("%d given back at the end, want 7", retried)
		}
	})
}

// While APNs cannot be reached, dials are spaced 1 s to 15 s apart, the job
// goes back each time, and it is delivered when APNs is back.
func TestApnsAbsent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.refuse = errors.New("refused")
		b.start()
		time.Sleep(time.Hour)
		dials := b.dialTimes()
		if n := len(dials); n < 200 || n > 320 {
			t.Errorf("%d dials in an hour", n)
		}
		for i := 1; i < len(dials); i++ {
			if gap := dials[i].Sub(dials[i-1]); gap < 800*time.Millisecond || gap > 18*time.Second {
				t.Errorf("dial %d after %v", i, gap)
			}
		}
		synctest.Wait()
		if q.paused == 0 {
			t.Error("consumer not paused while waiting to dial")
		}
		b.setRefuse(nil)
		time.Sleep(2 * time.Minute)
		if done, _, _, _ := q.counts(); done != 1 {
			t.Error("job not delivered when APNs came back")
		}
		if d := b.app.Counters.PossibleDuplicates.Load(); d != 0 {
			t.Errorf("%d possible duplicates for a job that was never sent", d)
		}
		b.halt(t)
	})
}

// No push waits for another's answer: not for the first of a connection, nor after dials
// that failed. Only after a connection that took no push, one shows whether the next does.
func TestFirstPushIsNotAlone(t *testing.T) {
	const jobs = 50
	for name, tt := range map[string]struct {
		refuse error // of the dials before
		deaf   bool  // the connections before took no push
		want   int
	}{
		"at the start":       {want: jobs},
		"after failed dials": {refuse: errors.New("refused"), want: jobs},
		"after a deaf peer":  {deaf: true, want: 1},
	} {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue(slices.Repeat([]string{jobText("")}, jobs)...)
			b := newBench(t, q)
			b.cfg.Retry = Retry{Min: time.Second, Max: time.Second, GiveUpAfter: 24 * time.Hour}
			var well atomic.Bool
			var sent atomic.Int64 // while all is well
			b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
				if !well.Load() {
					return apnsconn.Outcome{Class: apnsconn.Unknown, Err: apnsconn.ErrTimeout}, 20 * time.Second
				}
				sent.Add(1)
				return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 30 * time.Second
			}
			b.setRefuse(tt.refuse)
			well.Store(!tt.deaf)
			b.start()
			if tt.deaf || tt.refuse != nil {
				time.Sleep(time.Minute)
			}
			b.setRefuse(nil)
			well.Store(true)
			for sent.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(10 * time.Second)
			if got := int(sent.Load()); got != tt.want {
				t.Errorf("%s: %d pushes before the first answer, want %d", name, got, tt.want)
			}
			b.halt(t)
		})
	}
}

// A connection that ends before a good answer must not be dialled again at once.
func TestNoStormOfShortConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			b.mu.Lock()
			c := b.conns[len(b.conns)-1]
			b.mu.Unlock()
			go c.end(errors.New("reset"))
			return apnsconn.Outcome{}, time.Hour
		}
		b.cfg.Retry.Min = time.Second
		b.start()
		time.Sleep(time.Hour)
		if n := len(b.dialTimes()); n > 90 {
			t.Errorf("%d dials in an hour", n)
		}
		b.halt(t)
	})
}

func TestSettlesByClass(t *testing.T) {
	tests := []struct {
		outcome apnsconn.Outcome
		want    string // done, buried, or the range of the retry's pause
		lo, hi  time.Duration
		doubles int64
	}{
		{apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, "done", 0, 0, 0},
		{apnsconn.Outcome{Class: apnsconn.Token, Status: 410, Reason: "Unregistered"}, "done", 0, 0, 0},
		{apnsconn.Outcome{Class: apnsconn.Rejected, Status: 413, Reason: "PayloadTooLarge"}, "buried", 0, 0, 0},
		{apnsconn.Outcome{Class: apnsconn.Throttled, Status: 429}, "retried", 4 * time.Second, 6 * time.Second, 0},
		{apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503}, "retried", 48 * time.Second, 72 * time.Second, 0},
		{apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, RetryAfter: 5 * time.Minute}, "retried", 5 * time.Minute, 5 * time.Minute, 0},
		{apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 403, Reason: "ExpiredProviderToken"}, "retried", 800 * time.Millisecond, 1200 * time.Millisecond, 0},
		{apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "Shutdown"}, "retried", 800 * time.Millisecond, 1200 * time.Millisecond, 0},
		{apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 429, Reason: "TooManyProviderTokenUpdates"}, "retried", 48 * time.Second, 72 * time.Second, 0},
		{apnsconn.Outcome{Class: apnsconn.Credential, Status: 403}, "retried", 0, 0, 0},
		{apnsconn.Outcome{Class: apnsconn.NotSent}, "retried", 800 * time.Millisecond, 1200 * time.Millisecond, 0}, // the connection goes on
		{apnsconn.Outcome{Class: apnsconn.Unknown}, "retried", 800 * time.Millisecond, 1200 * time.Millisecond, 1},
	}
	for _, test := range tests {
		t.Run(test.outcome.Class.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(jobText(""))
				b := newBench(t, q)
				first := true
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					if first {
						first = false
						return test.outcome, 0
					}
					return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Hour
				}
				b.start()
				synctest.Wait()
				done, buried, retried, _ := q.counts()
				got := map[string]int{"done": done, "buried": buried, "retried": retried}
				if test.outcome.Class == apnsconn.Credential && b.sent() == 1 && retried == 2 {
					retried = 1 // a Receive under way got the job once more, and it went back unsent
				}
				if got[test.want] == 0 || done+buried+retried != 1 {
					t.Fatalf("got %v, want one %s", got, test.want)
				}
				if test.want == "retried" {
					if after := q.retried[0].after; after < test.lo || after > test.hi {
						t.Errorf("pause %v, want %v to %v", after, test.lo, test.hi)
					}
				}
				if test.want == "buried" && b.rec.entries[0].Reason != "413 PayloadTooLarge" {
					t.Errorf("reason %q", b.rec.entries[0].Reason)
				}
				if d := b.app.Counters.PossibleDuplicates.Load(); d != test.doubles {
					t.Errorf("%d possible duplicates, want %d", d, test.doubles)
				}
				b.halt(t)
			})
		})
	}
}

func TestEveryClassHasAPolicy(t *testing.T) {
	for c := apnsconn.Delivered; c <= apnsconn.Unknown; c++ {
		if int(c) >= len(policy) || int(c) >= len(pushLevel) {
			t.Errorf("class %v has no row", c)
		}
	}
}

func TestGivesUpWithAReason(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.cfg.Retry.GiveUpAfter = time.Hour
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "ServiceUnavailable"}, 0
		}
		b.start()
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if len(q.buried) != 1 || !strings.Contains(b.rec.entries[0].Reason, "gave up after") || !strings.Contains(b.rec.entries[0].Reason, "503 ServiceUnavailable") {
			t.Fatalf("buried %v", q.buried)
		}
		if n := len(q.retried); n < 4 || n > 8 { // 1, 2, 4, 8, 15, 15, 15 minutes
			t.Errorf("%d retries in an hour", n)
		}
		b.halt(t)
	})
}

// A refused credential breaks the app: its jobs stay, one is tried a minute,
// and it recovers by itself.
func TestBrokenAppProbesOnceAMinute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 300 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		var refused atomic.Bool
		refused.Store(true)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if refused.Load() {
				return apnsconn.Outcome{Class: apnsconn.Credential, Status: 403, Reason: "BadCertificate"}, 10 * time.Millisecond
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 10 * time.Millisecond
		}
		b.start()
		time.Sleep(time.Second)
		state := b.app.breaker.State()
		broken, reason := state.Broken, state.Reason
		if !broken || reason != "403 BadCertificate" {
			t.Fatalf("broken %v, %q", broken, reason)
		}
		atFirst := b.app.Counters.Ended(apnsconn.Credential)
		time.Sleep(30 * time.Minute)
		if probes := b.app.Counters.Ended(apnsconn.Credential) - atFirst; probes < 25 || probes > 31 {
			t.Errorf("%d probes in 30 minutes", probes)
		}
		if due := time.Until(b.app.breaker.State().Probe); due < -time.Second || due > ProbeEvery {
			t.Errorf("the next probe is due in %v", due)
		}
		done, buried, _, ready := q.counts()
		if done != 0 || buried != 0 || ready != 300 {
			t.Errorf("done %d, buried %d, ready %d; want all 300 in the queue", done, buried, ready)
		}
		refused.Store(false)
		time.Sleep(2 * time.Minute)
		if broken := b.app.breaker.State().Broken; broken {
			t.Error("still broken after the credential works again")
		}
		if done, _, _, _ := q.counts(); done != 300 {
			t.Errorf("%d of 300 delivered after recovery", done)
		}
		b.halt(t)
	})
}

// Between the dial for a probe and its push the queue is asked for the age of a
// job with a ttl: the connection must last as long.
func TestProbeKeepsItsConnection(t *testing.T) {
	for name, body := range map[string]string{
		"single": jobText(`,"ttl":86400`), "fan-out": fanOutText(manyTokens(3), `,"ttl":86400`),
		"no ttl": jobText(""),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue()
				q.statTakes = time.Millisecond
				for range 50 {
					q.add(body)
				}
				b := newBench(t, q)
				var refused atomic.Bool
				refused.Store(true)
				b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					if refused.Load() {
						return bounced, 10 * time.Millisecond
					}
					return delivered(n)
				}
				b.start()
				time.Sleep(10 * time.Second)
				if !b.app.breaker.State().Broken {
					t.Fatal("not broken")
				}
				refused.Store(false)
				time.Sleep(2 * time.Minute)
				if done, _, _, _ := q.counts(); b.app.breaker.State().Broken || done < 50 {
					t.Errorf("%+v, %d of 50 done", b.app.breaker.State(), done)
				}
				b.halt(t)
			})
		})
	}
}

// What shows that APNs takes the credential again, and what does not.
func TestProbeShows(t *testing.T) {
	for name, tt := range map[string]struct {
		answer apnsconn.Outcome
		heals  bool
	}{
		"200":              {apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, true},
		"410":              {gone, true},
		"400 of the token": {wrongEnv, true},
		"400 of the topic": {notForTopic, true},
		"413":              {apnsconn.Outcome{Class: apnsconn.Rejected, Status: 413, Reason: "PayloadTooLarge"}, true},
		"400 of a header":  {apnsconn.Outcome{Class: apnsconn.Rejected, Status: 400, Reason: "BadPriority"}, true},
		"refused by Send":  {apnsconn.Outcome{Class: apnsconn.Rejected, Err: &apnsconn.FieldError{Key: "id"}}, false},
		"403 Forbidden":    {apnsconn.Outcome{Class: apnsconn.Rejected, Status: 403, Reason: "Forbidden"}, false},
		"403":              {bounced, false},
		"429":              {tooMany, false},
		"500":              {apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 500, Reason: "InternalServerError"}, false},
		"503":              {busy, false},
		"no answer":        {silence, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue()
				for _, token := range manyTokens(20) { // what is known of one says nothing of the others
					q.add(`{"token":"` + token + `","title":"t"}`)
				}
				b := newBench(t, q)
				var sent atomic.Int64
				b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					if sent.Add(1) == 1 {
						return tt.answer, 0
					}
					return delivered(n)
				}
				b.app.breaker.trip("test", time.Now())
				b.start()
				time.Sleep(90 * time.Second)
				if healed := !b.app.breaker.State().Broken; healed != tt.heals || !healed && sent.Load() != 1 {
					t.Errorf("healed %v after %d pushes", healed, sent.Load())
				}
				time.Sleep(time.Minute)
				if b.app.breaker.State().Broken {
					t.Error("not healed by the next probe")
				}
				b.halt(t)
			})
		})
	}
}

// A job that is held, since no record of it can be put, does not keep the probe.
func TestProbeDoesNotWaitForRecords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(`,"expiration":1`), jobText(""))
		b := newBench(t, q)
		b.rec.setFail(errors.New("no"))
		b.app.breaker.trip("test", time.Now())
		b.start()
		time.Sleep(90 * time.Second)
		if done, _, _, _ := q.counts(); done != 1 || b.app.breaker.State().Broken || b.Status().Reserved != 1 {
			t.Errorf("%d done, %+v, %d held", done, b.app.breaker.State(), b.Status().Reserved)
		}
		b.rec.setFail(nil)
		b.halt(t)
	})
}

// deafQueue's first consumer receives nothing.
type deafQueue struct {
	played
	more atomic.Bool
}

type deafConsumer struct{ consumerOf }

func (c deafConsumer) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (q *deafQueue) Consume(tube string) (queue.Consumer, error) {
	if !q.more.Swap(true) {
		return deafConsumer{consumerOf(q.played)}, nil
	}
	return q.played.Consume(tube)
}

// A worker that has the probe and receives nothing does not keep the app broken.
func TestDeafProber(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		b.cfg.Queue = &deafQueue{played: played{q}}
		b.app.breaker.trip("test", time.Now())
		b.start()
		time.Sleep(90 * time.Second)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- b.app.NewWorker(0).Serve(ctx) }()
		q.add(jobText(""))
		time.Sleep(2 * time.Minute)
		if done, _, _, _ := q.counts(); done != 1 || b.app.breaker.State().Broken {
			t.Errorf("%d done, %+v", done, b.app.breaker.State())
		}
		stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		b.halt(t)
	})
}

func TestDialRefusingTheCredentialBreaksTheApp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.refuse = fmt.Errorf("tls: %w", apnsconn.ErrCredential)
		b.start()
		time.Sleep(10 * time.Minute)
		if broken := b.app.breaker.State().Broken; !broken {
			t.Error("app not broken")
		}
		if n := len(b.dialTimes()); n < 9 || n > 11 {
			t.Errorf("%d dials in 10 minutes, want one a minute", n)
		}
		b.setRefuse(nil)
		time.Sleep(2 * time.Minute)
		if done, _, _, _ := q.counts(); done != 1 {
			t.Error("not delivered after the credential was accepted")
		}
		b.halt(t)
	})
}

// A credential that does not cover one push type must not stop the app.
func TestSuffixTopicRefusedBuriesThatJobOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(`,"push_type":"voip"`), jobText(""))
		b := newBench(t, q)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if n.Topic != "com.example.app" {
				return apnsconn.Outcome{Class: apnsconn.Credential, Status: 400, Reason: "TopicDisallowed"}, 0
			}
			return delivered(n)
		}
		b.start()
		time.Sleep(time.Second)
		if done, buried, _, _ := q.counts(); done != 1 || buried != 1 {
			t.Errorf("done %d, buried %d", done, buried)
		}
		if broken := b.app.breaker.State().Broken; broken {
			t.Error("app broken")
		}
		b.halt(t)
	})
}

// A refused credential is the app's trouble whatever topic found it out: no job
// is buried for it.
func TestSuffixTopicWithARefusedCredential(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(`,"push_type":"voip"`))
		b := newBench(t, q)
		clock := &apnsconn.ClockError{Skew: 12 * time.Minute}
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Credential, Status: 403, Reason: "InvalidProviderToken", Err: clock}, 0
		}
		b.start()
		time.Sleep(10*time.Minute + 30*time.Second) // between two probes
		state := b.app.breaker.State()
		broken, reason := state.Broken, state.Reason
		if want := "403 InvalidProviderToken: this machine's clock is 12 minutes behind APNs': set it, best by NTP"; !broken || reason != want {
			t.Errorf("broken %v, %q, want %q", broken, reason, want)
		}
		if done, buried, _, ready := q.counts(); done != 0 || buried != 0 || ready != 1 {
			t.Errorf("done %d, buried %d, ready %d; want the job in the queue", done, buried, ready)
		}
		b.halt(t)
	})
}

// Connections that are at fault one after the other are not replaced at full
// speed: the pause between dials grows.
func TestReconnectAnswersMakeNoStorm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 1000 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			b.mu.Lock()
			c := b.conns[len(b.conns)-1]
			b.mu.Unlock()
			go c.end(errors.New("given up"))
			return apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 403, Reason: "ExpiredProviderToken"}, 0
		}
		b.start()
		time.Sleep(time.Hour)
		if n := len(b.dialTimes()); n < 50 || n > 90 {
			t.Errorf("%d dials in an hour", n)
		}
		b.halt(t)
	})
}

func TestPanicBuriesThatJobOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""), jobText(""), jobText(""))
		q.ready[1].panics = true
		b := newBench(t, q)
		b.start()
		time.Sleep(time.Second)
		if done, buried, _, _ := q.counts(); done != 2 || buried != 1 {
			t.Fatalf("done %d, buried %d; want 2 and 1", done, buried)
		}
		if !strings.Contains(b.rec.entries[0].Reason, "panic: poison") {
			t.Errorf("reason %q", b.rec.entries[0].Reason)
		}
		if b.app.Counters.Panics.Load() != 1 {
			t.Error("panic not counted")
		}
		b.halt(t)
	})
}

func TestGarbageIsBuriedAndTheRestGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue("", "nope", "[]", `{"token":"zz"}`, jobText(`,"colour":"red"`), jobText(""))
		b := newBench(t, q)
		b.start()
		time.Sleep(time.Second)
		if done, buried, _, _ := q.counts(); done != 1 || buried != 5 {
			t.Errorf("done %d, buried %d; want 1 and 5", done, buried)
		}
		if n := b.sent(); n != 1 {
			t.Errorf("%d pushes on the wire, want 1", n)
		}
		b.halt(t)
	})
}

func TestTTLAndExpiration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		past := fmt.Sprint(time.Now().Unix() - 1)
		q := newFakeQueue(jobText(`,"ttl":60`), jobText(`,"ttl":3600`), jobText(`,"expiration":`+past), jobText(`,"expiration":0`))
		for _, j := range q.ready {
			j.put = time.Now().Add(-2 * time.Minute)
		}
		b := newBench(t, q)
		b.start()
		time.Sleep(time.Second)
		if done, buried, _, _ := q.counts(); done != 4 || buried != 0 {
			t.Errorf("done %d, buried %d; want 4 and 0", done, buried)
		}
		if n := b.sent(); n != 2 {
			t.Errorf("%d pushes sent, want 2", n)
		}
		if n := b.app.Counters.Expired.Load(); n != 2 {
			t.Errorf("%d expired, want 2", n)
		}
		b.halt(t)
	})
}

// At the end, pushes in flight are finished and settled, not given back.
func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 90 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 5 * time.Second
		}
		b.start()
		time.Sleep(time.Second)
		begun := time.Now()
		b.halt(t)
		if done, _, retried, _ := q.counts(); done != 90 || retried != 0 {
			t.Errorf("done %d, retried %d; want 90 and 0", done, retried)
		}
		if d := time.Since(begun); d > 6*time.Second {
			t.Errorf("drain took %v", d)
		}
	})
}

// noted are a queue, a consumer and a connection that write into the queue's log when they
// close.
type (
	notedQueue    struct{ played }
	notedConsumer struct{ consumerOf }
	notedConn     struct {
		Conn
		q *fakeQueue
	}
)

func (n notedQueue) Consume(string) (queue.Consumer, error) {
	return notedConsumer{consumerOf(n.played)}, nil
}

func (n notedConsumer) Close(ctx context.Context) error {
	n.write("the queue's connection closes")
	return n.consumerOf.Close(ctx)
}

func (n notedConn) Close() error {
	n.q.write("APNs' connection closes")
	return n.Conn.Close()
}

func (q *fakeQueue) write(line string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.note("%s", line)
}

// A worker stops in the order that loses and repeats the least: pushes in flight end and are
// settled, then the queue's connection closes, then APNs'.
func TestStopOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.cfg.Queue = notedQueue{played{q}}
		b.cfg.Dial = func(ctx context.Context, onChange func()) (Conn, error) {
			c, err := b.dial(ctx, onChange)
			return notedConn{c, q}, err
		}
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 5 * time.Second
		}
		b.start()
		time.Sleep(time.Second)
		b.halt(t)
		want := []string{"done 1", "the queue's connection closes", "APNs' connection closes"}
		if got := slices.Compact(q.log); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestDrainIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Hour
		}
		b.start()
		time.Sleep(time.Second)
		begun := time.Now()
		b.halt(t)
		if d := time.Since(begun); d > 13*time.Second {
			t.Errorf("stop took %v with a drain of 10s", d)
		}
		if n := b.app.Counters.PossibleDuplicates.Load(); n != 1 {
			t.Errorf("%d possible duplicates, want 1: the push was on its way", n)
		}
	})
}

func TestPauseGrowsToMax(t *testing.T) {
	r := Retry{Min: time.Minute, Max: 15 * time.Minute, GiveUpAfter: 24 * time.Hour}
	for attempt, want := range []time.Duration{1: time.Minute, 2: 2 * time.Minute, 3: 4 * time.Minute, 4: 8 * time.Minute, 5: 15 * time.Minute, 99: 15 * time.Minute} {
		if want == 0 {
			continue
		}
		for range 100 {
			if got := r.delay(attempt, 0, 0); got < want*8/10 || got > min(want*12/10, r.Max) {
				t.Fatalf("attempt %d: pause %v, want %v ± 20 %%", attempt, got, want)
			}
		}
	}
	if got := r.delay(1, time.Hour, 0); got > 72*time.Second {
		t.Errorf("first pause above retry.min: %v", got)
	}
	if got := r.delay(1, 0, time.Hour); got != r.Max {
		t.Errorf("asked for an hour: %v, want retry.max", got)
	}
}

// The probe of a broken app may meet a job that can never work: it is buried,
// and the next job is the probe.
func TestProbeMeetsGarbage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		b := newBench(t, q)
		b.app.breaker.trip("test", time.Now())
		b.start()
		q.add("garbage")
		q.add(jobText(""))
		time.Sleep(2 * time.Minute)
		if done, buried, _, _ := q.counts(); done != 1 || buried != 1 {
			t.Errorf("done %d, buried %d", done, buried)
		}
		if broken := b.app.breaker.State().Broken; broken {
			t.Error("still broken")
		}
		b.halt(t)
	})
}

// A connection that stays and takes nothing must not make the jobs go round at
// full speed.
func TestRefusedStreamsAreNoHotLoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 50 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		b.cfg.InFlight = 20
		var taking atomic.Bool
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if taking.Load() {
				return delivered(n)
			}
			return apnsconn.Outcome{Class: apnsconn.NotSent, Err: errors.New("refused stream")}, 10 * time.Millisecond
		}
		b.start()
		time.Sleep(time.Hour)
		if n := b.app.Counters.Ended(apnsconn.NotSent); n > 150 {
			t.Errorf("%d tries in an hour", n)
		}
		taking.Store(true)
		time.Sleep(20 * time.Minute) // their pauses have grown up to retry.max
		if done, _, _, _ := q.counts(); done != 50 {
			t.Errorf("%d of 50 delivered when APNs takes them again", done)
		}
		b.halt(t)
	})
}

// While APNs takes nothing on connections that it keeps, that is said once, and
// each try has a new connection. However many pushes come back at a time.
func TestStandstillIsSaid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 3000 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		var log strings.Builder
		b.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		var taking atomic.Bool
		var tries atomic.Int64
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if taking.Load() {
				return delivered(n)
			}
			return apnsconn.Outcome{Class: apnsconn.NotSent, Err: errors.New("refused stream")}, time.Duration(tries.Add(1)%7) * time.Millisecond
		}
		b.start()
		time.Sleep(5 * time.Second)
		if s := b.Status(); s.Waiting != "apns takes no pushes" {
			t.Errorf("waiting %q", s.Waiting)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		said := strings.Count(log.String(), "connected to apns, but it refuses every push")
		if n := tries.Load(); said != 1 || n > 300 || b.Status().Waiting == "" {
			t.Errorf("said %d times, %d tries, waiting %q", said, n, b.Status().Waiting)
		}
		if n := len(b.dialTimes()); n < 50 || n > 80 {
			t.Errorf("%d dials in an hour", n)
		}
		taking.Store(true)
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if done, _, _, _ := q.counts(); done != 3000 || b.Status().Waiting != "" || !strings.Contains(log.String(), "apns takes pushes again") {
			t.Errorf("%d done, waiting %q", done, b.Status().Waiting)
		}
		b.halt(t)
	})
}

// A connection that is lost with all pushes unsent is no standstill.
func TestLostConnectionIsNoStandstill(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 300 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		var log strings.Builder
		b.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		var tries atomic.Int64
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if tries.Add(1) <= int64(b.cfg.InFlight) {
				return apnsconn.Outcome{Class: apnsconn.NotSent, Err: errors.New("above the last stream")}, time.Millisecond
			}
			return delivered(n)
		}
		b.start()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if done, _, _, _ := q.counts(); done != 300 || b.Status().Waiting != "" || strings.Contains(log.String(), "takes no pushes") {
			t.Errorf("%d done, waiting %q\n%s", done, b.Status().Waiting, log.String())
		}
		b.halt(t)
	})
}

// A job that expires while it waits here for a connection ends like one that had expired when
// it came.
func TestExpiresWhileItWaitsHere(t *testing.T) {
	for _, extra := range []string{`,"ttl":2`, `,"expiration":%d`} {
		bubble(t, func(t *testing.T) {
			if strings.Contains(extra, "%d") {
				extra = fmt.Sprintf(extra, time.Now().Unix()+2)
			}
			q := newFakeQueue(jobText(extra))
			b := newBench(t, q)
			var log strings.Builder
			b.cfg.Log = newTextLog(&log)
			b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
				b.mu.Lock()
				c := b.conns[len(b.conns)-1]
				b.mu.Unlock()
				c.gone = true // Send holds its lock
				return apnsconn.Outcome{Class: apnsconn.NotSent, Err: errors.New("goaway")}, 0
			}
			b.start()
			time.Sleep(time.Minute)
			b.halt(t)
			rec := b.rec.all()
			if len(rec) != 1 || rec[0].Class != classExpired || !strings.Contains(log.String(), `msg="expired, not sent"`) {
				t.Errorf("%s: records %+v\n%s", extra, rec, log.String())
			}
			if done, _, _, _ := q.counts(); done != 1 || b.app.Counters.Expired.Load() != 1 {
				t.Errorf("%s: done %d, expired %d", extra, done, b.app.Counters.Expired.Load())
			}
		})
	}
}

// APNs counts as reachable once it answers again, even with an error.
func TestAnswersEndUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 20 {
			q.add(jobText(""))
		}
		b := newBench(t, q)
		b.setRefuse(errors.New("refused"))
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "ServiceUnavailable"}, time.Millisecond
		}
		b.start()
		time.Sleep(3 * time.Minute)
		if b.Status().Unreachable == nil {
			t.Error("reachable while dials are refused")
		}
		b.setRefuse(nil)
		time.Sleep(20 * time.Second) // the longest pause between dials is 15 s
		synctest.Wait()
		if err := b.Status().Unreachable; err != nil || b.app.Counters.Ended(apnsconn.Unavailable) == 0 {
			t.Errorf("still %v", err)
		}
		b.halt(t)
	})
}

// A connection that goes on and gives every push back is dropped after a while, also
// if there are few pushes; and so is a new one that leaves its first push unanswered.
func TestFewPushesFindOut(t *testing.T) {
	for name, out := range map[string]apnsconn.Outcome{
		"refused": {Class: apnsconn.NotSent, Err: errors.New("refused stream")},
		"silence": {Class: apnsconn.Unknown, Err: apnsconn.ErrTimeout},
	} {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue()
			b := newBench(t, q)
			b.cfg.Retry = Retry{Min: 2 * time.Second, Max: 10 * time.Second, GiveUpAfter: time.Hour}
			var well atomic.Bool
			well.Store(true)
			b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
				if well.Load() {
					return delivered(n)
				}
				if out.Class == apnsconn.Unknown {
					b.mu.Lock()
					c := b.conns[len(b.conns)-1]
					b.mu.Unlock()
					time.AfterFunc(20*time.Second, func() { c.end(errors.New("two pushes without an answer")) })
					return out, 20 * time.Second
				}
				return out, time.Millisecond
			}
			b.start()
			said := 0 // how often it says that nothing is taken: while a new connection is tried it says nothing
			put := func(d time.Duration) {
				for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(7 * time.Second) {
					q.add(jobText(""))
					if b.Status().Waiting == errTakesNothing.Error() {
						said++
					}
				}
			}
			put(time.Minute)
			well.Store(false)
			put(2 * time.Minute)
			if said == 0 {
				t.Errorf("%s: %+v", name, b.Status())
			}
			well.Store(true)
			put(2 * time.Minute)
			if s := b.Status(); s.Waiting != "" {
				t.Errorf("%s: still %q", name, s.Waiting)
			}
			b.halt(t)
		})
	}
}
