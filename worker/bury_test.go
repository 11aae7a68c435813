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
	"propeller/worker/job"
)

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

				b.app.tokens.setDead(topic, testToken, "Unregistered", 410, time.Now()) // no matter
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
				got := job.BurialOf([]byte(j.body), topic)
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
		o := &job.Parent{Job: "1", Put: time.Now(), Attempt: 500, Reason: "503 x", Class: apnsconn.Unavailable}
		q := newFakeQueue()
		q.add(string(job.BuriedBody([]byte(jobText("")), o, job.MaxReason))).kicked = true
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
		if got := job.BurialOf([]byte(j.body), topic); got.Job != "1" || got.Reason != `job: "colour": unknown key` || len(rec) != 2 || rec[1].Job != "1" {
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
		{plain + job.MaxParent, "rejected: " + long},
		{plain + 400, ("rejected: " + long)[:job.ShortReason]},
		{plain, job.NotRecorded},
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
			} else if got := job.BurialOf([]byte(q.buried[0].body), topic); got.Reason != tt.reason || b.rec.entries[0].Reason != "rejected: "+long {
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
		if got := job.BurialOf([]byte(q.buried[0].body), topic); !strings.Contains(got.Reason, "on the wrong subject") {
			t.Errorf("%+v", got)
		}
		b.halt(t)
	})
}

type faulty struct{ *fakeJob }

func (faulty) Fault() error { return errors.New("on the wrong subject") }

// The record of a job that expired in the tube says why it could never be sent.
func TestRecordsOfExpiredJobs(t *testing.T) {
	for name, test := range map[string]struct {
		more string        // %d: now
		age  time.Duration // of the job
		want string
	}{
		"duration":       {`,"expiration":3600`, 0, "expired before it was sent: expiration is 3600, a time in 1970: write Unix time"},
		"before the put": {`,"expiration":%d`, 0, ""},
		"long before":    {`,"expiration":400000000`, time.Minute, "expired before it was sent: expiration is 1982-09-04T15:06:40Z, and the job was put later, at "},
		"in the queue":   {`,"expiration":%d`, time.Hour, ""},
		"ttl":            {`,"ttl":60`, time.Minute, "expired before it was sent: older than its ttl of 1m0s, which counts from the put, as a delay does"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				more := test.more
				if strings.Contains(more, "%d") {
					more = fmt.Sprintf(more, time.Now().Unix())
				}
				q := newFakeQueue()
				q.add(jobText(more)).put = time.Now().Add(-test.age)
				b := newBench(t, q)
				b.start()
				synctest.Wait()
				b.halt(t)
				rec := b.rec.all()
				if len(rec) != 1 || rec[0].Class != "expired" {
					t.Fatalf("%+v", rec)
				}
				if want := test.want; want == "" && rec[0].Reason != "expired before it was sent" || !strings.HasPrefix(rec[0].Reason, want) {
					t.Errorf("%s, want %s", rec[0].Reason, want)
				}
			})
		})
	}
}

// With a certificate Live Activities pass, until APNs has refused one.
func TestLiveActivitiesOfACertificate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		live := `{` + tok + `,"aps":{"event":"update","timestamp":1,"content-state":{}}}`
		q := newFakeQueue(live, jobText(""))
		b := newBench(t, q)
		var log strings.Builder
		b.cfg.Log, b.cfg.Certificate = newTextLog(&log), true
		refuse := false
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if refuse && n.PushType == "liveactivity" {
				return apnsconn.Outcome{Class: apnsconn.Credential, Status: 400, Reason: "TopicDisallowed"}, 0
			}
			return delivered(n)
		}
		b.start()
		time.Sleep(time.Second)
		if done, buried, _, _ := q.counts(); done != 2 || buried != 0 || strings.Count(log.String(), "Live Activity") != 1 {
			t.Errorf("%d done, %d buried\n%s", done, buried, log.String())
		}
		refuse = true
		q.add(live)
		time.Sleep(time.Second)
		sent := b.sent()
		q.add(live)
		q.add(jobText(""))
		time.Sleep(time.Second)
		if done, buried, _, _ := q.counts(); done != 3 || buried != 2 || b.sent() != sent+1 || strings.Count(log.String(), "Live Activity with") != 1 {
			t.Errorf("%d done, %d buried, %d sent\n%s", done, buried, b.sent()-sent, log.String())
		}
		app := b.app.Rules()
		if _, err := app.Parse([]byte(live), "1"); err == nil || !strings.HasPrefix(err.Error(), "job: push_type: ") {
			t.Errorf("put: %v", err)
		}
		time.Sleep(time.Hour)
		if _, err := app.Parse([]byte(live), "1"); err != nil {
			t.Errorf("an hour later: %v", err)
		}
		b.halt(t)
	})
}

// Whatever is wrong with a job, and wherever: its record has the address and the ref that
// can be read.
func TestRecordsOfJobsThatCannotWork(t *testing.T) {
	other := manyTokens(1)[0]
	const ref = `"ref":"order 7"`
	long := strings.Repeat("ü", 256)
	for job, want := range map[string]string{
		`{"colour":1,` + tok + `,` + ref + `}`:                               testToken + " order 7",
		`{"badge":"x",` + ref + `,` + tok + `}`:                              testToken + " order 7",
		`{"title":"a","title":"b",` + tok + `,` + ref + `}`:                  testToken + " order 7",
		`{"token_since":"soon",` + ref + `,` + tok + `}`:                     testToken + " order 7",
		`{"token_since":99999999999999,` + ref + `,` + tok + `}`:             testToken + " order 7",
		`{` + tok + `,` + ref + `,"aps":{"a":1,"a":2}}`:                      testToken + " order 7",
		`{"again":{},` + tok + `,` + ref + `}`:                               testToken + " order 7",
		`{` + tok + `,` + ref + `,"title":"cut o`:                            testToken + " order 7",
		`{` + tok + `,` + ref + `}}`:                                         testToken + " order 7",
		"{\"title\":\"M\xfcller\"," + tok + `,` + ref + `}`:                  testToken + " order 7",
		"{" + tok + ",\"ref\":\"M\xfcller\"}":                                testToken + " Mller",
		`{` + tok + `,"title":"t","ref":4711}`:                               testToken + " 4711",
		`{` + tok + `,"title":"t","ref":"` + long + `"}`:                     testToken + " " + long[:256],
		`{` + ref + `,"title":"t"}`:                                          " order 7",
		`{` + ref + `,"title":"t","token":"xyz ü"}`:                          "xyz ü order 7",
		`{` + ref + `,"title":"t","token":"` + other + `\n"}`:                other + "\n order 7",
		`{` + ref + `,"title":"t","token":["` + testToken + `"]}`:            testToken + " order 7",
		`{` + ref + `,"title":"t","tokens":"` + testToken + `"}`:             testToken + " order 7",
		`{"x":1,"tokens":["` + other + `","` + testToken + `"],` + ref + `}`: other + " order 7|" + testToken + " order 7",
		`{"x":1,"tokens":["zz","` + testToken + `"],` + ref + `}`:            testToken + " order 7|zz order 7",
		`{` + tok + `,"tokens":["` + other + `"],` + ref + `}`:               other + " order 7|" + testToken + " order 7",
		`{` + tok + `,"tokens":"zz",` + ref + `}`:                            testToken + " order 7|zz order 7",
		`{"x":1,"channel_id":"eA==",` + ref + `}`:                            "eA== order 7",
		`{"channel_id":"eA==",` + tok + `,` + ref + `}`:                      testToken + "eA== order 7",
		`[` + tok + `]`:               " ",
		`{"token":{"a":1},"ref":[1]}`: " ",
	} {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue(job)
			b := newBench(t, q)
			b.start()
			synctest.Wait()
			b.halt(t)
			var got []string
			for _, r := range b.rec.all() {
				if r.Class != "rejected" || r.Reason == "" || strings.Contains(r.Reason, testToken) {
					t.Errorf("%s: %+v", job, r)
				}
				got = append(got, r.Token+r.ChannelID+" "+r.Ref)
			}
			if g := strings.Join(got, "|"); g != want {
				t.Errorf("%s:\n%q, want %q", job, g, want)
			}
			if len(q.buried) != 1 {
				t.Errorf("%s: %d buried", job, len(q.buried))
			}
		})
	}
}
