package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// The key again is read as it was written, and the rest of a job stays as it is to the
// byte.
func TestBuriedBody(t *testing.T) {
	o := &origin{
		job: "host:1/17", seed: seed{1, 2, 3}, put: time.Unix(1_700_000_000, 0), attempt: 7,
		bury: "503 \"x\"\n<é>", class: apnsconn.Unavailable, status: 503, apnsID: "6B29", at: time.Unix(1_700_000_100, 0),
	}
	for body, want := range map[string]string{
		jobText(""): jobText(""),
		" {\n \"token\" : \"x\",\t\"again\":null, \"b\":{\"c\":1,\"again\":{\"d\":2}}}\n": `{"token":"x","b":{"c":1,"again":{"d":2}}}`,
		` { "token" : "x", "b" : [ 1 ] } `:                                                ` { "token" : "x", "b" : [ 1 ]}`,
		`{"token":"x","token":",\"again\":{}"}`:                                           `{"token":"x","token":",\"again\":{}"}`,
		`{}`:                                                                              `{}`,
		`{"data":{"a":1,"again":{}}}`:                                                     `{"data":{"a":1,"again":{}}}`,
		string(buriedBody([]byte(jobText("")), o)):                                        jobText(""),
		string(restBody([]byte(fanOutText(manyTokens(2), "")), manyTokens(1), o)): string(AsPut(restBody([]byte(fanOutText(manyTokens(2), "")), manyTokens(1), o))),
	} {
		got := buriedBody([]byte(body), o)
		read, err := originOf(got)
		if err != nil || read == nil || *read != *o {
			t.Fatalf("%s: %+v, %v", got, read, err)
		}
		if put := string(AsPut(got)); put != want || strings.Count(string(got), `"bury"`) != 1 {
			t.Errorf("%s\n as put %s\n want   %s", got, put, want)
		}
	}
	for _, body := range []string{"", "x", "[]", "null", "\xff{}", `{"a":1}x`, `{"again":5}`, `{"again":{}}`, `{"a":"` + "\xff" + `"}`} {
		if got := buriedBody([]byte(body), o); got != nil {
			t.Errorf("%q became %s", body, got)
		}
		if got := string(AsPut([]byte(body))); got != body {
			t.Errorf("%q as put: %q", body, got)
		}
	}
	if o.apnsID = strings.Repeat("x", 36); len(o.append(nil)) > maxAgain-maxBury {
		t.Error("there is no room for a reason")
	}
}

// The reason of a body without one: the parser's error, or that it is not recorded.
func TestBurialOf(t *testing.T) {
	for body, want := range map[string]Burial{
		"garbage":                     {Reason: "job: not JSON", Class: "rejected", Tokens: 1},
		`{"colour":1,"ref":"r"}`:      {Reason: `job: "colour": unknown key`, Class: "rejected", Tokens: 1, Ref: "r"},
		jobText(`,"ref":"r"`):         {Reason: NotRecorded, Tokens: 1, Token: testToken[:8], Ref: "r"},
		fanOutText(manyTokens(3), ""): {Reason: NotRecorded, Tokens: 3, Token: manyTokens(1)[0][:8], Ref: BurialOf([]byte(fanOutText(manyTokens(3), "")), topic).Ref},
	} {
		if got := BurialOf([]byte(body), topic); got != want {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
	}
}

// kick releases a buried job, with the body that it has now.
func (q *fakeQueue) kick(j *fakeJob) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j.kicked = true
	q.ready = append(q.ready, j)
	q.notify()
}

// A buried job keeps its apns-id and its producer's id. Kicked, it is pushed, and buried
// again with APNs' new answer. Without a kick it is buried again unsent, without another
// record.
func TestBuriedAgain(t *testing.T) {
	for name, body := range map[string]string{
		"token": jobText(""), "channel": `{"channel_id":"dHN0LXNyY2gtY2hubA==","payload":{"aps":{}}}`,
		"own id": jobText(`,"id":"6b29fc40-ca47-1067-b31d-00dd010662da"`), "list": fanOutText(manyTokens(1), ""),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(body)
				b := newBench(t, q)
				answer := badTopic
				answer.APNsID = "FIRST"
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return answer, 0 }
				b.start()
				synctest.Wait()
				j := q.buried[0]
				first := j.body
				j.id = "2" // as beanstalkd does

				b.cfg.Memory.Dead(topic, testToken, "Unregistered", 410, time.Now()) // no matter
				q.mu.Lock()
				q.ready = append(q.ready, j) // its burial was interrupted
				q.notify()
				q.mu.Unlock()
				synctest.Wait()
				if len(q.buried) != 2 || b.sent() != 1 || len(b.rec.all()) != 1 || j.body != first {
					t.Fatalf("%d times buried, %d sent, %d records, %s", len(q.buried), b.sent(), len(b.rec.all()), j.body)
				}

				answer = apnsconn.Outcome{Class: apnsconn.Rejected, Status: 413, Reason: "PayloadTooLarge", APNsID: "SECOND"}
				time.Sleep(time.Hour)
				q.kick(j)
				synctest.Wait()
				got := BurialOf([]byte(j.body), topic)
				if got.Reason != "413 PayloadTooLarge" || got.Status != 413 || got.APNsID != "SECOND" || got.Job != "1" || time.Since(got.At) > time.Second || time.Since(got.Put) < time.Hour {
					t.Errorf("%+v", got)
				}
				rec := b.rec.all()
				if len(q.buried) != 3 || len(rec) != 2 || rec[1].Job != "1" || rec[1].Status != 413 {
					t.Errorf("%d times buried, records %+v", len(q.buried), rec)
				}

				b.answer = delivered
				q.kick(j)
				time.Sleep(time.Minute)
				if done, _, _, _ := q.counts(); done != 1 {
					t.Errorf("done %d", done)
				}
				b.checkIDs(t)
				b.halt(t)
			})
		})
	}
}

// The pauses of a kicked job start again, however often it was tried before.
func TestKickedBeginsAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := &origin{job: "1", put: time.Now(), attempt: 500, bury: "503 x", class: apnsconn.Unavailable}
		q := newFakeQueue()
		q.add(string(buriedBody([]byte(jobText("")), o))).kicked = true
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return busy, 0 }
		b.start()
		synctest.Wait()
		if len(q.retried) != 1 || q.retried[0].after > 2*b.cfg.Retry.Min {
			t.Errorf("retried %d times, after %v", len(q.retried), q.retried[0].after)
		}
		b.halt(t)
	})
}

// An unfit job keeps its producer's id, and has no second record unless it is kicked.
func TestUnfitBuriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(`,"colour":"red"`))
		b := newBench(t, q)
		b.start()
		synctest.Wait()
		j := q.buried[0]
		j.id = "2"
		q.mu.Lock()
		q.ready = append(q.ready, j)
		q.notify()
		q.mu.Unlock()
		synctest.Wait()
		if n := len(b.rec.all()); n != 1 || len(q.buried) != 2 {
			t.Errorf("%d records, %d times buried", n, len(q.buried))
		}
		q.kick(j)
		synctest.Wait()
		rec := b.rec.all()
		if got := BurialOf([]byte(j.body), topic); got.Job != "1" || got.Reason != `job: "colour": unknown key` || len(rec) != 2 || rec[1].Job != "1" {
			t.Errorf("%+v, %+v", got, rec)
		}
		b.halt(t)
	})
}

// narrow is a job for which the queue takes only so many bytes; at first it refuses all.
type narrow struct {
	*fakeJob
	most    int
	refuses *int
}

func (j narrow) Bury(ctx context.Context, body []byte) error {
	if *j.refuses--; *j.refuses >= 0 {
		return fmt.Errorf("full: %w", queue.ErrUnavailable)
	}
	if len(body) > j.most || j.most < 0 {
		return fmt.Errorf("%d bytes: %w", len(body), queue.ErrRejected)
	}
	return j.fakeJob.Bury(ctx, body)
}

// If there is no room for a reason it is cut or left out. While the queue refuses, the job
// waits. What has been reported is not reported again.
func TestBurialWithoutRoom(t *testing.T) {
	long := strings.Repeat("x", 400)
	plain := len(jobText(""))
	for _, tt := range []struct {
		most   int
		reason string
	}{
		{plain + maxAgain, "rejected: " + long},
		{plain + 400, ("rejected: " + long)[:shortBury]},
		{plain, NotRecorded},
		{-1, ""},
	} {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue(jobText(""))
			b := newBench(t, q)
			refuses := 3
			b.cfg.Queue = wrapped{played{q}, func(j *fakeJob) queue.Job { return narrow{j, tt.most, &refuses} }}
			b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
				return apnsconn.Outcome{Class: apnsconn.Rejected, Err: errors.New(long)}, 0
			}
			b.start()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if n := len(b.rec.all()); n != 1 || b.sent() != 1 {
				t.Errorf("%d: %d records, %d sent", tt.most, n, b.sent())
			}
			if tt.most < 0 {
				if len(q.retried) != 1 || q.retried[0].after != b.cfg.Retry.Max || len(b.rec.entries) != 0 {
					t.Errorf("retried %d, told %d", len(q.retried), len(b.rec.entries))
				}
			} else if got := BurialOf([]byte(q.buried[0].body), topic); got.Reason != tt.reason || b.rec.entries[0].Reason != "rejected: "+long {
				t.Errorf("%d: %+v, told %+v", tt.most, got, b.rec.entries)
			}
			b.halt(t)
		})
	}
}

// A job that the queue knows to be none, whatever its body says, is buried with why.
func TestFaultOfTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(jobText(""))
		b := newBench(t, q)
		b.cfg.Queue = wrapped{played{q}, func(j *fakeJob) queue.Job { return faulty{j} }}
		b.start()
		synctest.Wait()
		if len(q.buried) != 1 || b.sent() != 0 {
			t.Fatalf("%d buried, %d sent", len(q.buried), b.sent())
		}
		if got := BurialOf([]byte(q.buried[0].body), topic); !strings.Contains(got.Reason, "on the wrong subject") {
			t.Errorf("%+v", got)
		}
		b.halt(t)
	})
}

type faulty struct{ *fakeJob }

func (faulty) Fault() error { return errors.New("on the wrong subject") }
