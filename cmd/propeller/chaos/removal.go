package main

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// removal is a stream that the hand removed: what was in it a moment before, and
// from then until it was gone, when more may have come.
type removal struct {
	stream string
	span
	bodies []string
}

// took says whether a moment lies within the removal. A put may have been under way
// for as long as askTimeout.
func (r *removal) took(t time.Time) bool {
	return !t.IsZero() && r.meets(t, t.Add(askTimeout))
}

// removed are the pushes and the sequencer's records that removals took.
type removed struct {
	all     []removal
	pushes  map[string]map[uint32]bool // by stream: of which a job or a record was in it
	records map[int]bool
}

func newRemoved(all []removal, l *ledger) *removed {
	r := &removed{all: all, pushes: map[string]map[uint32]bool{jobsStream: {}, buriedStream: {}}, records: make(map[int]bool)}
	for _, one := range all {
		for _, body := range one.bodies {
			if n, ok := sequenceNumber(body); ok {
				r.records[n] = true
				continue
			}
			for _, n := range l.numbersIn(body) {
				r.pushes[one.stream][n] = true
			}
		}
	}
	return r
}

// sequenceNumber is the number of a sequencer's record.
func sequenceNumber(body string) (int, bool) {
	var r feedbackRecord
	if json.Unmarshal([]byte(body), &r) != nil || r.Reason != sequenceReason {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimPrefix(r.Ref, sequenceRef))
	return n, err == nil
}

// within says whether a stream was removed at one of some moments.
func (r *removed) within(stream string, times ...time.Time) bool {
	return r != nil && slices.ContainsFunc(r.all, func(one removal) bool {
		return one.stream == stream && slices.ContainsFunc(times, one.took)
	})
}

func (r *removed) had(stream string, n uint32) bool { return r != nil && r.pushes[stream][n] }

// any says whether something was removed.
func (r *removed) any() bool { return r != nil && len(r.all) > 0 }

// tookJob says whether a push may have gone with its job: with the stream of jobs,
// or after it was buried with that of the buried.
func (v *verdict) tookJob() bool {
	r := v.c.removed
	if r.had(jobsStream, v.n) || r.within(jobsStream, v.j.at) || r.had(buriedStream, v.n) {
		return true
	}
	for _, rec := range v.d.records {
		if rec.class != "token" && rec.class != "expired" && r.within(buriedStream, rec.at) {
			return true
		}
	}
	for _, id := range append(slices.Clone(v.d.jobs), v.j.id) {
		of := jobID{apps()[v.j.app].topic, id}.bare()
		if r.within(buriedStream, v.c.said.buriedBare[of]...) {
			return true
		}
	}
	return false
}

// tookRecord says whether a push's record may have gone with the stream of jobs,
// in which the records are too.
func (v *verdict) tookRecord() bool {
	return v.tookJob() || v.c.removed.within(jobsStream, v.d.last)
}

// expected are the sequencer's records that must arrive: those stored, and not
// removed.
func (r *removed) expected(stored []bool, at []time.Time) []bool {
	out := slices.Clone(stored)
	for n := range out {
		out[n] = out[n] && !(r.any() && (r.records[n] || r.within(jobsStream, at[n])))
	}
	return out
}
