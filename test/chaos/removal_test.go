package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// An id in the log may begin with the stream's birth.
func TestBareIDs(t *testing.T) {
	t.Parallel()
	for full, bare := range map[string]string{"17": "17", "mfk3a9x1-17": "17", "dABC": "dABC"} {
		if got := (jobID{"t", full}).bare(); got != (jobID{"t", bare}) {
			t.Errorf("%s: %v", full, got)
		}
	}
}

// takeAway makes the hand remove a stream between two seconds, with some bodies in it.
func (s *scene) takeAway(stream string, from, to int, bodies ...string) {
	s.removed = newRemoved([]removal{{stream: stream, span: span{from: second(from), to: second(to)}, bodies: bodies}}, s.ledger)
}

func (s *scene) body(n uint32) string { return fmt.Sprintf(`{"token":%q}`, s.token(n)) }

// Whatever was in the stream of jobs when it was removed, or arrived just then, counts as
// removed; everything else is lost.
func TestRemovedJobsAreCountedSo(t *testing.T) {
	s := newScene(t)
	in, lost, then := s.put(withTube, plain, good), s.put(withTube, plain, good), s.put(withTube, plain, good)
	later := s.put(withTube, plain, good)
	s.ledger.jobOf(then).at = second(31)
	s.ledger.jobOf(later).at = second(40)
	s.takeAway(jobsStream, 30, 32, s.body(in))
	a := s.wantFaults(t, "2 pushes lost")
	if a.removed != 2 || a.lost[0] != lost || a.lost[1] != later {
		t.Errorf("removed %d, lost %v, want 2 and %v", a.removed, a.lost, []uint32{lost, later})
	}
}

// Removing the stream of buried jobs takes buried jobs and no others.
func TestRemovedBuriedJobsAreCountedSo(t *testing.T) {
	for _, app := range []int{withTube, logOnly} {
		t.Run(apps()[app].topic, func(t *testing.T) {
			s := newScene(t)
			in, then, lost := s.put(app, misspelt, good), s.put(app, misspelt, good), s.put(app, misspelt, good)
			s.ledger.jobOf(then).id = "birth-55"
			for i, n := range []uint32{in, then, lost} {
				s.line(n, 10+20*i, lineBuried, "rejected", "")
				if app != logOnly {
					s.feed(n, 10+20*i, "rejected")
				}
			}
			s.ledger.jobOf(then).id = "55" // its producer only knows this id
			s.takeAway(buriedStream, 29, 31, s.body(in))
			// A record says that it is buried, but it is not there.
			want := []string{"1 pushes lost"}
			if app != logOnly {
				want = append(want, "was called buried")
			}
			a := s.wantFaults(t, want...)
			if a.removed != 2 || len(a.lost) != 1 || a.lost[0] != lost {
				t.Errorf("removed %d, lost %v", a.removed, a.lost)
			}
		})
	}
}

// Records are in the stream of jobs too. A record that was there, or was made just then, may
// be missing.
func TestRemovedRecordsMayBeMissing(t *testing.T) {
	s := newScene(t)
	in, then, missing := s.put(withTube, plain, dead), s.put(withTube, plain, dead), s.put(withTube, plain, dead)
	for i, n := range []uint32{in, then, missing} {
		s.dead(n, 10+20*i)
		s.line(n, 10+20*i, linePush, "token", "")
	}
	s.takeAway(jobsStream, 29, 31, fmt.Sprintf(`{"token":%q,"class":"token"}`, s.token(in)))
	a := s.wantFaults(t, "1 pushes ended without their feedback record")
	if a.unrecorded[0] != missing {
		t.Errorf("unrecorded %v", a.unrecorded)
	}
}

// The same holds for records whose order is judged.
func TestRemovedRecordsOfTheSequence(t *testing.T) {
	t.Parallel()
	body := fmt.Sprintf(`{"class":"token","reason":%q,"ref":"%s1"}`, sequenceReason, sequenceRef)
	r := newRemoved([]removal{{stream: jobsStream, span: span{from: second(29), to: second(31)}, bodies: []string{body}}}, new(ledger))
	at := []time.Time{second(1), second(1), second(30), second(40), second(50), second(60)}
	got := r.expected([]bool{true, true, true, true, false, true}, at, new(ledger).traces(strings.Replace(body, sequenceRef+"1", sequenceRef+"5", 1)))
	if fmt.Sprint(got) != "[true false false true false false]" {
		t.Errorf("expected %v", got)
	}
}

// A removal of one stream excuses nothing in the other.
func TestTheOtherStreamIsNotExcused(t *testing.T) {
	s := newScene(t)
	n := s.put(withTube, plain, good)
	s.ledger.jobOf(n).at = second(30)
	s.takeAway(buriedStream, 29, 31)
	s.wantFaults(t, "1 pushes lost")
}

// The log names one token of an expired list; the records of the others may have gone with the
// stream of jobs. A push without such a record is lost.
func TestRecordsOfAnExpiredListMayBeRemoved(t *testing.T) {
	s := newScene(t)
	first := s.put(withTube, timed, good, good, good)
	other := s.put(withTube, timed, good, good)
	s.line(first, 10, lineExpired, "expired", "")
	record := func(n uint32) string { return fmt.Sprintf(`{"token":%q,"class":"expired"}`, s.token(n)) }
	s.takeAway(jobsStream, 29, 31, record(first), record(first+1), record(other))
	a := s.wantFaults(t, "3 pushes lost")
	if a.expired != 2 || fmt.Sprint(a.lost) != fmt.Sprint([]uint32{first + 2, other, other + 1}) {
		t.Errorf("expired %d, lost %v", a.expired, a.lost)
	}
	s.log = nil
	s.line(first, 30, lineExpired, "expired", "") // its records were put just then
	a = s.wantFaults(t, "2 pushes lost")
	if a.expired != 3 {
		t.Errorf("expired %d", a.expired)
	}
}

// A record that says buried is right if the job was buried and then removed with its stream.
func TestRemovedBuriedJobsWereCalledSo(t *testing.T) {
	s := newScene(t)
	in, lie := s.put(withTube, plain, bad, good), s.put(withTube, plain, bad)
	s.deliver(in+1, 1, 10)
	s.line(in, 10, lineBuried, "rejected", "")
	s.feed(in, 10, "rejected")
	s.feed(lie, 10, "rejected")
	s.takeAway(buriedStream, 100, 101, s.body(in))
	a := s.wantFaults(t, "1 pushes lost", fmt.Sprintf("push %d (plain, bad push): was called buried", lie))
	if a.removed != 1 {
		t.Errorf("removed %d", a.removed)
	}
}

// A job that had been copied to the buried ones when the stream of jobs was removed
// stays buried, and no line says so.
func TestBuriedWhenItsJobWasRemoved(t *testing.T) {
	s := newScene(t)
	in, other := s.put(logOnly, misspelt, good), s.put(logOnly, misspelt, good)
	for _, n := range []uint32{in, other} {
		s.bury(n, 10, "")
	}
	s.log = nil
	s.takeAway(jobsStream, 29, 31, s.body(in))
	s.wantFaults(t, fmt.Sprintf("push %d (unknown key, good token): was buried without a line", other))
}
