package worker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
)

// recordsOf are the class and token of each record, sorted.
func (b *bench) recordsOf() []string {
	var out []string
	for _, r := range b.rec.all() {
		out = append(out, fmt.Sprintf("%s %.8s", r.Class, r.Token))
	}
	slices.Sort(out)
	return out
}

// Malformed tokens have their records, however the rest of the list ends.
func TestRecordsOfListsWithMalformedTokens(t *testing.T) {
	good := manyTokens(2)
	short := func(class, token string) string { return fmt.Sprintf("%s %.8s", class, token) }
	for name, tt := range map[string]struct {
		job    string
		answer apnsconn.Outcome
		want   []string // records
		end    string   // of the job
	}{
		"all malformed": {fanOutText([]string{"zz", "yy"}, ""), gone, []string{"rejected yy", "rejected zz"}, "bury 1"},
		"expired": {fanOutText(append(good, "zz"), `,"expiration":1`), gone,
			[]string{short("expired", good[0]), short("expired", good[1]), "rejected zz"}, "done 1"},
		"dead": {fanOutText(append(good, "zz"), ""), gone,
			[]string{"rejected zz", short("token", good[0]), short("token", good[1])}, "done 1"},
		"rejected": {fanOutText(append(good, "zz"), ""), badTopic,
			[]string{short("rejected", good[0]), short("rejected", good[1]), "rejected zz"}, "bury 1"},
		"delivered": {fanOutText(append(good, "zz"), ""), apnsconn.Outcome{Class: apnsconn.Delivered, Status: 200},
			[]string{"rejected zz"}, "done 1"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newFakeQueue(tt.job)
				b := newBench(t, q)
				b.answer = func(*apnsconn.Notification) (apnsconn.Outcome, time.Duration) { return tt.answer, 0 }
				b.start()
				synctest.Wait()
				b.halt(t)
				got := b.recordsOf()
				slices.Sort(tt.want)
				if !slices.Equal(got, tt.want) || !slices.Contains(q.log, tt.end) || len(q.puts) != 0 {
					t.Errorf("records %q, want %q; %q", got, tt.want, q.log)
				}
			})
		})
	}
}

// An answer that the guard holds takes no slot from the rest of its list.
func TestDoubtedTokenInAListOneAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(3)
		q := newFakeQueue(fanOutText(tokens, ""))
		b := newBench(t, q)
		b.cfg.InFlight = 1
		b.answer = byToken{tokens[0]: wrongEnv}.answer
		b.start()
		time.Sleep(time.Second)
		synctest.Wait()
		if done, _, _, _ := q.counts(); done != 1 || b.sent() != 3 {
			t.Errorf("done %d, %d sent", done, b.sent())
		}
		if rec := b.rec.all(); len(rec) != 1 || rec[0].Token != tokens[0] || rec[0].Class != "token" {
			t.Errorf("%+v", rec)
		}
		if s := b.Status(); s.Reserved != 0 || s.InFlight != 0 || s.PendingAnswers != 0 {
			t.Errorf("%+v", s)
		}
		b.halt(t)
	})
}

// With log.pushes all each token of a list has its line, and counts once.
func TestDeliveredListIsLogged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(150)
		q := newFakeQueue(fanOutText(tokens, `,"ref":"r7"`))
		b := newBench(t, q)
		b.logPushes("all")
		var log strings.Builder
		b.cfg.Log = newTextLog(&log)
		b.start()
		time.Sleep(time.Minute)
		b.halt(t)
		if n := strings.Count(log.String(), "msg=push"); n != len(tokens) || strings.Count(log.String(), "class=delivered") != n || strings.Count(log.String(), "ref=r7") != n {
			t.Errorf("%d lines for %d tokens", n, len(tokens))
		}
		if n := b.app.Counters.Ended(apnsconn.Delivered); int(n) != len(tokens) {
			t.Errorf("%d delivered", n)
		}
		if done, _, _, _ := q.counts(); done != 1 || b.Status().InFlight != 0 {
			t.Errorf("done %d, %+v", done, b.Status())
		}
	})
}

// A list of which only one answer is in doubt does not stay reserved for it: that
// token goes on in a job of its own, and is reported in the end without another
// push.
func TestDoubtedTokenKeepsNoListReserved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(900)
		q := newFakeQueue(fanOutText(tokens, ""))
		b := newBench(t, q)
		b.answer = func(n *apnsconn.Notification) (apnsconn.Outcome, time.Duration) {
			if n.Token == tokens[899] {
				return wrongEnv, 60 * time.Millisecond
			}
			return delivered(n)
		}
		b.start()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if done, _, _, _ := q.counts(); done != 0 || b.Status().PendingAnswers != 1 {
			t.Errorf("done %d, %+v", done, b.Status())
		}
		time.Sleep(doubtTime)
		synctest.Wait()
		if done, _, _, _ := q.counts(); done != 1 || len(q.puts) != 1 || b.Status().Reserved != 0 || b.Status().PendingAnswers != 0 {
			t.Errorf("done %d, put %d, %+v", done, len(q.puts), b.Status())
		}
		time.Sleep(2 * DoubtMin)
		synctest.Wait()
		if done, _, _, ready := q.counts(); done != 2 || ready != 0 || len(q.puts) != 1 {
			t.Errorf("done %d, ready %d, put %d", done, ready, len(q.puts))
		}
		for i, token := range tokens {
			if n := b.pushesTo()[token]; n != 1 {
				t.Fatalf("token %d: %d pushes", i, n)
			}
		}
		if rec := b.rec.all(); len(rec) != 1 || rec[0].Token != tokens[899] || rec[0].Class != "token" || rec[0].Job != "1" {
			t.Errorf("%+v", rec)
		}
		if s := b.Status(); s.Reserved != 0 || s.PendingAnswers != 0 || s.InFlight != 0 || b.app.Counters.PossibleDuplicates.Load() != 0 {
			t.Errorf("%+v", s)
		}
		b.halt(t)
	})
}

// An answer that ends the doubt in time leaves the list whole.
func TestDoubtEndsInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tokens := manyTokens(20)
		q := newFakeQueue(fanOutText(tokens, ""))
		b := newBench(t, q)
		b.answer = byToken{tokens[3]: wrongEnv, tokens[19]: wrongEnv}.answer
		b.start()
		time.Sleep(time.Second)
		q.add(jobText(""))
		time.Sleep(2 * doubtTime)
		synctest.Wait()
		if done, _, _, _ := q.counts(); done != 2 || len(q.puts) != 0 || len(b.rec.all()) != 2 || b.sent() != 21 {
			t.Errorf("done %d, put %d, %d records, %d sent", done, len(q.puts), len(b.rec.all()), b.sent())
		}
		b.halt(t)
	})
}
