package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// delivery is a push that reached its device.
type delivery struct {
	at   time.Time
	open time.Time // when its connection began
}

// told is a feedback record on a push, or on a job that could not be decoded.
type told struct {
	class string
	job   string // the queue's id
	at    time.Time
}

// deeds are what the witnesses say of one push.
type deeds struct {
	deliveries []delivery
	records    []told    // as they were first received
	last       time.Time // when it was last spoken of
	id         string    // apns-id of the first request; all must have it
	changed    bool      // not all had
	dead       bool      // the APNs side said that the token is
	misled     bool      // the wrong environment said so, which means nothing

	token, expired, rejected bool  // a line in the daemon's log says so
	again                    bool  // the process that had called it delivered, and deleted it, has pushed it again
	forked                   bool  // so does one that it may go on in two jobs
	counted                  int32 // lines that count a possible duplicate
	doneIn                   int32 // the daemon's process that has called it delivered, and deleted the job
	doneJob                  string
	jobs                     []string // in which a token of a list was
}

// stay is what the log says of one of the jobs that a list has become: what is
// left of a list goes on in jobs of its own.
type stay struct {
	job  string
	at   time.Time // when it was first spoken of
	life int32     // the daemon's process that spoke of it last
	from []int32   // those that had spoken of it before, and ended
}

// has says whether there is a record of a class.
func (d *deeds) has(class string) bool {
	for _, r := range d.records {
		if r.class == class {
			return true
		}
	}
	return false
}

// setAside says whether there is a record of a buried job.
func (d *deeds) setAside() bool {
	for _, r := range d.records {
		if r.class != "token" && r.class != "expired" {
			return true
		}
	}
	return false
}

// jobID names a job by topic and the queue's id, which may come twice:
// beanstalkd begins anew where its log ends.
type jobID struct{ topic, id string }

// bare is the id without the birth of its JetStream stream, which stands before the job's
// number.
func (id jobID) bare() jobID {
	return jobID{id.topic, id.id[strings.LastIndexByte(id.id, '-')+1:]}
}

// pause is a line that says that the environment guard has stopped an app.
type pause struct {
	topic string
	at    time.Time
}

// testimony is all that the witnesses say.
type testimony struct {
	ledger   *ledger
	deeds    []deeds           // by push
	lists    map[uint32][]stay // by the ledger's job, in the log's order
	sequence *sequence

	buriedIDs    map[jobID][]time.Time  // "job buried" lines, by the id that the producer got
	buriedBare   map[jobID][]time.Time  // the same by the bare id
	jobRecords   map[jobID][]told       // records without a token that can be read
	refRecords   map[uint32]int         // of those, rejected tokens of a list, by the ledger's job
	expiredLists map[uint32][]time.Time // lines about expired lists, by the ledger's job

	requests   int
	graves     int             // requests for tokens known to be dead
	dug        map[string]bool // topics whose grave was called dead
	answers    map[string]int
	reasons    map[string]int // of buried jobs
	records    map[string]int // feedback records by class
	repeats    int            // records received again: by crashes of the reading side
	lives      int32          // processes of the daemon so far in the log
	doubts     int            // possible duplicates counted by the daemon
	pauses     []pause
	watchdog   map[string]int         // its lines by message
	restarts   map[string][]time.Time // by the watchdog, by app and worker
	breaches   []string               // of HTTP/2
	misled     []string               // requests and records of another app's
	odd        []string               // lines of the daemon's log that are none, as of a panic
	errors     map[string]int         // error lines by message
	classNames map[string]string      // interned
}

// hear reads all witnesses. stored is what the sequencer has stored; at the
// times of late, records may have been put off.
func hear(at *site, l *ledger, stored []bool, late []time.Time) (*testimony, error) {
	t := &testimony{
		ledger: l, deeds: make([]deeds, len(l.pushes)), lists: make(map[uint32][]stay), sequence: &sequence{stored: stored, came: make([]bool, len(stored)), late: late}, dug: make(map[string]bool),
		buriedIDs: make(map[jobID][]time.Time), buriedBare: make(map[jobID][]time.Time), jobRecords: make(map[jobID][]told), refRecords: make(map[uint32]int),
		expiredLists: make(map[uint32][]time.Time),
		answers:      make(map[string]int), reasons: make(map[string]int), records: make(map[string]int), errors: make(map[string]int),
		watchdog: make(map[string]int), restarts: make(map[string][]time.Time), classNames: make(map[string]string),
	}
	if err := t.readRecord(at.path(recordName)); err != nil {
		return nil, err
	}
	if err := t.readBook(at.path(bookName)); err != nil {
		return nil, err
	}
	return t, t.readLog(at.path(daemonLog))
}

// maxFindings bounds the lists that only people read.
const maxFindings = 20

func find(list *[]string, format string, args ...any) {
	if len(*list) < maxFindings {
		*list = append(*list, fmt.Sprintf(format, args...))
	}
}

// readRecord hears the APNs side.
func (t *testimony) readRecord(path string) error {
	type conn struct{ run, conn int }
	open := make(map[conn]time.Time)
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
		case e.Breach != "":
			find(&t.breaches, "%s run %d: %s", e.At.Format(time.RFC3339Nano), e.Run, e.Breach)
		default:
			t.request(&e, open[conn{e.Run, e.Conn}])
		}
	})
	if err == nil {
		err = fault
	}
	return err
}

func (t *testimony) request(e *entry, open time.Time) {
	t.requests++
	t.answers[e.Answer]++
	n, ok := t.ledger.number(e.Token, "", e.ID)
	if !ok {
		find(&t.misled, "a request for a token that nobody put: %s", e.Token)
		return
	}
	if t.ledger.pushes[n].fate == grave {
		t.graves++
	}
	if want := appAt(t.ledger.jobOf(n).app).topic; e.Topic != want {
		find(&t.misled, "push %d of %s was pushed for %s", n, want, e.Topic)
	}
	d := &t.deeds[n]
	if d.id == "" {
		d.id = e.ID
	}
	d.last = e.At
	d.changed = d.changed || d.id != e.ID
	d.dead = d.dead || e.Dead
	if e.Dead && t.ledger.pushes[n].fate == grave {
		t.dug[e.Topic] = true
	}
	d.misled = d.misled || e.Wrong
	if e.Delivered {
		d.deliveries = append(d.deliveries, delivery{e.At, open})
	}
}

// readBook hears the readers of feedback.
func (t *testimony) readBook(path string) error {
	var fault error
	err := eachLine(path, func(line int, text []byte) {
		var e bookEntry
		err := json.Unmarshal(text, &e)
		var r feedbackRecord
		if err == nil {
			err = json.Unmarshal(e.Record, &r)
		}
		switch {
		case err != nil:
			fault = fmt.Errorf("%s:%d: %w", path, line, err)
		case r.Reason == sequenceReason:
			t.sequence.arrived(&r, line)
		default:
			t.record(&r, e.Via, line)
		}
	})
	if err == nil {
		err = fault
	}
	return err
}

func (t *testimony) record(r *feedbackRecord, via string, line int) {
	app, ok := appOf(r.Topic)
	if !ok || appAt(app).feedback == "" || appAt(app).webhook != (via == "webhook") {
		find(&t.misled, "%s:%d: a record of %q came by the %s", bookName, line, r.Topic, via)
		return
	}
	if r.Class == "" || r.Reason == "" || r.Job == "" || r.At.IsZero() {
		find(&t.misled, "%s:%d: a record without class, reason, job or time", bookName, line)
	}
	t.records[r.Class]++
	got := told{t.intern(r.Class), r.Job, r.At}
	n, known := t.ledger.number(r.Token, r.Ref, "")
	if _, legible := numbered(r.Token); legible && known {
		d := &t.deeds[n]
		d.records = t.once(d.records, got)
		return
	}
	// Of a job that could not be decoded, or a token that is none.
	id := jobID{r.Topic, r.Job}
	t.jobRecords[id] = t.once(t.jobRecords[id], got)
	if !known {
		return
	}
	if j := t.ledger.jobOf(n); j.many {
		t.refRecords[t.ledger.pushes[n].job]++
	} else {
		d := &t.deeds[n]
		if !slices.Contains(d.records, got) {
			d.records = append(d.records, got)
		}
	}
}

// once adds a record unless it is there: one that was received again.
func (t *testimony) once(all []told, r told) []told {
	if slices.Contains(all, r) {
		t.repeats++
		return all
	}
	return append(all, r)
}

// intern returns one copy of a class' name for all records.
func (t *testimony) intern(class string) string {
	if known, ok := t.classNames[class]; ok {
		return known
	}
	t.classNames[class] = class
	return class
}
