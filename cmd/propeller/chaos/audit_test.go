package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scene is a made-up run: the auditor must see what is wrong with it.
type scene struct {
	at     *site
	jobs   []job
	lives  []life
	buried map[uint64]string
	record []entry
	log    []string
}

func second(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0).UTC() }

// newScene has one daemon from second 0 on, and n plain jobs put in second 1.
func newScene(t *testing.T, kinds ...kind) *scene {
	t.Helper()
	t.Parallel()
	s := &scene{at: &site{dir: t.TempDir()}, lives: []life{{began: second(0)}}, buried: map[uint64]string{}}
	for i, k := range kinds {
		s.jobs = append(s.jobs, job{n: uint32(i), kind: k, id: uint64(100 + i), at: second(1), stored: true})
	}
	s.open(1, second(0))
	return s
}

func (s *scene) open(conn int, at time.Time) {
	s.record = append(s.record, entry{At: at, Run: 1, Conn: conn, Open: true})
}

func (s *scene) push(n, conn, at int, e entry) {
	e.At, e.Run, e.Conn, e.Topic, e.Token = second(at), 1, conn, apps()[0].topic, token(s.jobs[n].n, s.jobs[n].kind)
	s.record = append(s.record, e)
}

func (s *scene) deliver(n, conn, at int) {
	s.push(n, conn, at, entry{Answer: "200", Status: 200, Delivered: true})
}

func (s *scene) line(n, at int, msg, class, more string) {
	s.log = append(s.log, fmt.Sprintf(`{"time":%q,"level":"INFO","msg":%q,"topic":%q,"job":"%d","token":"%08x","class":%q%s}`,
		second(at).Format(time.RFC3339), msg, apps()[0].topic, s.jobs[n].id, s.jobs[n].n, class, more))
}

func (s *scene) judge(t *testing.T) *account {
	t.Helper()
	var record strings.Builder
	for _, e := range s.record {
		if err := (recorder{&record}).add(e); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"apns.record": record.String(), daemonLog: strings.Join(s.log, "\n")} {
		if err := os.WriteFile(filepath.Join(s.at.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	said, err := hear(s.at, s.jobs)
	if err != nil {
		t.Fatal(err)
	}
	return (&court{jobs: s.jobs, lives: s.lives, buried: s.buried, said: said}).judge()
}

func (s *scene) wantFaults(t *testing.T, want ...string) *account {
	t.Helper()
	a := s.judge(t)
	got := a.faults()
	if len(got) != len(want) {
		t.Fatalf("faults %q, want %q", got, want)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("fault %q, want %q", got[i], want[i])
		}
	}
	return a
}

func TestEveryEndIsAccountedFor(t *testing.T) {
	s := newScene(t, plain, dead, misspelt, malformed, timed, bad)
	s.deliver(0, 1, 2)
	s.push(1, 1, 2, entry{Answer: "410", Status: 410})
	s.line(1, 2, "push", "token", "")
	s.line(2, 2, "job buried", "rejected", `,"reason":"unknown key"`)
	s.buried[102] = `{"token":"` + token(2, misspelt) + `","tilte":"x"}`
	s.log = append(s.log, `{"time":"`+second(3).Format(time.RFC3339)+`","msg":"job buried","topic":"com.example.one","job":"103","token":"","class":"rejected","reason":"not JSON"}`)
	s.buried[103] = "number 3 is no JSON"
	s.line(4, 9, "expired, not sent", "expired", "")
	s.line(5, 3, "job buried", "rejected", `,"why":"400 PayloadEmpty"`)
	s.buried[105] = `{"token":"` + token(5, bad) + `"}`
	a := s.wantFaults(t)
	got := []int{a.put, a.delivered, a.refused, a.buried, a.expired, len(a.lost), a.twice}
	if fmt.Sprint(got) != "[6 1 1 3 1 0 0]" {
		t.Errorf("put, delivered, refused, buried, expired, lost, twice: %v", got)
	}
}

func TestLostJobsAreFound(t *testing.T) {
	s := newScene(t, plain, plain, plain, plain, plain)
	s.deliver(0, 1, 2)
	s.push(1, 1, 2, entry{Answer: "silence"})
	s.line(1, 2, "push", "delivered", "") // the daemon's word is no proof
	s.line(2, 2, "job buried", "rejected", "")
	s.line(3, 2, "expired, not sent", "expired", "") // it had no time
	s.jobs[4].stored = false                         // nobody promised anything
	if a := s.wantFaults(t, "3 jobs lost"); a.never != 1 {
		t.Errorf("never stored: %d, want 1", a.never)
	}
}

func TestSilentEndsAreFound(t *testing.T) {
	s := newScene(t, plain, plain, misspelt)
	s.line(0, 2, "push", "token", "") // APNs never said so
	s.buried[101] = `{"token":"` + token(1, plain) + `"}`
	s.buried[102] = `{"token":"` + token(2, misspelt) + `"}`
	s.line(2, 0, "job buried", "rejected", "") // of an earlier job with that id
	s.wantFaults(t, "which APNs did not say", "without a line", "without a line")
}

func TestDoublesMustBeCounted(t *testing.T) {
	s := newScene(t, plain, plain, plain, plain)
	for n := range s.jobs {
		s.deliver(n, 1, 2)
		s.deliver(n, 1, 3)
	}
	s.deliver(3, 1, 4)
	s.line(0, 2, "push", "unknown", "")
	s.line(1, 2, "push", "delivered", "")
	s.log = append(s.log, `{"msg":"job finished but not deleted: it may be pushed again","topic":"com.example.one","job":"101"}`)
	s.line(3, 2, "push", "unknown", "") // one for two
	a := s.wantFaults(t, "2 jobs delivered more than once")
	if a.twice != 4 || a.uncounted[0].n != 2 || a.uncounted[1].n != 3 {
		t.Errorf("twice %d, uncounted %v", a.twice, a.uncounted)
	}
}

// A count of an earlier try does not cover a push after the job was done.
func TestDoneJobsStayDone(t *testing.T) {
	s := newScene(t, plain, plain, plain)
	started := func() { s.log = append(s.log, `{"msg":"propeller started"}`) }
	started()
	for n := range s.jobs {
		s.line(n, 2, "push", "unknown", "")
		s.line(n, 3, "push", "delivered", "")
		s.deliver(n, 1, 2)
		s.deliver(n, 1, 3)
	}
	s.line(0, 4, "push", "throttled", "")
	s.line(1, 4, notDeleted, "", "")
	s.line(1, 4, "push", "delivered", "")
	started()
	s.line(2, 4, "push", "delivered", "")
	s.wantFaults(t, "job 0 (plain): was pushed again")
}

// A killed daemon excuses only the push that it made itself.
func TestOnlyTheKilledDaemonIsExcused(t *testing.T) {
	s := newScene(t, plain, plain, plain)
	s.lives = []life{{second(0), second(10), true}, {second(10), second(20), false}, {began: second(20)}}
	s.open(2, second(11))
	s.open(3, second(21))
	s.deliver(0, 1, 12) // read late, from a connection of the killed one
	s.deliver(0, 2, 12)
	s.deliver(1, 2, 12) // the second was only stopped
	s.deliver(1, 3, 22)
	s.deliver(2, 1, 5)
	s.deliver(2, 1, 6)
	a := s.wantFaults(t, "2 jobs delivered more than once")
	if a.excused != 1 || a.uncounted[0].n != 1 || a.uncounted[1].n != 2 {
		t.Errorf("excused %d, uncounted %v", a.excused, a.uncounted)
	}
}

func TestWhatElseMustNotBe(t *testing.T) {
	s := newScene(t, plain, misspelt)
	s.push(0, 1, 2, entry{ID: "a", Answer: "500", Status: 500})
	s.push(0, 1, 3, entry{ID: "b", Answer: "200", Status: 200, Delivered: true})
	s.deliver(1, 1, 2)
	s.record = append(s.record, entry{Breach: "stream opened"}, entry{Token: token(77, plain)}, entry{Token: token(0, plain), Topic: "com.example.two", ID: "a"})
	s.log = append(s.log, "panic: oh")
	s.buried[5] = "what is this"
	s.wantFaults(t, "nobody put: 5", "apns-id changed", "was delivered", "nobody put: 0000004d", "pushed for com.example.two", "stream opened", "panic: oh")
}

// What a producer writes, the auditor must read.
func TestNumbersComeBack(t *testing.T) {
	t.Parallel()
	p := &producer{rng: newRNG(1, 1)}
	for n, k := range []kind{plain, delayed, timed, dated, dead, bad, misspelt, malformed} {
		body, _ := p.job(uint32(n), k)
		if got, ok := numberIn(string(body)); !ok || got != uint32(n) {
			t.Errorf("%s: number %d (%v) in %s, want %d", k, got, ok, body, n)
		}
		if k != malformed && !json.Valid(body) {
			t.Errorf("%s: %s", k, body)
		}
	}
}
