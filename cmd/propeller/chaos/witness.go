package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// delivery is a push that reached its device.
type delivery struct {
	at   time.Time
	open time.Time // when its connection began
}

// deeds are what the witnesses say of one job.
type deeds struct {
	deliveries []delivery
	dead       bool   // the APNs side answered 410
	id         string // apns-id of the first request; all must have it
	changed    bool   // not all had

	token, expired, buried bool // a line in the daemon's log says so
	counted                int  // lines that count a possible duplicate
	doneIn                 int  // the daemon's process that has called it delivered, and deleted
	again                  bool // the same process has pushed it again
}

// testimony is all that the witnesses say.
type testimony struct {
	deeds     map[uint32]*deeds
	buriedIDs map[string][]time.Time // "job buried" lines by topic and the queue's id
	requests  int
	answers   map[string]int
	reasons   map[string]int // of buried jobs
	lives     int            // processes of the daemon so far in the log
	doubts    int            // possible duplicates counted by the daemon
	breaches  []string       // of HTTP/2
	misled    []string       // requests with another app's topic
	odd       []string       // lines of the daemon's log that are none, as of a panic
	errors    map[string]int // error lines by message
}

func (t *testimony) of(n uint32) *deeds {
	d := t.deeds[n]
	if d == nil {
		d = new(deeds)
		t.deeds[n] = d
	}
	return d
}

// hear reads both witnesses.
func hear(at *site, jobs []job) (*testimony, error) {
	t := &testimony{
		deeds: make(map[uint32]*deeds), buriedIDs: make(map[string][]time.Time),
		answers: make(map[string]int), reasons: make(map[string]int), errors: make(map[string]int),
	}
	if err := t.readRecord(at.path("apns.record"), jobs); err != nil {
		return nil, err
	}
	return t, t.readLog(at.path(daemonLog))
}

// number reads a job's number from the beginning of its token.
func number(token string) (uint32, bool) {
	if len(token) < 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(token[:8], 16, 32)
	return uint32(n), err == nil
}

// maxFindings bounds the lists that only people read.
const maxFindings = 20

func find(list *[]string, format string, args ...any) {
	if len(*list) < maxFindings {
		*list = append(*list, fmt.Sprintf(format, args...))
	}
}

func (t *testimony) readRecord(path string, jobs []job) error {
	type conn struct{ run, conn int }
	open := make(map[conn]time.Time)
	all := apps()
	var fault error
	err := eachLine(path, func(line int, text []byte) {
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			fault = fmt.Errorf("%s:%d: %w", path, line, err)
			return
		}
		switch {
		case e.Open:
			open[conn{e.Run, e.Conn}] = e.At
			return
		case e.Breach != "":
			find(&t.breaches, "%s run %d: %s", e.At.Format(time.RFC3339Nano), e.Run, e.Breach)
			return
		}
		t.requests++
		t.answers[e.Answer]++
		n, ok := number(e.Token)
		if !ok || int(n) >= len(jobs) {
			find(&t.misled, "a request for a token that nobody put: %s", e.Token)
			return
		}
		if want := all[jobs[n].app].topic; e.Topic != want {
			find(&t.misled, "job %d of %s was pushed for %s", n, want, e.Topic)
		}
		d := t.of(n)
		if d.id == "" {
			d.id = e.ID
		}
		d.changed = d.changed || d.id != e.ID
		d.dead = d.dead || e.Status == 410
		if e.Delivered {
			d.deliveries = append(d.deliveries, delivery{e.At, open[conn{e.Run, e.Conn}]})
		}
	})
	if err == nil {
		err = fault
	}
	return err
}

// logLine is what the auditor needs of a line of the daemon's log.
type logLine struct {
	Time                           time.Time
	Level, Msg, Topic, Job, Token  string
	Class, Reason, Why, Err, Panic string
}

// jobOf names a job by topic and the queue's id, which may come twice:
// beanstalkd begins anew where its log ends.
func jobOf(topic, id string) string { return topic + " " + id }

func (t *testimony) readLog(path string) error {
	now := make(map[string]uint32) // whose the ids are at this point of the log
	return eachLine(path, func(line int, text []byte) {
		var l logLine
		if err := json.Unmarshal(text, &l); err != nil {
			if len(bytes.TrimSpace(text)) > 0 {
				find(&t.odd, "%s:%d: %.200s", daemonLog, line, text)
			}
			return
		}
		if l.Level == "ERROR" {
			t.errors[l.Msg]++
		}
		if l.Msg == "propeller started" {
			t.lives++
		}
		n, known := number(l.Token)
		switch {
		case known && l.Job != "":
			now[jobOf(l.Topic, l.Job)] = n
		case l.Job != "":
			n, known = now[jobOf(l.Topic, l.Job)]
		}
		t.readJobLine(&l, n, known)
	})
}

const notDeleted = "job finished but not deleted: it may be pushed again"

func (t *testimony) readJobLine(l *logLine, n uint32, known bool) {
	if l.Msg == "job buried" {
		at := jobOf(l.Topic, l.Job)
		t.buriedIDs[at] = append(t.buriedIDs[at], l.Time)
		why := l.Why
		if why == "" {
			why = l.Reason
		}
		t.reasons[class(why)]++
	}
	if l.Msg == "push" && l.Class == "unknown" || l.Msg == notDeleted {
		t.doubts++
		if known {
			t.of(n).counted++
		}
	}
	if !known {
		return
	}
	d := t.of(n)
	switch {
	case l.Msg == notDeleted:
		d.doneIn = 0
	case l.Msg == "push":
		d.again = d.again || d.doneIn != 0 && d.doneIn == t.lives
		if l.Class == "delivered" {
			d.doneIn = t.lives
		}
	}
	switch {
	case l.Msg == "job buried" && l.Token != "":
		d.buried = true
	case l.Msg == "push" && l.Class == "token":
		d.token = true
	case l.Msg == "expired, not sent":
		d.expired = true
	}
}

// class shortens a reason to what many have in common.
func class(why string) string {
	why, _, _ = strings.Cut(why, ", after ")
	if strings.HasPrefix(why, "gave up after") {
		return "gave up"
	}
	return why
}
