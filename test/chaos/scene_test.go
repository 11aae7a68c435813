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
	court
	at     *site
	record []entry
	book   []bookEntry
	log    []string
	stored []bool
	late   []time.Time
}

func second(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0).UTC() }

// What a scene's jobs are of: an app with a feedback tube, and one without.
const (
	withTube = 0
	logOnly  = 3
)

// newScene has one daemon from second 0 on, and nothing else.
func newScene(t *testing.T) *scene {
	t.Helper()
	t.Parallel()
	s := &scene{at: &site{dir: t.TempDir()}}
	s.ledger, s.lives = new(ledger), []life{{began: second(0)}}
	s.buried, s.listed = map[string]map[string]string{}, map[string]page{}
	s.waiting = s.ledger.traces()
	s.open(1, second(0))
	return s
}

// put puts a job in second 1 and returns the number of its first push.
func (s *scene) put(app int, k kind, fates ...fate) uint32 {
	i, first, _ := s.ledger.add(app, k, len(fates) > 1, fates)
	s.ledger.accepted(i, fmt.Sprint(100+i), 0)
	s.ledger.jobs[i].at = second(1)
	return first
}

func (s *scene) app(n uint32) app { return apps()[s.ledger.jobOf(n).app] }

func (s *scene) token(n uint32) string { return token(n, s.ledger.pushes[n].fate) }

func (s *scene) open(conn int, at time.Time) {
	s.record = append(s.record, entry{At: at, Run: 1, Conn: conn, Open: true})
}

func (s *scene) push(n uint32, conn, at int, e entry) {
	e.At, e.Run, e.Conn, e.Topic, e.Token = second(at), 1, conn, s.app(n).topic, s.token(n)
	s.record = append(s.record, e)
}

func (s *scene) deliver(n uint32, conn, at int) {
	s.push(n, conn, at, entry{Answer: "200", Status: 200, Delivered: true})
}

func (s *scene) dead(n uint32, at int) {
	s.push(n, 1, at, entry{Answer: "410", Status: 410, Dead: true})
}

func (s *scene) line(n uint32, at int, msg, class, more string) {
	s.log = append(s.log, fmt.Sprintf(`{"time":%q,"level":"INFO","msg":%q,"topic":%q,"job":%q,"token":"%08x","class":%q%s}`,
		second(at).Format(time.RFC3339), msg, s.app(n).topic, s.ledger.jobOf(n).id, n, class, more))
}

func (s *scene) feed(n uint32, at int, class string) { s.feedRecord(s.recordOf(n, at, class)) }

func (s *scene) recordOf(n uint32, at int, class string) feedbackRecord {
	return feedbackRecord{Topic: s.app(n).topic, Token: s.token(n), Class: class, Reason: "for this", Job: s.ledger.jobOf(n).id, At: second(at)}
}

func (s *scene) feedRecord(r feedbackRecord) {
	raw, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	via := "tube"
	if i, ok := appOf(r.Topic); ok && apps()[i].webhook {
		via = "webhook"
	}
	s.book = append(s.book, bookEntry{Via: via, Record: raw})
}

// bury has the job of push n end buried, with everything that belongs to it
// but its records.
func (s *scene) bury(n uint32, at int, body string) {
	app, id := s.app(n), s.ledger.jobOf(n).id
	s.line(n, at, lineBuried, "rejected", `,"reason":"for this"`)
	if s.buried[app.tube] == nil {
		s.buried[app.tube], s.listed[app.tube] = map[string]string{}, page{reasons: map[string]string{}}
	}
	if body == "" {
		body = fmt.Sprintf(`{"token":%q}`, s.token(n))
	}
	s.buried[app.tube][id], s.listed[app.tube].reasons[id] = body, "for this"
}

func (s *scene) judge(t *testing.T) *account {
	t.Helper()
	var record, book strings.Builder
	for _, e := range s.record {
		if err := (recorder{&record}).add(e); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range s.book {
		if err := json.NewEncoder(&book).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{recordName: record.String(), bookName: book.String(), daemonLog: strings.Join(s.log, "\n")} {
		if err := os.WriteFile(filepath.Join(s.at.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.said, err = hear(s.at, s.ledger, s.stored, s.late); err != nil {
		t.Fatal(err)
	}
	return s.court.judge()
}

func (s *scene) wantFaults(t *testing.T, want ...string) *account {
	t.Helper()
	a := s.judge(t)
	got := a.faults()
	if len(got) != len(want) {
		t.Fatalf("faults:\n%s\nwant %q", strings.Join(got, "\n"), want)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("fault %q, want %q", got[i], want[i])
		}
	}
	return a
}
