package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker/feedback"
	"propeller/worker/job"
)

// Records that are slow to be put do not make the worker take more and more
// jobs.
func TestSlowRecordsBoundTheJobsHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		for range 3000 {
			q.add(fanOutText(manyTokens(100), `,"expiration":1`))
		}
		b := newBench(t, q)
		b.cfg.InFlight = 10
		var put atomic.Int64
		b.cfg.Feedback = func(ctx context.Context, r feedback.Record) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(2 * time.Second):
				put.Add(1)
				return nil
			}
		}
		b.start()
		most, lingering := 0, 0
		for range 180 {
			time.Sleep(time.Second)
			synctest.Wait()
			s := b.Status()
			most, lingering = max(most, s.Reserved), max(lingering, s.Lingering)
		}
		if most > 2*b.cfg.InFlight || lingering != b.cfg.InFlight {
			t.Errorf("%d jobs held, %d of them lingering, with in_flight %d", most, lingering, b.cfg.InFlight)
		}
		// 20 jobs, each with 8 records at a time that take 2 s.
		if n := put.Load(); n < 20*8*60 {
			t.Errorf("%d records in 3 minutes", n)
		}
		b.stop()
		<-b.served
	})
}

// A record that cannot be put at once holds up those that are left, and no
// other is put twice.
func TestRecordsGoOnWhereTheyFailed(t *testing.T) {
	const n = 900
	for name, tt := range map[string]struct {
		extra  string
		answer apnsconn.Outcome
	}{"expired": {`,"expiration":1`, gone}, "dead": {"", gone}, "rejected": {"", badTopic}, "garbage": {`,"nonsense":1`, gone}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(fanOutText(manyTokens(n), tt.extra))
				b := newBench(t, q)
				var tries, put atomic.Int64
				b.cfg.Feedback = func(context.Context, feedback.Record) error {
					if tries.Add(1)%500 == 0 {
						return queue.ErrUnavailable
					}
					put.Add(1)
					return nil
				}
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return tt.answer, 0 }
				b.start()
				time.Sleep(time.Hour)
				synctest.Wait()
				if done, buried, retried, _ := q.counts(); done+buried != 1 || retried != 0 || put.Load() != n {
					t.Errorf("done %d, buried %d, retried %d, %d records", done, buried, retried, put.Load())
				}
				b.halt(t)
			})
		})
	}
}

// The records of malformed tokens are not lost when that of a dead one has to wait.
func TestRecordsOfMalformedTokensWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(2)
		q := newFakeQueue(fanOutText(append(tokens, "zz-not-hex"), `,"ttl":8`))
		b := newBench(t, q)
		b.answer = byToken{tokens[0]: gone}.answer
		b.rec.setFail(queue.ErrUnavailable)
		b.start()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		b.rec.setFail(nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		var got []string
		for _, r := range b.rec.all() {
			got = append(got, r.Class+" "+r.Token)
		}
		slices.Sort(got)
		if want := []string{"rejected zz-not-hex", "token " + tokens[0]}; !slices.Equal(got, want) {
			t.Errorf("records %q, want %q", got, want)
		}
		if done, _, _, _ := q.counts(); done != 1 || b.sent() != 2 {
			t.Errorf("done %d, sent %d", done, b.sent())
		}
		b.halt(t)
	})
}

// A token that APNs has called dead is reported as that, also when its job was
// given back meanwhile and has expired.
func TestDeadTokenOfAnExpiredJob(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(2)
		q := newFakeQueue(fanOutText(tokens, `,"ttl":60`))
		b := newBench(t, q)
		b.answer = byToken{tokens[0]: gone}.answer
		b.rec.setFail(queue.ErrUnavailable)
		b.start()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		b.halt(t)
		q.mu.Lock()
		q.ready = append(q.ready, q.retried...) // as the queue gives it back
		q.mu.Unlock()
		b.rec.setFail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if rec := b.rec.all(); len(rec) == 0 || rec[0].Token != tokens[0] || rec[0].Class != "token" || rec[0].Status != 410 {
			t.Errorf("%+v", rec)
		}
		b.halt(t)
	})
}

// At the end of a run what waits is tried until the time to finish is over, and
// then falls back whole.
func TestStopWhileRestsWait(t *testing.T) {
	for name, comesBack := range map[string]bool{"the queue comes back": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tokens := manyTokens(3)
				q := newFakeQueue(fanOutText(tokens, ""))
				var up atomic.Bool
				q.refuse = func(string) error {
					if !up.Load() {
						return queue.ErrUnavailable
					}
					return nil
				}
				b := newBench(t, q)
				b.answer = byToken{tokens[0]: busy}.answer
				b.start()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if comesBack {
					time.AfterFunc(5*time.Second, func() { up.Store(true) })
				}
				begun := time.Now()
				b.halt(t)
				took := time.Since(begun)
				done, _, _, _ := q.counts()
				if done != b2i(comesBack) || len(q.puts) != b2i(comesBack) || took > 12*time.Second || comesBack && took > 7*time.Second {
					t.Errorf("done %d, put %d, took %v", done, len(q.puts), took)
				}
				// Pushed again.
				if d, want := b.app.Counters.PossibleDuplicates.Load(), int64(2*b2i(!comesBack)); d != want {
					t.Errorf("%d possible duplicates, want %d", d, want)
				}
			})
		})
	}
}

// A panic while records are put side by side buries the job.
func TestPanicInARecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(fanOutText(manyTokens(20), ""), jobText(""))
		b := newBench(t, q)
		var n atomic.Int64
		b.cfg.Feedback = func(context.Context, feedback.Record) error {
			if n.Add(1) == 5 {
				panic("record")
			}
			return nil
		}
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if n.Token == testToken {
				return delivered(n)
			}
			return gone, 0
		}
		b.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if done, buried, _, _ := q.counts(); done != 1 || buried != 1 || b.app.Counters.Panics.Load() != 1 {
			t.Errorf("done %d, buried %d, %d panics", done, buried, b.app.Counters.Panics.Load())
		}
		b.halt(t)
	})
}

// What APNs has refused is not sent again: neither while its record has to
// wait, nor in a rest job, nor over a restart in mid-list.
func TestRefusedIsNotRepeated(t *testing.T) {
	tooLarge := apnsconn.Outcome{Class: apnsconn.Rejected, Status: 413, Reason: "PayloadTooLarge"}
	t.Run("record waits", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue(jobText(""))
			b := newBench(t, q)
			b.rec.setFail(queue.ErrUnavailable)
			b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return tooLarge, 0 }
			b.start()
			time.Sleep(time.Hour)
			synctest.Wait()
			b.rec.setFail(nil)
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if _, buried, _, _ := q.counts(); b.sent() != 1 || buried != 1 || len(b.rec.all()) != 1 {
				t.Errorf("%d pushes, %d buried, records %+v", b.sent(), buried, b.rec.all())
			}
			b.halt(t)
		})
	})
	t.Run("one malformed", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			tokens := manyTokens(10)
			q := newFakeQueue(fanOutText(append(tokens, "zz"), ""))
			b := newBench(t, q)
			b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return tooLarge, 0 }
			b.start()
			time.Sleep(time.Hour)
			synctest.Wait()
			if _, buried, _, _ := q.counts(); b.sent() != 10 || buried != 1 || len(q.puts) != 0 || len(b.rec.all()) != 11 {
				t.Errorf("%d pushes, %d buried, %d put, %d records", b.sent(), buried, len(q.puts), len(b.rec.all()))
			}
			b.halt(t)
		})
	})
	t.Run("stopped in between", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue(fanOutText(manyTokens(900), ""))
			b := newBench(t, q)
			b.cfg.InFlight = 500
			b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return tooLarge, time.Second }
			b.start()
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			b.halt(t)
			b.start()
			time.Sleep(time.Hour)
			synctest.Wait()
			pushes := 0
			for _, n := range b.pushesTo() {
				pushes += n
			}
			if _, buried, _, ready := q.counts(); pushes != 900 || buried != 2 || ready != 0 || len(b.rec.all()) != 900 {
				t.Errorf("%d pushes, %d buried, %d ready, %d records", pushes, buried, ready, len(b.rec.all()))
			}
			b.halt(t)
		})
	})
	t.Run("given up", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			tokens := manyTokens(2)
			q := newFakeQueue()
			q.add(fanOutText(tokens, "")).put = time.Now().Add(-48 * time.Hour)
			b := newBench(t, q)
			b.answer = byToken{tokens[0]: silence}.answer
			b.start()
			time.Sleep(time.Hour)
			synctest.Wait()
			if sent := b.pushesTo(); sent[tokens[0]] != 1 || b.app.Counters.PossibleDuplicates.Load() != 0 {
				t.Errorf("%d pushes, %d possible duplicates", sent[tokens[0]], b.app.Counters.PossibleDuplicates.Load())
			}
			if rec := b.rec.all(); len(rec) != 1 || rec[0].Class != "unknown" || !strings.HasPrefix(rec[0].Reason, "gave up after 48h") {
				t.Errorf("%+v", rec)
			}
			e := b.rec.entries
			if len(e) != 1 || e[0].Class != "unknown" || !strings.HasPrefix(e[0].Reason, "gave up after 48h") {
				t.Errorf("%+v", e)
			}
			b.halt(t)
		})
	})
}

// The rest with refused tokens is pushed once somebody has kicked it, however
// often it was handed out before, and can be too late then.
func TestKickedRefusedRest(t *testing.T) {
	for extra, class := range map[string]string{"": "", `,"ttl":60`: "expired", `,"expiration":946684860`: "expired"} {
		bubble(t, func(t *testing.T) { // begins at 2000-01-01, which is 946684800
			tokens := manyTokens(5)
			q := newFakeQueue(fanOutText(tokens, extra))
			b := newBench(t, q)
			var right atomic.Bool
			b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
				if right.Load() || n.Token == tokens[4] {
					return delivered(n)
				}
				return badTopic, 0
			}
			b.start()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if done, buried, _, _ := q.counts(); done != 1 || buried != 1 || b.sent() != 5 {
				t.Fatalf("done %d, buried %d, sent %d", done, buried, b.sent())
			}
			j := q.buried[0]
			want := "400 BadTopic (and 3 more of its tokens likewise)"
			if parsed, err := job.Parse([]byte(j.body), topic, j.id); err != nil || parsed.Refused() != want {
				t.Errorf("%v: %q", err, parsed.Refused())
			}
			if b.rec.entries[0].Reason != want || b.rec.entries[0].ID != j.id {
				t.Errorf("%+v", b.rec.entries)
			}
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			right.Store(true)
			q.mu.Lock()
			j.kicked = true
			q.ready = append(q.ready, j)
			q.notify()
			q.mu.Unlock()
			time.Sleep(time.Minute)
			synctest.Wait()
			rec := b.rec.all()
			sent, records := 9, 4
			if class != "" {
				sent, records = 5, 8
			}
			if done, _, _, _ := q.counts(); done != 2 || b.sent() != sent || len(rec) != records || class != "" && rec[7].Class != class {
				t.Errorf("%s: done %d, sent %d, records %+v", extra, done, b.sent(), rec)
			}
			b.checkIDs(t)
			b.halt(t)
		})
	}
}

// A job may not be buried after all, or be tried again as well: then what may have been
// pushed counts, and the log says so.
func TestBurialFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue()
		q.add(jobText("")).put = time.Now().Add(-48 * time.Hour)
		b := newBench(t, q)
		b.cfg.Queue = wrapped{played{q}, func(j *fakeJob) queue.Job { return unburied{j} }}
		var log strings.Builder
		b.cfg.Log = newTextLog(&log)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return silence, 0 }
		b.start()
		synctest.Wait()
		if d := b.app.Counters.PossibleDuplicates.Load(); d != 1 {
			t.Errorf("%d possible duplicates", d)
		}
		b.halt(t)
		if !strings.Contains(log.String(), "may be buried as well") {
			t.Error(log.String())
		}
	})
}

type unburied struct{ *fakeJob }

func (unburied) Bury(context.Context, []byte) error { return queue.ErrLost }

// What somebody writes into again is bounded, and does not get into the log whole.
func TestForgedOrigin(t *testing.T) {
	body := func(job string) string {
		return fmt.Sprintf(`{"tokens":["%s"],"title":"t","again":{"job":"%s","seed":"%032d","put":1,"attempt":0}}`, manyTokens(1)[0], job, 0)
	}
	if _, err := job.Parse([]byte(body(strings.Repeat("x", 280+1))), topic, "1"); err == nil {
		t.Error("taken")
	}
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(body(strings.Repeat(testToken, 4)))
		b := newBench(t, q)
		var log strings.Builder
		b.cfg.Log = newTextLog(&log)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return gone, 0 }
		b.start()
		synctest.Wait()
		b.halt(t)
		if got := log.String(); strings.Contains(got, testToken) || !strings.Contains(got, testToken[10:]) {
			t.Error(got)
		}
	})
	for _, again := range []string{`"bury":"x"`, `"class":"token"`, `"bury":"","class":"token"`, `"bury":"x","class":"nonsense"`, `"bury":"` + strings.Repeat("x", job.MaxReason+1) + `","class":"token"`} {
		forged := strings.Replace(body("1"), `"attempt":0`, `"attempt":0,`+again, 1)
		if _, err := job.Parse([]byte(forged), topic, "1"); err == nil {
			t.Errorf("%s is taken", again)
		}
	}
}
