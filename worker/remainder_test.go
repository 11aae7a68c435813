package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/queue"
	"propeller/worker/job"
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
		"one rejected":            {byToken{a: badTopic}, "done", [][]string{{a}}, []bool{false}, []string{"rejected " + a}, 0, false},
		"one dead, one later":     {byToken{a: gone, c: busy}, "done", [][]string{{c}}, []bool{true}, []string{"token " + a}, 0, false},
		"one dead, one rejected":  {byToken{a: gone, c: badTopic}, "done", [][]string{{c}}, []bool{false}, []string{"rejected " + c, "token " + a}, 0, false},
		"one later, one rejected": {byToken{a: busy, c: badTopic}, "done", [][]string{{a}, {c}}, []bool{true, false}, []string{"rejected " + c}, 0, false},
		"refused credential":      {byToken{a: bounced, c: bounced}, "retried", nil, nil, nil, 0, true},
		"one refused credential":  {byToken{c: bounced}, "done", [][]string{{c}}, []bool{false}, nil, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(fanOutText([]string{a, c}, `,"ref":"r7","badge":3`))
				b := newBench(t, q)
				b.app.Resume()
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
				if !slices.Equal(records, tt.records) {
					t.Errorf("records %q, want %q", records, tt.records)
				}
				for token, n := range b.pushesTo() {
					if o := tt.answers[token]; n > 1 && o.Class == apnsconn.Rejected {
						t.Errorf("%d pushes to %s, which was refused", n, token)
					}
				}
				if d := b.app.Counters.PossibleDuplicates.Load(); d != tt.doubles {
					t.Errorf("%d possible duplicates, want %d", d, tt.doubles)
				}
				if s := b.app.breaker.State(); s.Broken != tt.broken {
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
		j, err := job.Parse([]byte(put.body), topic, "99")
		if err != nil {
			t.Fatalf("rest job %s: %v", put.body, err)
		}
		slices.Sort(j.Tokens)
		if !slices.Equal(j.Tokens, want[i]) || (put.delay > 0) != delayed[i] || put.tube != b.cfg.Tube || put.priority != fakePriority {
			t.Errorf("rest job %d: tokens %q, delay %v, tube %q, priority %d; want %q, delayed %v", i, j.Tokens, put.delay, put.tube, put.priority, want[i], delayed[i])
		}
		if j.Parent == nil || j.Parent.Job != "1" || j.Parent.Attempt != 1 || j.Ref != "r7" || !strings.Contains(put.body, `"badge":3`) {
			t.Errorf("rest job %s: %+v", put.body, j.Parent)
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
		j, err := job.Parse([]byte(q.buried[0].body), topic, "x")
		if err != nil || !slices.Equal(j.Tokens, tokens[9:]) {
			t.Errorf("buried: %v %v", j.Tokens, err)
		}
		if r := b.rec.entries[0].Reason; !strings.Contains(r, "gave up after 2h") || !strings.Contains(r, "503 ServiceUnavailable") {
			t.Errorf("reason %q", r)
		}
		if put := j.Parent.Put; put.Unix() != begun.Unix() {
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

// While a rest cannot be put the job stays reserved, without a slot, and nothing
// is pushed again; the put is repeated with growing pauses.
func TestRestCannotBePut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(5)
		q := newFakeQueue(fanOutText(tokens, ""))
		var up atomic.Bool
		var tries atomic.Int64
		q.refuse = func(string) error {
			if tries.Add(1); !up.Load() {
				return queue.ErrUnavailable
			}
			return nil
		}
		b := newBench(t, q)
		b.cfg.InFlight = 10
		bad := byToken{tokens[0]: busy, tokens[4]: gone}
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if up.Load() {
				return delivered(n)
			}
			return bad.answer(n)
		}
		b.start()
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if done, buried, retried, _ := q.counts(); done+buried+retried != 0 || len(b.rec.all()) != 1 {
			t.Errorf("done %d, buried %d, retried %d, records %+v", done, buried, retried, b.rec.all())
		}
		if n := tries.Load(); n < 900 || n > 1400 {
			t.Errorf("%d puts in 3 hours", n)
		}
		if s := b.Status(); s.Reserved != 1 || s.Lingering != 1 || s.InFlight != 0 || !strings.HasPrefix(s.Waiting, "the queue takes no records: ") {
			t.Errorf("%+v", s)
		}
		up.Store(true)
		time.Sleep(20 * time.Minute)
		if done, _, _, ready := q.counts(); done != 2 || ready != 0 {
			t.Errorf("done %d, ready %d when the queue took puts again", done, ready)
		}
		for i, token := range tokens {
			if n := b.pushesTo()[token]; n != 1+b2i(i == 0) {
				t.Errorf("token %d: %d pushes", i, n)
			}
		}
		if d := b.app.Counters.PossibleDuplicates.Load(); d != 0 || b.Status().Waiting != "" {
			t.Errorf("%d possible duplicates, %+v", d, b.Status())
		}
		b.halt(t)
	})
}

// A rest whose put was stored but not answered is put twice: that is counted, and the log says of
// which job.
func TestRestPutTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(4)
		q := newFakeQueue(fanOutText(tokens, ""))
		b := newBench(t, q)
		var log strings.Builder
		b.cfg.Log = newTextLog(&log)
		first := true
		q.refuse = func(body string) error {
			if first {
				first = false
				q.add(body)
				return fmt.Errorf("%w: %w", queue.ErrUncertain, queue.ErrUnavailable)
			}
			return nil
		}
		tries := make(map[string]int)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if tries[n.Token]++; tries[n.Token] == 1 && n.Token != tokens[3] {
				return busy, 0
			}
			return apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200}, 0
		}
		b.start()
		time.Sleep(time.Hour)
		synctest.Wait()
		twice := 0
		for i, token := range tokens {
			twice += tries[token] - 1 - b2i(i < 3)
		}
		if d := b.app.Counters.PossibleDuplicates.Load(); twice != 3 || d != 3 {
			t.Errorf("%d delivered twice, %d counted", twice, d)
		}
		b.halt(t)
		if n := strings.Count(log.String(), `msg="remaining tokens of a job may be in the queue twice: they may be pushed twice" app=com.example.app topic=com.example.app worker=0 job=1 `); n != 1 {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
	})
}

// lostJob's reservation has gone when its time has come.
type lostJob struct {
	*fakeJob
	lost func() bool
}

func (j lostJob) Touch(context.Context) error {
	if j.lost() {
		return queue.ErrLost
	}
	return nil
}

func (j lostJob) Retry(ctx context.Context, after time.Duration) error {
	if j.lost() {
		return nil // it is back
	}
	return j.fakeJob.Retry(ctx, after)
}

// A job that is no longer held runs whole elsewhere: no rest of it is put, and
// what it has delivered counts.
func TestNoRestOfALostJob(t *testing.T) {
	for name, downFor := range map[string]time.Duration{"before the split": 0, "while the queue takes nothing": time.Minute} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tokens := manyTokens(5)
				q := newFakeQueue(fanOutText(tokens, ""))
				begun := time.Now()
				q.refuse = func(string) error {
					if time.Since(begun) < 2*downFor {
						return queue.ErrUnavailable
					}
					return nil
				}
				b := newBench(t, q)
				b.cfg.Queue = wrapped{played{q}, func(j *fakeJob) queue.Job {
					return lostJob{j, func() bool { return time.Since(begun) >= downFor }}
				}}
				b.answer = byToken{tokens[0]: busy}.answer
				b.start()
				time.Sleep(time.Hour)
				synctest.Wait()
				if done, _, _, _ := q.counts(); done != 0 || len(q.puts) != 0 {
					t.Errorf("done %d, put %d", done, len(q.puts))
				}
				if d := b.app.Counters.PossibleDuplicates.Load(); d != 4 || b.Status().Reserved != 0 {
					t.Errorf("%d possible duplicates, want 4; %+v", d, b.Status())
				}
				b.halt(t)
			})
		})
	}
}

// wrapped is a queue whose jobs are wrapped.
type wrapped struct {
	played
	wrap func(*fakeJob) queue.Job
}

type wrappedConsumer struct {
	consumerOf
	wrap func(*fakeJob) queue.Job
}

func (q wrapped) Consume(string) (queue.Consumer, error) {
	return wrappedConsumer{consumerOf(q.played), q.wrap}, nil
}

func (c wrappedConsumer) Receive(ctx context.Context, n int) ([]queue.Job, error) {
	jobs, err := c.consumerOf.Receive(ctx, n)
	for i := range jobs {
		jobs[i] = c.wrap(jobs[i].(*fakeJob))
	}
	return jobs, err
}

// mumJob does not say for a while how it is.
type mumJob struct {
	*fakeJob
	since time.Time
}

func (j mumJob) Stat(ctx context.Context) (queue.Stat, error) {
	if time.Since(j.since) < time.Minute {
		return queue.Stat{}, queue.ErrUnavailable
	}
	return j.fakeJob.Stat(ctx)
}

// A rest is not put before the job's priority and age are known.
func TestRestKeepsPriorityAndAge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(2)
		q := newFakeQueue()
		q.add(fanOutText(tokens, "")).put = time.Now().Add(-5 * time.Hour)
		b := newBench(t, q)
		begun := time.Now()
		b.cfg.Queue = wrapped{played{q}, func(j *fakeJob) queue.Job { return mumJob{j, begun} }}
		b.answer = byToken{tokens[0]: busy}.answer
		b.start()
		time.Sleep(3 * time.Minute)
		b.halt(t)
		if len(q.puts) == 0 {
			t.Fatal("nothing put")
		}
		j, err := job.Parse([]byte(q.puts[0].body), topic, "9")
		if err != nil || q.puts[0].priority != fakePriority || begun.Sub(j.Parent.Put) != 5*time.Hour {
			t.Errorf("%v: priority %d, put at %v", err, q.puts[0].priority, j.Parent.Put)
		}
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

// In a list, too, a 429 slows that token only, and what was lost or refused
// unsent does not wait for it: also when none of the pushes has ended.
func TestListWaitsForNoToken(t *testing.T) {
	const throttled, busy, lost = 0, 1, 2
	const most = 1200 * time.Millisecond // a pause of a second, with jitter
	const answer = 50 * time.Millisecond // of delivered
	for name, tt := range map[string]struct {
		order  []int         // in which the outcomes come
		within time.Duration // what was lost or refused is delivered
	}{
		"an answer first": {[]int{throttled, busy, lost, 3, 4, 5}, most + answer},
		// The connection counts as taking none, so those refused wait for a new one. The delay
		// of the lost one begins when the job is settled, after them.
		"the lost one first": {[]int{lost, throttled, busy, 3, 4, 5}, 2 * (most + answer)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tokens := manyTokens(6)
				q := newFakeQueue(fanOutText(tokens, ""))
				b := newBench(t, q)
				var calm atomic.Bool
				b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
					i := slices.Index(tokens, n.Token)
					after := time.Duration(1+slices.Index(tt.order, i)) * time.Microsecond
					switch {
					case calm.Load():
						return delivered(n)
					case i == throttled:
						return apnsconn.Outcome{Class: apnsconn.Throttled, Status: 429, Reason: "TooManyRequests", RetryAfter: 10 * time.Minute}, after
					case i == busy:
						return apnsconn.Outcome{Class: apnsconn.Unavailable, Status: 503, Reason: "ServiceUnavailable"}, after
					case i == lost:
						return silence, after
					}
					return apnsconn.Outcome{Class: apnsconn.NotSent, Err: errors.New("lost")}, after
				}
				b.start()
				time.Sleep(time.Millisecond)
				calm.Store(true)
				for _, step := range []struct {
					after time.Duration
					done  int64
				}{{tt.within, 4}, {2 * time.Minute, 5}, {7 * time.Minute, 5}, {3 * time.Minute, 6}} {
					time.Sleep(step.after)
					synctest.Wait()
					if n := b.app.Counters.Ended(apnsconn.Delivered); n != step.done {
						t.Errorf("%d delivered after %v more, want %d", n, step.after, step.done)
					}
				}
				b.halt(t)
			})
		})
	}
}
