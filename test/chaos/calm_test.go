package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Jobs that wait while nothing moves are a stall. If their app pushes, or their tube shrinks,
// they are only slow.
func TestAStallIsTold(t *testing.T) {
	t.Parallel()
	record := t.TempDir() + "/record"
	old := `{"topic":"com.example.one"}` + "\n" // from before the calm
	if err := os.WriteFile(record, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPulse(record)
	p.began = second(0)
	tube := func(i, ready int) remainder { return remainder{tube: apps()[i].tube, ready: ready} }
	look := func(at int, all ...remainder) {
		t.Helper()
		if err := p.look(all, second(at)); err != nil {
			t.Fatal(err)
		}
	}
	look(1, tube(0, 5), tube(1, 5), tube(2, 5))
	f, err := os.OpenFile(record, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(`{"topic":"com.example.three"}` + "\n" + `{"topic":"com.exam`); err != nil {
		t.Fatal(err)
	}
	look(130, tube(0, 5), tube(1, 4), tube(2, 5))
	stalls, slow := p.verdict([]remainder{tube(0, 5), tube(1, 4), tube(2, 5)}, second(150))
	if len(stalls) != 1 || !strings.Contains(stalls[0], "com.example.one: jobs wait and nothing has moved for 2m29s: 5 ready") {
		t.Errorf("stalls: %q", stalls)
	}
	if len(slow) != 2 || !strings.HasPrefix(slow[0], "com.example.two") || !strings.HasPrefix(slow[1], "tube-of-three") {
		t.Errorf("slow: %q", slow)
	}
	e := &ending{stalls: stalls, slow: slow}
	if got := e.faults(time.Minute); len(got) != 3 || !strings.HasPrefix(got[0], "stall: ") || !strings.HasPrefix(got[1], "not ended within 1m0s: ") {
		t.Errorf("faults: %q", got)
	}
}

// What never moved has stood still since the calm began.
func TestWhatNeverMovedStalls(t *testing.T) {
	t.Parallel()
	p := newPulse(t.TempDir() + "/none")
	p.began = second(0)
	stalls, slow := p.verdict([]remainder{{tube: "a", reserved: 1}}, second(100))
	if len(stalls) != 1 || len(slow) != 0 {
		t.Errorf("%q %q", stalls, slow)
	}
}

// A job still in the queue is not lost; a missing one is.
func TestJobsThatWaitAreNotLost(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, good, good)
	s.put(withTube, plain, good)
	s.waiting = s.ledger.traces(`{"tokens":["` + s.token(n) + `","` + s.token(n+1) + `"]}`)
	s.deliver(n, 1, 2)
	if a := s.wantFaults(t, "1 pushes lost"); a.waiting != 1 || a.delivered != 1 {
		t.Errorf("waiting %d, delivered %d, want 1 and 1", a.waiting, a.delivered)
	}
}

// A record that waits in its tube is not missing, whatever it is about.
func TestRecordsThatWaitAreNotMissing(t *testing.T) {
	s := newScene(t)
	one := s.put(withTube, plain, dead)
	list := s.put(withTube, plain, good, deformed)
	blurred := s.put(withTube, malformed, good)
	missing := s.put(withTube, malformed, good)
	s.dead(one, 2)
	s.line(one, 2, linePush, "token", "")
	s.deliver(list, 1, 2)
	s.line(list+1, 2, linePush, "rejected", "")
	for _, n := range []uint32{blurred, missing} {
		s.bury(n, 2, fmt.Sprintf("number %d is no JSON", n))
	}
	topic := apps()[withTube].topic
	s.waiting = s.ledger.traces(
		fmt.Sprintf(`{"topic":%q,"token":%q,"class":"token"}`, topic, s.token(one)),
		fmt.Sprintf(`{"topic":%q,"ref":%q,"class":"rejected","job":"1"}`, topic, reference(list)),
		fmt.Sprintf(`{"topic":%q,"class":"rejected","job":"birth-%s"}`, topic, s.ledger.jobOf(blurred).id),
	)
	if a := s.wantFaults(t, "1 pushes ended without their feedback record"); a.unrecorded[0] != missing || a.waiting != 0 {
		t.Errorf("unrecorded %v, waiting %d", a.unrecorded, a.waiting)
	}
}

// A waiting record does not stand for its job.
func TestARecordIsNoJob(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, good)
	record := fmt.Sprintf(`{"token":%q,"class":"rejected"}`, s.token(n))
	s.waiting = s.ledger.traces(record)
	s.takeAway(jobsStream, 29, 31, record)
	s.wantFaults(t, "1 pushes lost")
}

// The time limit begins when the last job is due, not when it was put.
func TestTheLastJobsTimeBeginsWhenItIsDue(t *testing.T) {
	t.Parallel()
	l := new(ledger)
	for _, delay := range []time.Duration{time.Hour, 0} {
		i, _, _ := l.add(0, delayed, false, []fate{good})
		l.accepted(i, "1", delay)
	}
	if in := time.Until(l.lastDue()); in < 59*time.Minute || in > time.Hour {
		t.Errorf("due in %v", in)
	}
}
