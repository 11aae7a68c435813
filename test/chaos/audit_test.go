package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

func TestEveryEndIsAccountedFor(t *testing.T) {
	for _, app := range []int{withTube, 2, logOnly} {
		t.Run(apps()[app].topic, func(t *testing.T) {
			s := newScene(t)
			s.deliver(s.put(app, plain, good), 1, 2)
			n := s.put(app, plain, dead)
			s.dead(n, 2)
			s.line(n, 2, linePush, "token", "")
			n = s.put(app, misspelt, good)
			s.bury(n, 2, "")
			if app != logOnly {
				s.feed(n-1, 2, "token")
				s.feed(n, 2, "rejected")
			}
			n = s.put(app, malformed, good)
			s.bury(n, 2, fmt.Sprintf("number %d is no JSON", n))
			if app != logOnly {
				r := s.recordOf(n, 2, "rejected")
				r.Token = ""
				s.feedRecord(r)
			}
			n = s.put(app, timed, good)
			s.line(n, 9, lineExpired, "expired", "")
			if app != logOnly {
				s.feed(n, 9, "expired")
			}
			a := s.wantFaults(t)
			got := []int{a.put, a.delivered, a.refused, a.buried, a.expired, len(a.lost), a.twice, a.listed}
			if fmt.Sprint(got) != "[5 1 1 2 1 0 0 2]" {
				t.Errorf("put, delivered, refused, buried, expired, lost, twice, listed: %v", got)
			}
		})
	}
}

// The tokens of one job end each in its own way.
func TestListsAreAccountedForByToken(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, good, dead, bad, deformed, good)
	s.deliver(n, 1, 2)
	s.dead(n+1, 2)
	s.feed(n+1, 2, "token")
	s.feed(n+2, 2, "rejected")
	s.feed(n+3, 2, "rejected")
	s.bury(n+2, 3, fmt.Sprintf(`{"tokens":[%q],"again":{"job":%q}}`, s.token(n+2), s.ledger.jobOf(n).id))
	a := s.wantFaults(t, "1 pushes lost")
	if a.lost[0] != n+4 {
		t.Errorf("lost: %v, want the last", a.lost)
	}
	got := []int{a.jobs, a.put, a.delivered, a.refused, a.buried}
	if fmt.Sprint(got) != "[1 5 1 2 1]" {
		t.Errorf("jobs, put, delivered, refused, buried: %v", got)
	}
}

// A token that cannot be read is known by its job's ref.
func TestDeformedTokensAreKnownByRef(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, good, deformed, deformed)
	m := s.put(withTube, plain, good, deformed, deformed)
	s.deliver(n, 1, 2)
	s.deliver(m, 1, 2)
	for i, at := range []uint32{n, n, m} {
		r := s.recordOf(at, 2+i, "rejected")
		r.Token, r.Ref, r.Reason = "", reference(at), "job: tokens[1]: not hex"
		s.feedRecord(r)
	}
	a := s.wantFaults(t, "2 pushes ended without their feedback record")
	if a.unrecorded[0] != m+1 {
		t.Errorf("unrecorded: %v", a.unrecorded)
	}
}

func TestLostPushesAreFound(t *testing.T) {
	s := newScene(t)
	s.deliver(s.put(withTube, plain, good), 1, 2)
	n := s.put(withTube, plain, good)
	s.push(n, 1, 2, entry{Answer: "silence"})
	s.line(n, 2, linePush, "delivered", "") // the daemon's word is no proof
	s.line(s.put(logOnly, plain, good), 2, lineBuried, "rejected", "")
	s.put(withTube, plain, good)
	s.ledger.jobs[s.ledger.pushes[s.put(withTube, plain, good)].job].stored = false // nobody promised anything
	if a := s.wantFaults(t, "3 pushes lost"); a.never != 1 {
		t.Errorf("never stored: %d, want 1", a.never)
	}
}

func TestMissingRecordsAreFound(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, dead)
	s.dead(n, 2)
	s.line(n, 2, linePush, "token", "")
	s.line(s.put(withTube, timed, good), 2, lineExpired, "expired", "")
	n = s.put(withTube, plain, bad)
	s.bury(n, 2, "")
	s.feed(n, 2, "token") // another class's record is none
	s.dead(n, 2)
	n = s.put(withTube, malformed, good)
	s.bury(n, 2, fmt.Sprintf("number %d is no JSON", n))
	r := s.recordOf(n, -9, "rejected") // of an earlier job with that id
	r.Token = ""
	s.feedRecord(r)
	s.wantFaults(t, "4 pushes ended without their feedback record")
}

// A refusal whose record cannot be put is tried again, and may end otherwise.
func TestTheLastRecordCounts(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, timed, dead)
	s.dead(n, 2)
	s.line(n, 2, linePush, "token", "")
	s.feed(n, 40, "expired")
	if a := s.wantFaults(t); a.expired != 1 {
		t.Errorf("expired %d, want 1", a.expired)
	}
}

func TestLiesAreFound(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, good)
	s.push(n, 1, 2, entry{Answer: "wrong environment", Status: 400, Wrong: true})
	s.feed(n, 2, "token")
	n = s.put(withTube, plain, good)
	s.line(n, 2, linePush, "token", "")
	s.feed(n, 2, "token")
	n = s.put(withTube, plain, reborn)
	s.push(n, 1, 2, entry{Answer: "410 of old", Status: 410})
	s.feed(n, 2, "token")
	n = s.put(withTube, plain, good)
	s.deliver(n, 1, 2)
	s.feed(n, 2, "expired")
	n = s.put(withTube, plain, good)
	s.deliver(n, 1, 2)
	s.feed(n, 2, "rejected")
	s.wantFaults(t, "only the wrong environment said", "APNs did not say", "APNs did not say", "had no time to keep", "called buried (rejected) and is not")
}

func TestSilentBurialsAreFound(t *testing.T) {
	s := newScene(t)
	ids := make([]string, 4)
	for i := range ids {
		n := s.put(withTube, misspelt, good)
		s.bury(n, 5+10*i, "")
		s.feed(n, 5+10*i, "rejected")
		ids[i] = s.ledger.jobOf(n).id
	}
	also := s.put(withTube, misspelt, good) // a line says that it may be
	s.bury(also, 45, "")
	s.feed(also, 45, "rejected")
	s.log = s.log[:len(s.log)-1]
	s.line(also, 45, lineMaybeBuried, "", "")
	tube := apps()[withTube].tube
	s.log = s.log[1:]                      // the first has no line
	delete(s.listed[tube].reasons, ids[1]) // the second is not listed
	s.listed[tube].reasons[ids[2]] = ""    // the others have no reason
	s.listed[tube].reasons[ids[3]] = "(not recorded)"
	if a := s.wantFaults(t, "is not listed", "has no reason", "has no reason", "without a line"); a.listed != 2 {
		t.Errorf("listed: %d, want 2", a.listed)
	}
}

// A buried job has another id in the queue: the list and the log show its producer's id. For
// jobs beyond the list's limit the body says why.
func TestBuriedUnderAnotherID(t *testing.T) {
	s := newScene(t)
	tube := apps()[withTube].tube
	for i, reason := range []string{"x", "x", ""} {
		n := s.put(withTube, misspelt, good)
		id := s.ledger.jobOf(n).id
		s.bury(n, 5+10*i, "")
		s.feed(n, 5+10*i, "rejected")
		delete(s.buried[tube], id)
		s.buried[tube][fmt.Sprint("other", i)] = fmt.Sprintf(`{"token":%q,"again":{"job":%q,"bury":%q}}`, s.token(n), id, reason)
		if i > 0 {
			delete(s.listed[tube].reasons, id)
		}
	}
	s.listed[tube] = page{s.listed[tube].reasons, true}
	if a := s.wantFaults(t, "has no reason"); a.listed != 1 || a.explained != 1 {
		t.Errorf("listed: %d, explained: %d", a.listed, a.explained)
	}
}

func TestRepeatedRecordsNeedACause(t *testing.T) {
	s := newScene(t)
	s.troubles = []span{{"beanstalkd killed", second(50), second(51)}, {"frozen", second(90), time.Time{}}}
	for _, times := range [][]int{{10, 20}, {45, 60}, {52, 53}, {60, 70}, {10, 95}} {
		n := s.put(withTube, plain, dead)
		for _, at := range times {
			s.dead(n, at)
			s.feed(n, at, "token")
		}
		s.book = append(s.book, s.book[len(s.book)-1]) // read twice: not the daemon's doing
	}
	n := s.put(withTube, misspelt, good)
	s.bury(n, 2, "")
	r := s.recordOf(n, 2, "rejected")
	r.Token, r.Ref = "", reference(n)
	s.feedRecord(r)
	s.feedRecord(r) // so is this
	a := s.wantFaults(t, "push 0", "push 3")
	if a.repeated != 5 || a.said.repeats != 6 {
		t.Errorf("given twice %d, received twice %d, want 5 and 6", a.repeated, a.said.repeats)
	}
}

func TestPausesNeedAWrongEnvironment(t *testing.T) {
	s := newScene(t)
	topic := apps()[withTube].topic
	s.misled = []mislead{{topic, span{"", second(10), second(20)}}}
	paused := func(topic string, at int) {
		s.log = append(s.log, fmt.Sprintf(`{"time":%q,"level":"ERROR","msg":"app is paused","topic":%q,"reason":"wrong environment or topic?: all of it"}`, second(at).Format(time.RFC3339), topic))
	}
	paused(topic, 11)
	paused(topic, 21) // still draining
	paused(topic, 90)
	paused("com.example.two", 11)
	s.wantFaults(t, "com.example.one was paused", "com.example.two was paused")
}

func TestRestartLoopsAreFound(t *testing.T) {
	s := newScene(t)
	for worker, times := range [][]int{{1, 30, 60, 90, 120}, {1, 10, 20}, {1, 10, 20, 30}} {
		for _, at := range times {
			s.log = append(s.log, fmt.Sprintf(`{"time":%q,"level":"WARN","msg":%q,"topic":"com.example.one","worker":%d}`, second(at).Format(time.RFC3339), lineRestarted, worker))
		}
	}
	s.wantFaults(t, "com.example.one worker 2 was restarted")
}

func TestTheWebhookKeepsItsOrder(t *testing.T) {
	s := newScene(t)
	s.stored = []bool{true, true, true, true, true, true, true, true, false, true}
	arrives := func(n int) {
		s.feedRecord(feedbackRecord{Topic: apps()[2].topic, Reason: sequenceReason, Ref: fmt.Sprint(sequenceRef, n)})
	}
	for _, n := range []int{0, 2, 1, 0, 3, 7, 4, 8, 5, 77} { // 1 and 2 are of two tokens, 7 and 4 of one
		arrives(n)
	}
	s.wantFaults(t, "record 4 after 7", "nobody put", "2 records of 10")
}

func TestTheFeedbackTubesHoldRecordsOnly(t *testing.T) {
	s := newScene(t)
	s.junk = 2
	s.buried["tube-of-three.feedback"] = map[string]string{"1": junkRecord}
	s.buried["one.records"] = map[string]string{"2": `{"topic":"x"}`}
	s.wantFaults(t, "a record was buried", "of 2 jobs")
}

func TestDoublesMustBeCounted(t *testing.T) {
	s := newScene(t)
	for range 4 {
		n := s.put(withTube, plain, good)
		s.deliver(n, 1, 2)
		s.deliver(n, 1, 3)
	}
	s.deliver(3, 1, 4)
	s.line(0, 2, linePush, "unknown", "")
	s.line(1, 2, linePush, "delivered", "")
	s.log = append(s.log, fmt.Sprintf(`{"msg":%q,"topic":"com.example.one","job":"101"}`, lineNotDeleted))
	s.line(3, 2, linePush, "unknown", "") // one for two
	a := s.wantFaults(t, "2 pushes delivered more than once")
	if a.twice != 4 || a.uncounted[0] != 2 || a.uncounted[1] != 3 {
		t.Errorf("twice %d, uncounted %v", a.twice, a.uncounted)
	}
}

// A line on a job counts for each of its pushes, and for none of an earlier
// job's that had the same id.
func TestALineOnAJobCountsForItsPushes(t *testing.T) {
	s := newScene(t)
	old := s.put(withTube, plain, good)
	n := s.put(withTube, plain, good, good)
	s.ledger.jobOf(old).id = s.ledger.jobOf(n).id
	for _, push := range []uint32{old, n, n + 1} {
		s.line(push, 2, linePush, "delivered", "")
		s.deliver(push, 1, 2)
		s.deliver(push, 1, 3)
	}
	s.log = append(s.log, fmt.Sprintf(`{"msg":%q,"topic":"com.example.one","job":%q}`, lineNotDeleted, s.ledger.jobOf(n).id))
	if a := s.wantFaults(t, "1 pushes delivered more than once"); a.uncounted[0] != old {
		t.Errorf("uncounted: %v", a.uncounted)
	}
}

// A count of an earlier try does not cover a push after the job was done.
func TestDoneJobsStayDone(t *testing.T) {
	s := newScene(t)
	started := func() { s.log = append(s.log, `{"msg":"propeller started"}`) }
	started()
	for range 3 {
		n := s.put(withTube, plain, good)
		s.line(n, 2, linePush, "unknown", "")
		s.line(n, 3, linePush, "delivered", "")
		s.deliver(n, 1, 2)
		s.deliver(n, 1, 3)
	}
	s.line(0, 4, linePush, "throttled", "")
	s.line(1, 4, lineNotDeleted, "", "")
	s.line(1, 4, linePush, "delivered", "")
	started()
	s.line(2, 4, linePush, "delivered", "")
	s.wantFaults(t, "push 0 (plain, good token): was pushed again")
}

// A killed daemon excuses only the push that it made itself.
func TestOnlyTheKilledDaemonIsExcused(t *testing.T) {
	s := newScene(t)
	s.lives = []life{{second(0), second(10), true}, {second(10), second(20), false}, {began: second(20)}}
	s.open(2, second(11))
	s.open(3, second(21))
	for range 3 {
		s.put(withTube, plain, good)
	}
	s.deliver(0, 1, 12) // read late, from a connection of the killed one
	s.deliver(0, 2, 12)
	s.deliver(1, 2, 12) // the second was only stopped
	s.deliver(1, 3, 22)
	s.deliver(2, 1, 5)
	s.deliver(2, 1, 6)
	a := s.wantFaults(t, "2 pushes delivered more than once")
	if a.excused != 1 || a.uncounted[0] != 1 || a.uncounted[1] != 2 {
		t.Errorf("excused %d, uncounted %v", a.excused, a.uncounted)
	}
}

func TestWhatElseMustNotBe(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, good)
	s.push(n, 1, 2, entry{ID: "a", Answer: "500", Status: 500})
	s.push(n, 1, 3, entry{ID: "b", Answer: "200", Status: 200, Delivered: true})
	s.deliver(s.put(withTube, plain, dead), 1, 2)
	s.record = append(s.record, entry{Breach: "stream opened"}, entry{Token: token(77, good)}, entry{Token: token(0, good), Topic: "com.example.two", ID: "a"})
	s.log = append(s.log, "panic: oh")
	s.buried["com.example.one"] = map[string]string{"5": "what is this"}
	s.feedRecord(feedbackRecord{Topic: apps()[logOnly].topic, Class: "token", Reason: "x", Job: "1", At: second(1)})
	s.wantFaults(t, "nobody put: com.example.one 5", "apns-id changed", "was delivered", "nobody put: 0000004d", "pushed for com.example.two",
		"came by the tube", "stream opened", "panic: oh")
}

// What a producer writes, the auditor must read.
func TestNumbersComeBack(t *testing.T) {
	t.Parallel()
	l := new(ledger)
	p := &producer{rng: newRNG(1, 1), ledger: l}
	graves := 0
	for range 2000 {
		k, many, fates := p.shape()
		_, first, _ := l.add(0, k, many, fates)
		body, _ := p.job(first, k, many, fates)
		got := l.numbersIn(string(body))
		for i := range fates {
			if len(got) < len(fates) || got[i] != first+uint32(i) {
				t.Fatalf("%s %v: numbers %v in %s, want %d on", k, fates, got, body, first)
			}
		}
		if k != malformed && !json.Valid(body) {
			t.Errorf("%s: %s", k, body)
		}
		if fates[0] == grave {
			graves++
			var j struct{ ID, Token string }
			if err := json.Unmarshal(body, &j); err != nil {
				t.Fatal(err)
			}
			if n, ok := l.number(j.Token, "", j.ID); !ok || n != first {
				t.Errorf("a grave's request is of %d, want %d", n, first)
			}
		}
	}
	if graves == 0 {
		t.Error("no job for a token that is shared")
	}
}

// A token that jobs share is dead for all of them once APNs has said so, and
// not before.
func TestARememberedTokenIsDeadForAll(t *testing.T) {
	for _, asked := range []bool{true, false} {
		t.Run(fmt.Sprint(asked), func(t *testing.T) {
			s := newScene(t)
			for i := range 2 {
				n := s.put(withTube, plain, grave)
				r := s.recordOf(n, 2+i, "token")
				r.Token, r.Ref = graveToken(withTube), reference(n)
				s.feedRecord(r)
			}
			if asked {
				s.record = append(s.record, entry{At: second(2), Run: 1, Conn: 1, Topic: apps()[withTube].topic, Token: graveToken(withTube), ID: apnsID(7, 0), Dead: true})
				s.wantFaults(t)
			} else {
				s.wantFaults(t, "push 0", "push 1")
			}
		})
	}
}

// A line says when an answer is not believed.
func TestUnbelievedAnswersAreNoLie(t *testing.T) {
	s := newScene(t)
	for _, believed := range []bool{false, true} {
		n := s.put(logOnly, plain, good)
		s.push(n, 1, 2, entry{Answer: "wrong environment", Status: 400, Wrong: true})
		s.line(n, 2, linePush, "token", fmt.Sprintf(`,"believed":%v`, believed))
		s.deliver(n, 1, 3)
	}
	s.wantFaults(t, "push 1 (plain, good token): its token was called dead, which only the wrong environment said")
}

// A daemon that was killed between putting what is left of a list and deleting
// the list excuses that both go on; one that lived does not.
func TestATornListIsExcusedByAKill(t *testing.T) {
	for _, killed := range []bool{true, false} {
		t.Run(fmt.Sprint(killed), func(t *testing.T) {
			s := newScene(t)
			s.lives = []life{{second(0), second(10), killed}, {began: second(10)}}
			s.open(2, second(11))
			n := s.put(withTube, plain, good, dead)
			started := func() { s.log = append(s.log, `{"msg":"propeller started"}`) }
			in := func(job string, at int, push uint32, class string) {
				s.ledger.jobOf(push).id = job
				s.line(push, at, linePush, class, "")
			}
			started()
			in("100", 2, n, "unavailable")
			in("100", 2, n+1, "unavailable")
			started()
			for i, job := range []string{"555", "100"} {
				in(job, 12, n, "delivered")
				s.deliver(n, 2, 12)
				s.dead(n+1, 12)
				in(job, 12, n+1, "token")
				s.feed(n+1, 12+i, "token")
			}
			if killed {
				s.wantFaults(t)
			} else {
				s.wantFaults(t, "1 pushes delivered more than once without", "push 1 (plain, dead token): has another record")
			}
		})
	}
}

// The killed daemon had not spoken of the list at all. What was left of it was stored while
// it lived, as the numbers of the jobs around it tell.
func TestATornListIsExcusedByItsNumber(t *testing.T) {
	for name, ends := range map[string]int{"killed then": 6, "killed before": 2} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.lives = []life{{second(0), second(ends), true}, {began: second(ends)}}
			s.open(2, second(11))
			n := s.put(withTube, plain, good, good)
			for at := 3; at < 10; at += 2 { // numbers 101 to 104
				other := s.put(withTube, plain, good)
				s.ledger.jobOf(other).at = second(at)
				s.deliver(other, 1, at)
			}
			for _, job := range []string{"b-103", "b-100"} { // the first was stored between 5 and 9
				s.ledger.jobOf(n).id = job
				for push := n; push < n+2; push++ {
					s.line(push, 12, linePush, "delivered", "")
					s.deliver(push, 2, 12)
				}
			}
			s.ledger.jobOf(n).id = "100"
			if ends == 6 {
				s.wantFaults(t)
			} else {
				s.wantFaults(t, "2 pushes delivered more than once without")
			}
		})
	}
}

// A delayed job may be in the queue twice after trouble when it was due. Only that, and only
// over a restart, is not for the daemon to count.
func TestDelayedJobsStoredTwice(t *testing.T) {
	for name, tt := range map[string]struct {
		id      string
		trouble bool
		again   int // the connection of the second delivery
		faults  []string
	}{
		"stored twice": {"dp4z", true, 2, nil},
		"no trouble":   {"dp4z", false, 2, []string{"1 pushes delivered more than once without"}},
		"one life":     {"dp4z", true, 3, []string{"1 pushes delivered more than once without"}},
		"not delayed":  {"b-7", true, 2, []string{"1 pushes delivered more than once without"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.lives = []life{{began: second(0), ended: second(15)}, {began: second(16)}}
			s.open(2, second(17))
			s.open(3, second(12))
			if tt.trouble {
				s.troubles = []span{{from: second(5), to: second(6)}}
			}
			n := s.put(withTube, delayed, good)
			s.ledger.jobOf(n).id = tt.id
			s.deliver(n, 1, 10)
			s.deliver(n, tt.again, 20)
			s.wantFaults(t, tt.faults...)
		})
	}
}

// The killed daemon had not come to send the push: it spoke of another of its
// list only.
func TestATornListIsExcusedForWhatWasNotSent(t *testing.T) {
	for _, killed := range []bool{true, false} {
		t.Run(fmt.Sprint(killed), func(t *testing.T) {
			s := newScene(t)
			s.lives = []life{{second(0), second(10), killed}, {began: second(10)}}
			s.open(2, second(11))
			n := s.put(withTube, plain, good, good)
			in := func(job string, at int, push uint32) {
				s.ledger.jobOf(push).id = job
				s.deliver(push, at/10+1, at)
				s.line(push, at, linePush, "delivered", "")
			}
			s.log = append(s.log, `{"msg":"propeller started"}`)
			in("100", 2, n)
			s.log = append(s.log, `{"msg":"propeller started"}`)
			in("100", 12, n)
			in("555", 13, n+1) // what the killed one had put
			in("556", 14, n+1) // and what the other put in its turn
			if killed {
				s.wantFaults(t)
			} else {
				s.wantFaults(t, "2 pushes delivered more than once without")
			}
		})
	}
}

// A rest that could not be put, or a job not deleted, is counted beforehand.
func TestACountedForkMayRepeat(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, good, dead)
	for _, push := range []uint32{n, n + 1} {
		s.line(push, 2, linePush, "unavailable", "")
	}
	s.log = append(s.log, fmt.Sprintf(`{"msg":%q,"topic":"com.example.one","job":%q}`, lineNotSplit, s.ledger.jobOf(n).id))
	for i := range 2 {
		s.deliver(n, 1, 20+i)
		s.dead(n+1, 20+i)
		s.feed(n+1, 20+i, "token")
	}
	s.wantFaults(t)
}

// A rest that may be in the queue twice counts as a possible duplicate of each of its tokens, and
// of no token that was done.
func TestRestsPutTwiceAreCounted(t *testing.T) {
	s := newScene(t)
	first := s.put(logOnly, plain, good, good, good) // the last is named in no line
	s.ledger.jobOf(first).id = "100"
	done := first
	s.line(done, 10, linePush, "delivered", "")
	s.line(first+1, 10, linePush, "not_sent", "")
	s.log = append(s.log, fmt.Sprintf(`{"time":%q,"level":"WARN","msg":%q,"topic":%q,"job":"100"}`, second(11).Format(time.RFC3339), lineTwice, s.app(first).topic))
	for n := first; n < first+3; n++ {
		s.deliver(n, 1, 10)
		s.deliver(n, 1, 20)
	}
	a := s.wantFaults(t, "1 pushes delivered more than once without being counted")
	if a.uncounted[0] != done {
		t.Errorf("uncounted %v", a.uncounted)
	}
}

// A line about a whole list, none of whose pushes was named before, belongs to the last job
// put under its id.
func TestListsThatNoLineHasNamed(t *testing.T) {
	s := newScene(t)
	before, first := s.put(logOnly, plain, good, good), s.put(logOnly, plain, good, good)
	s.ledger.jobOf(before).id, s.ledger.jobOf(first).id = "100", "100"
	s.log = append(s.log, fmt.Sprintf(`{"time":%q,"level":"WARN","msg":%q,"topic":%q,"job":"birth-100"}`, second(11).Format(time.RFC3339), lineNotSplit, s.app(first).topic))
	for n := before; n < first+2; n++ {
		s.deliver(n, 1, 10)
		s.deliver(n, 1, 20)
	}
	a := s.wantFaults(t, "2 pushes delivered more than once without being counted")
	if a.uncounted[0] != before || a.uncounted[1] != before+1 {
		t.Errorf("uncounted %v", a.uncounted)
	}
}

// Only the log shows a dead token of an app without feedback, and only after the job is gone: a
// daemon that is killed just then says nothing. That excuses nothing else.
func TestDeadTokensOfAKilledDaemon(t *testing.T) {
	for name, killed := range map[string]bool{"killed": true, "alive": false} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.lives = []life{{began: second(0), ended: second(20), killed: killed}, {began: second(21)}}
			list := s.put(logOnly, plain, good, dead, deformed, bad)
			withRecords := s.put(withTube, plain, good, dead)
			for _, n := range []uint32{list, withRecords} {
				s.deliver(n, 1, 10)
				s.dead(n+1, 10)
			}
			want := []uint32{list + 1, list + 2, list + 3, withRecords + 1}
			if killed {
				want = want[2:]
			}
			a := s.wantFaults(t, fmt.Sprintf("%d pushes lost", len(want)))
			if fmt.Sprint(a.lost) != fmt.Sprint(want) {
				t.Errorf("lost %v, want %v", a.lost, want)
			}
		})
	}
}
