package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// byToken answers by the device token, and delivers what it does not know.
type byToken map[string]apnsconn.Outcome

func (m byToken) answer(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
	if o, ok := m[n.Token]; ok {
		return o, 0
	}
	return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 0
}

var (
	gone     = apnsconn.Outcome{Class: apnsconn.Token, Status: 410, Reason: "Unregistered", Since: time.Unix(1_700_000_000, 0)}
	badTopic = apnsconn.Outcome{Class: apnsconn.Rejected, Status: 400, Reason: "BadTopic"}
	busy     = apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "ServiceUnavailable"}
	tooMany  = apnsconn.Outcome{Class: apnsconn.Throttled, Status: 429, Reason: "TooManyRequests"}
	bounced  = apnsconn.Outcome{Class: apnsconn.Credential, Status: 403, Reason: "BadCertificate"}
	silence  = apnsconn.Outcome{Class: apnsconn.Unknown, Err: errors.New("no answer")}
)

// pushesTo counts the pushes to each token.
func (b *bench) pushesTo() map[string]int {
	count := make(map[string]int)
	b.eachSent(func(n *apnsconn.Notification) { count[n.Token]++ })
	return count
}

func (b *bench) eachSent(f func(n *apnsconn.Notification)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.mu.Lock()
		for _, n := range c.sent {
			f(n)
		}
		c.mu.Unlock()
	}
}

// checkIDs checks that each token had one apns-id of its own in all pushes, as
// it must when all come of one job.
func (b *bench) checkIDs(t *testing.T) {
	t.Helper()
	ids, owner := make(map[string]string), make(map[string]string)
	b.eachSent(func(n *apnsconn.Notification) {
		if id, ok := ids[n.Token]; ok && id != n.ID {
			t.Errorf("token %.8s has the ids %s and %s", n.Token, id, n.ID)
		}
		if o, ok := owner[n.ID]; ok && o != n.Token {
			t.Errorf("two tokens have the id %s", n.ID)
		}
		ids[n.Token], owner[n.ID] = n.ID, n.Token
	})
}

func TestFanOutDelivers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(900)
		body := fanOutText(append(slices.Clone(tokens), tokens[:50]...), "")
		if len(body) > 65535 {
			t.Fatalf("%d bytes do not fit into a job of beanstalkd", len(body))
		}
		q := newFakeQueue(body, body)
		b := newBench(t, q)
		b.logPushes("failures")
		b.start()
		time.Sleep(time.Minute)
		if done, buried, retried, ready := q.counts(); done != 2 || buried+retried+ready+len(q.puts) != 0 {
			t.Errorf("done %d, buried %d, retried %d, ready %d, put %d", done, buried, retried, ready, len(q.puts))
		}
		if n := b.app.Counters.Ended(apnsconn.Delivered); n != 1800 {
			t.Errorf("%d delivered", n)
		}
		if s := b.Status(); s.Reserved != 0 || s.InFlight != 0 || s.Received != 2 || s.Finished != 1802 {
			t.Errorf("%+v", s)
		}
		if most := b.conns[0].most; most != b.cfg.InFlight {
			t.Errorf("%d pushes at once with in_flight %d", most, b.cfg.InFlight)
		}
		b.halt(t)
		b.mu.Lock()
		count := len(b.conns[0].sent)
		b.mu.Unlock()
		if count != 1800 {
			t.Errorf("%d pushes for two jobs of 900 tokens", count)
		}
	})
}

// Slots are counted by push, whatever the jobs are; of large jobs few are taken.
func TestFanOutSlots(t *testing.T) {
	for _, tt := range []struct{ inFlight, limit, want int }{{1, 1000, 1}, {7, 1000, 7}, {100, 10, 10}, {500, 1000, 500}} {
		bubble(t, func(t *testing.T) {
			q := newFakeQueue()
			for i := range 40 {
				q.add(fanOutText(manyTokens(150), ""))
				if i%3 == 0 {
					q.add(jobText(""))
				}
			}
			b := newBench(t, q)
			b.cfg.InFlight, b.limit = tt.inFlight, tt.limit
			b.start()
			time.Sleep(time.Second)
			if s := b.Status(); s.Reserved > firstJobs+2 {
				t.Errorf("in_flight %d: %d jobs of 150 tokens held", tt.inFlight, s.Reserved)
			}
			time.Sleep(time.Hour)
			if done, _, _, _ := q.counts(); done != 54 {
				t.Errorf("in_flight %d, %d streams: %d of 54 jobs done", tt.inFlight, tt.limit, done)
			}
			if most := b.conns[0].most; most != tt.want {
				t.Errorf("in_flight %d, %d streams: %d pushes at once", tt.inFlight, tt.limit, most)
			}
			b.halt(t)
		})
	}
}

func TestMalformedTokensInAList(t *testing.T) {
	bubble(t, func(t *testing.T) {
		good := manyTokens(2)
		q := newFakeQueue(
			`{"tokens":["`+strings.ToUpper(good[0])+`","zz",5,"`+good[1]+`","`+good[0]+`",null,"`+strings.Repeat("x", 500)+`"],"title":"t"}`,
			`{"tokens":["zz","abc"],"title":"t"}`, `{"tokens":[],"title":"t"}`)
		b := newBench(t, q)
		b.start()
		time.Sleep(time.Second)
		if done, buried, _, _ := q.counts(); done != 1 || buried != 2 {
			t.Errorf("done %d, buried %d", done, buried)
		}
		if sent := b.pushesTo(); len(sent) != 2 || sent[good[0]] != 1 || sent[good[1]] != 1 {
			t.Errorf("%v", sent)
		}
		var got []string
		for _, r := range b.rec.all() {
			if r.Job == "1" {
				got = append(got, fmt.Sprintf("%s %.4s %s", r.Class, r.Token, r.Reason))
			}
		}
		want := []string{
			"rejected zz job: tokens[1]: has 2 characters, want 8 to 400 hex digits",
			"rejected  job: tokens[2]: must be a string",
			"rejected  job: tokens[5]: must be a string",
			"rejected xxxx job: tokens[6]: has 500 characters, want 8 to 400 hex digits",
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("records\n%q, want\n%q", got, want)
		}
		b.halt(t)
	})
}

// One garbage job does not flood the records.
func TestRecordsOfManyMalformedTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var list strings.Builder
		for i := range 5000 {
			fmt.Fprintf(&list, `1,"zz-%d",`, i)
		}
		q := newFakeQueue(`{"title":"t","tokens":[`+list.String()+`"`+testToken+`"]}`, `{"title":"t","tokens":[`+list.String()+`1]}`)
		b := newBench(t, q)
		b.start()
		time.Sleep(time.Second)
		if done, buried, _, _ := q.counts(); done != 1 || buried != 1 || b.sent() != 1 {
			t.Errorf("done %d, buried %d, sent %d", done, buried, b.sent())
		}
		for _, job := range []string{"1", "2"} {
			n, more := 0, 0
			for _, r := range b.rec.all() {
				if r.Job == job {
					n++
					more += b2i(r.Token == "" && strings.Contains(r.Reason, "4901 more"))
				}
			}
			if n != 101 || more != 1 {
				t.Errorf("job %s: %d records, %d of the others", job, n, more)
			}
		}
		b.halt(t)
	})
}

// At the end, jobs that have not been begun go back; of those under way only
// what has not ended does.
func TestDrainAmidFanOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(300)
		q := newFakeQueue(fanOutText(tokens, `,"ref":"r7","badge":3`))
		b := newBench(t, q)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			o := apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}
			if slices.Index(tokens, n.Token) < 80 {
				return o, 5 * time.Second
			}
			return o, time.Hour
		}
		b.start()
		time.Sleep(time.Second)
		b.halt(t)
		if done, _, retried, _ := q.counts(); done != 1 || retried != 0 || len(q.puts) != 2 {
			t.Fatalf("done %d, retried %d, put %d", done, retried, len(q.puts))
		}
		b.checkRests(t, [][]string{tokens[100:], tokens[80:100]}, []bool{false, true})
		if d := b.app.Counters.PossibleDuplicates.Load(); d != 20 {
			t.Errorf("%d possible duplicates, want the 20 that were on their way", d)
		}
	})
}

// With nothing ended, the job falls back with the connection to the queue.
func TestDrainWithNothingEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(fanOutText(manyTokens(30), ""))
		b := newBench(t, q)
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Hour
		}
		b.start()
		time.Sleep(time.Second)
		begun := time.Now()
		b.halt(t)
		if done, _, _, _ := q.counts(); done != 0 || len(q.puts) != 0 {
			t.Errorf("done %d, put %d", done, len(q.puts))
		}
		if d := time.Since(begun); d > 13*time.Second {
			t.Errorf("stop took %v with a drain of 10s", d)
		}
		if d := b.app.Counters.PossibleDuplicates.Load(); d != 30 {
			t.Errorf("%d possible duplicates, want 30", d)
		}
	})
}

// The connection is lost amid a fan-out: the tokens that wait go out over the
// next one, the others come again.
func TestConnectionLostAmidFanOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(300)
		q := newFakeQueue(fanOutText(tokens, ""))
		b := newBench(t, q)
		b.start()
		time.Sleep(60 * time.Millisecond) // 100 delivered, 100 under way
		b.mu.Lock()
		c := b.conns[0]
		b.mu.Unlock()
		c.end(errors.New("reset"))
		time.Sleep(time.Minute)
		b.checkIDs(t)
		sent, again := b.pushesTo(), 0
		for i, token := range tokens {
			again += sent[token] - 1
			if sent[token] == 0 {
				t.Fatalf("token %d never pushed", i)
			}
		}
		if d := b.app.Counters.PossibleDuplicates.Load(); int(d) != again || again != 100 {
			t.Errorf("%d pushed again, %d possible duplicates, want 100", again, d)
		}
		if len(q.puts) != 1 || len(b.dialTimes()) != 2 || b.Status().Reserved != 0 {
			t.Errorf("%d put, %d dials, %+v", len(q.puts), len(b.dialTimes()), b.Status())
		}
		b.halt(t)
	})
}

// While APNs cannot be reached no job is kept here.
func TestApnsAbsentForFanOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(fanOutText(manyTokens(300), ""), fanOutText(manyTokens(300), `,"ttl":86400`))
		b := newBench(t, q)
		b.setRefuse(errors.New("refused"))
		b.start()
		time.Sleep(10 * time.Minute)
		if s := b.Status(); !strings.HasPrefix(s.Waiting, "apns not reachable: ") || s.Reserved != 0 || s.Finished != 0 {
			t.Errorf("%+v", s)
		}
		if n := len(b.dialTimes()); n > 60 {
			t.Errorf("%d dials in 10 minutes", n)
		}
		b.setRefuse(nil)
		time.Sleep(3 * time.Minute)
		if done, _, _, _ := q.counts(); done != 2 || b.Status().Waiting != "" {
			t.Errorf("done %d, %+v", done, b.Status())
		}
		b.halt(t)
	})
}

// A broken app probes with the first token of a job; the others follow when it
// is healed.
func TestProbeOfFanOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(300)
		q := newFakeQueue(fanOutText(tokens, ""))
		b := newBench(t, q)
		var works atomic.Bool
		b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if works.Load() {
				return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Second
			}
			return bounced, time.Second
		}
		b.app.breaker.trip("test", time.Now())
		b.start()
		time.Sleep(10*time.Minute + 30*time.Second)
		if sent := b.pushesTo(); len(sent) != 1 || sent[tokens[0]] < 9 || sent[tokens[0]] > 11 {
			t.Errorf("%v tokens probed in 10 minutes", sent)
		}
		if done, _, _, ready := q.counts(); done != 0 || ready != 1 || len(q.puts) != 0 {
			t.Errorf("done %d, ready %d, put %d", done, ready, len(q.puts))
		}
		works.Store(true)
		time.Sleep(2 * time.Minute)
		if done, _, _, _ := q.counts(); done != 1 || len(q.puts) != 0 {
			t.Errorf("done %d, put %d", done, len(q.puts))
		}
		b.halt(t)
	})
}

// The probe's first token may be one that is not sent: the app recovers all the
// same.
func TestProbeOfARememberedToken(t *testing.T) {
	for name, tell := range map[string]func(m *tokenCache, token string){
		"dead":      func(m *tokenCache, token string) { m.setDead(topic, token, "Unregistered", 410, time.Now()) },
		"throttled": func(m *tokenCache, token string) { m.throttle(topic, token, time.Now().Add(time.Minute)) },
	} {
		for _, body := range []string{fanOutText(manyTokens(3), ""), `{"token":"` + manyTokens(1)[0] + `","title":"t"}`} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					q := newFakeQueue(body)
					b := newBench(t, q)
					b.app.breaker.trip("test", time.Now())
					tell(b.app.tokens, manyTokens(1)[0])
					b.start()
					time.Sleep(10 * time.Minute)
					q.add(jobText(""))
					time.Sleep(2 * time.Minute)
					if s := b.app.breaker.State(); s.Broken {
						t.Errorf("%+v", s)
					}
					if done, _, _, ready := q.counts(); ready != 0 || done < 2 || len(q.asked) > 100 {
						t.Errorf("done %d, ready %d, asked %d times", done, ready, len(q.asked))
					}
					b.halt(t)
				})
			})
		}
	}
}

// What of a list is not sent before its time is over has expired.
func TestFanOutExpiresInMidList(t *testing.T) {
	for extra, late := range map[string]bool{
		`,"ttl":60`: true, `,"expiration":946684860`: true, `,"ttl":600,"expiration":946684860`: true,
		`,"ttl":60,"expiration":946685400`: true, "": false, `,"expiration":0`: false,
	} {
		bubble(t, func(t *testing.T) { // begins at 2000-01-01, which is 946684800
			begun, tokens := time.Now(), manyTokens(900)
			q := newFakeQueue(fanOutText(tokens, extra))
			b := newBench(t, q)
			b.cfg.InFlight = 1
			b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
				if late && time.Since(begun) >= time.Minute {
					t.Errorf("%s: sent after %v", extra, time.Since(begun))
				}
				return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, time.Second
			}
			b.start()
			time.Sleep(time.Hour)
			synctest.Wait()
			sent, expired := b.sent(), 0
			for _, r := range b.rec.all() {
				expired += b2i(r.Class == classExpired && r.Token != "")
			}
			if done, _, _, _ := q.counts(); done != 1 || sent+expired != 900 || late && (sent < 58 || sent > 60) || !late && sent != 900 {
				t.Errorf("%s: done %d, %d sent, %d expired", extra, done, sent, expired)
			}
			if n := b.app.Counters.Expired.Load(); n != int64(b2i(late)) {
				t.Errorf("%s: %d jobs expired", extra, n)
			}
			b.halt(t)
		})
	}
}

// panicConn panics at one push.
type panicConn struct {
	*fakeConn
	at string
}

func (c panicConn) Send(n *apnsconn.Notification, done func(apnsconn.Outcome)) {
	if n.Token == c.at {
		panic("send")
	}
	c.fakeConn.Send(n, done)
}

// A panic in the middle of a list buries the job, and no slot is lost.
func TestPanicInMidList(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(100)
		q := newFakeQueue(fanOutText(tokens, ""), jobText(""))
		b := newBench(t, q)
		dial := b.cfg.Dial
		b.cfg.Dial = func(ctx context.Context, onChange func()) (Conn, error) {
			c, err := dial(ctx, onChange)
			if err != nil {
				return nil, err
			}
			return panicConn{c.(*fakeConn), tokens[3]}, nil
		}
		b.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if done, buried, _, _ := q.counts(); done != 1 || buried != 1 {
			t.Errorf("done %d, buried %d", done, buried)
		}
		if s := b.Status(); s.InFlight != 0 || s.Reserved != 0 {
			t.Errorf("%+v", s)
		}
		b.halt(t)
	})
}

func TestExpiredFanOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newFakeQueue(fanOutText(manyTokens(3), `,"ttl":60`), fanOutText(manyTokens(3), `,"ttl":3600`))
		for _, j := range q.ready {
			j.put = time.Now().Add(-2 * time.Minute)
		}
		b := newBench(t, q)
		b.start()
		time.Sleep(time.Second)
		if done, _, _, _ := q.counts(); done != 2 || b.sent() != 3 {
			t.Errorf("done %d, sent %d", done, b.sent())
		}
		var want []string
		for _, token := range manyTokens(3) {
			want = append(want, fmt.Sprintf("expired %.8s", token))
		}
		if got := b.recordsOf(); !slices.Equal(got, want) {
			t.Errorf("records %q, want %q", got, want)
		}
		b.halt(t)
	})
}
