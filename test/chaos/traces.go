package main

import (
	"encoding/json"
	"strconv"
	"strings"
)

// traces is what the bodies of jobs and records refer to.
type traces struct {
	pushes   map[uint32]bool // in jobs
	records  map[uint32]bool // pushes with a record
	jobs     map[jobID]bool  // with a record: plain ids of jobs that could not be decoded
	refs     map[uint32]bool // with a record: the ledger's jobs, for a token that cannot be read
	sequence map[int]bool    // the sequencer's records
}

func (l *ledger) traces(bodies ...string) *traces {
	t := &traces{make(map[uint32]bool), make(map[uint32]bool), make(map[jobID]bool), make(map[uint32]bool), make(map[int]bool)}
	for _, body := range bodies {
		t.add(l, body)
	}
	return t
}

func (t *traces) add(l *ledger, body string) {
	var r feedbackRecord
	if json.Unmarshal([]byte(body), &r) != nil || r.Class == "" {
		for _, n := range l.numbersIn(body) {
			t.pushes[n] = true
		}
		return
	}
	if r.Reason == sequenceReason {
		if n, err := strconv.Atoi(strings.TrimPrefix(r.Ref, sequenceRef)); err == nil {
			t.sequence[n] = true
		}
		return
	}
	n, ok := l.number(r.Token, r.Ref, "")
	if _, legible := numbered(r.Token); ok && legible {
		t.records[n] = true
		return
	}
	t.jobs[jobID{r.Topic, r.Job}.bare()] = true
	if ok {
		t.refs[l.pushes[n].job] = true
	}
}

// record reports whether there is a record of a push, or of its job if it has no token.
func (t *traces) record(v *verdict) bool {
	return t.records[v.n] || v.fate == deformed && t.refs[v.job] || t.jobs[jobID{appAt(v.j.app).topic, v.j.id}.bare()]
}
