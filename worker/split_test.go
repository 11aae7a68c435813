package worker

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
)

// What becomes of a job whose tokens end differently: the job itself, and which
// tokens go into which rest jobs.
func TestFanOutSettles(t *testing.T) {
	a, c := "aaaaaaaa", "cccccccc"
	for name, tt := range map[string]struct {
		answers byToken
		job     string     // done, buried or retried
		rests   [][]string // tokens of the jobs put
		delayed []bool     // of rests
		records []string   // class and token
		doubles int64
		broken  bool
	}{
		"all delivered":           {byToken{}, "done", nil, nil, nil, 0, false},
		"one dead":                {byToken{a: gone}, "done", nil, nil, []string{"token " + a}, 0, false},
		"both dead":               {byToken{a: gone, c: gone}, "done", nil, nil, []string{"token " + a, "token " + c}, 0, false},
		"both rejected":           {byToken{a: badTopic, c: badTopic}, "buried", nil, nil, []string{"rejected " + a, "rejected " + c}, 0, false},
		"both later":              {byToken{a: busy, c: busy}, "retried", nil, nil, nil, 0, false},
		"both unknown":            {byToken{a: silence, c: silence}, "retried", nil, nil, nil, 2, false},
		"one later":               {byToken{a: busy}, "done", [][]string{{a}}, []bool{true}, nil, 0, false},
		"one throttled":           {byToken{c: tooMany}, "done", [][]string{{c}}, []bool{true}, nil, 0, false},
		"one unknown":             {byToken{c: silence}, "done", [][]string{{c}}, []bool{true}, nil, 1, false},
		"one rejected":            {byToken{a: badTopic}, "done", [][]string{{a}}, []bool{false}, nil, 0, false},
		"one dead, one later":     {byToken{a: gone, c: busy}, "done", [][]string{{c}}, []bool{true}, []string{"token " + a}, 0, false},
		"one dead, one rejected":  {byToken{a: gone, c: badTopic}, "done", [][]string{{c}}, []bool{false}, []string{"token " + a}, 0, false},
		"one later, one rejected": {byToken{a: busy, c: badTopic}, "done", [][]string{{a}, {c}}, []bool{true, false}, nil, 0, false},
		"refused credential":      {byToken{a: bounced, c: bounced}, "retried", nil, nil, nil, 0, true},
		"one refused credential":  {byToken{c: bounced}, "done", [][]string{{c}}, []bool{false}, nil, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(fanOutText([]string{a, c}, `,"ref":"r7","badge":3`))
				b := newBench(t, q)
				b.cfg.Breaker.Resume()
				b.answer = tt.answers.answer
				b.start()
				synctest.Wait()
				b.halt(t)
				done, buried, retried, _ := q.counts()
				first := map[string]int{"done": 0, "buried": 0, "retried": 0}
				first["done"], first["buried"], first["retried"] = count(q.done, "1"), count(q.buried, "1"), min(1, count(q.retried, "1"))
				if first[tt.job] != 1 || first["done"]+first["buried"]+first["retried"] != 1 {
					t.Errorf("the job: %v, want %s (in all %d done, %d buried, %d retried)", first, tt.job, done, buried, retried)
				}
				b.checkRests(t, tt.rests, tt.delayed)
				var records []string
				for _, r := range b.rec.all() {
					if r.Job == "1" && r.Ref == "r7" && r.Topic == topic {
						records = append(records, r.Class+" "+r.Token)
					}
				}
				slices.Sort(records)
				if len(tt.rests) == 0 && !slices.Equal(records, tt.records) {
					t.Errorf("records %q, want %q", records, tt.records)
				}
				for _, want := range tt.records {
					if !slices.Contains(records, want) {
						t.Errorf("records %q lack %q", records, want)
					}
				}
				if d := b.cfg.Counters.PossibleDuplicates.Load(); d != tt.doubles {
					t.Errorf("%d possible duplicates, want %d", d, tt.doubles)
				}
				if s := b.cfg.Breaker.State(); s.Broken != tt.broken {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func count(jobs []*fakeJob, id string) (n int) {
	for _, j := range jobs {
		if j.id == id {
			n++
		}
	}
	return n
}

// checkRests compares the first jobs put with their tokens, and looks at what
// else is in them.
func (b *bench) checkRests(t *testing.T, want [][]string, delayed []bool) {
	t.Helper()
	if len(b.q.puts) < len(want) || len(want) == 0 && len(b.q.puts) > 0 {
		t.Fatalf("%d jobs put, want %d: %v", len(b.q.puts), len(want), b.q.puts)
	}
	for i := range want {
		put := b.q.puts[i]
		j, err := ParseJob([]byte(put.body), topic, "99")
		if err != nil {
			t.Fatalf("rest job %s: %v", put.body, err)
		}
		slices.Sort(j.Tokens)
		if !slices.Equal(j.Tokens, want[i]) || (put.delay > 0) != delayed[i] || put.tube != b.cfg.Tube || put.priority != fakePriority {
			t.Errorf("rest job %d: tokens %q, delay %v, tube %q, priority %d; want %q, delayed %v", i, j.Tokens, put.delay, put.tube, put.priority, want[i], delayed[i])
		}
		if j.origin == nil || j.origin.job != "1" || j.origin.attempt != 1 || j.Ref != "r7" || !strings.Contains(put.body, `"badge":3`) {
			t.Errorf("rest job %s: %+v", put.body, j.origin)
		}
	}
}

// Tokens keep their apns-id, their age and their attempts through all rest jobs.
func TestRestJobsGoOnCounting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(10)
		q := newFakeQueue(fanOutText(tokens, ""))
		b := newBench(t, q)
		b.cfg.Retry.GiveUpAfter = 2 * time.Hour
		tries := make(map[string]int)
		var mu sync.Mutex
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			tries[n.Token]++
			if n := slices.Index(tokens, n.Token); tries[tokens[n]] <= n && n < 4 || n == 9 {
				return busy, 0
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 0
		}
		b.start()
		begun := time.Now()
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		b.checkIDs(t)
		for token, n := range b.pushesTo() {
			if i := slices.Index(tokens, token); i < 9 && n != 1+min(i, 3)*b2i(i < 4) {
				t.Errorf("token %d pushed %d times", i, n)
			}
		}
		if len(q.buried) != 1 {
			t.Fatalf("%d buried", len(q.buried))
		}
		j, err := ParseJob([]byte(q.buried[0].body), topic, "x")
		if err != nil || !slices.Equal(j.Tokens, tokens[9:]) {
			t.Errorf("buried: %v %v", j.Tokens, err)
		}
		if r := q.buried[0].reason; !strings.Contains(r, "gave up after 2h") || !strings.Contains(r, "503 ServiceUnavailable") {
			t.Errorf("reason %q", r)
		}
		if put := j.origin.put; put.Unix() != begun.Unix() {
			t.Errorf("first put %v, want %v", put, begun)
		}
		// 1, 2, 4, 8 and then 15 minutes: two hours are 11 or 12 tries.
		mu.Lock()
		if n := tries[tokens[9]]; n < 9 || n > 15 {
			t.Errorf("%d tries in two hours", n)
		}
		mu.Unlock()
		if rec := b.rec.all(); len(rec) != 1 || rec[0].Class != "unavailable" || rec[0].Token != tokens[9] || rec[0].Status != 503 || rec[0].Job != "1" {
			t.Errorf("records %+v", rec)
		}
		b.halt(t)
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A put that fails gives the job back whole, and what was delivered counts as a
// possible duplicate.
func TestRestCannotBePut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(5)
		q := newFakeQueue(fanOutText(tokens, ""))
		down := true
		q.refuse = func(string) error {
			if down {
				return queue.ErrUnavailable
			}
			return nil
		}
		b := newBench(t, q)
		first := true
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if n.Token == tokens[0] && first {
				first = false
				return busy, 0
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 0
		}
		b.start()
		synctest.Wait()
		if done, buried, retried, _ := q.counts(); done+buried != 0 || retried != 1 || q.retried[0].after < recordPause {
			t.Errorf("done %d, buried %d, retried %d", done, buried, retried)
		}
		if d := b.cfg.Counters.PossibleDuplicates.Load(); d != 4 {
			t.Errorf("%d possible duplicates, want the 4 delivered", d)
		}
		time.Sleep(time.Hour)
		if done, _, _, _ := q.counts(); done != 1 {
			t.Error("not done when it was tried again")
		}
		b.halt(t)
	})
}

// A rest job may be a little larger than the job: if the queue does not take it,
// it goes in two halves.
func TestRestTooLarge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(900)
		body := fanOutText(tokens, "")
		q := newFakeQueue(body)
		limit := len(body)
		q.refuse = func(body string) error {
			if len(body) > limit {
				return fmt.Errorf("%d bytes: %w", len(body), queue.ErrRejected)
			}
			return nil
		}
		b := newBench(t, q)
		b.cfg.InFlight = 1000
		calls := 0
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if calls++; n.Token != tokens[0] && calls <= 900 {
				return busy, 0
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 0
		}
		b.start()
		time.Sleep(time.Hour)
		if len(q.puts) != 2 {
			t.Errorf("%d rest jobs of 899 tokens", len(q.puts))
		}
		b.checkIDs(t)
		sent := b.pushesTo()
		for i, token := range tokens {
			if want := 1 + b2i(i > 0); sent[token] != want {
				t.Fatalf("token %d pushed %d times", i, sent[token])
			}
		}
		b.halt(t)
	})
}
