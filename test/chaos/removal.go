package main

import (
	"slices"
	"time"
)

// removal is a stream that the hand removed: what was in it a moment before, and the time
// from then until it was gone, when more may have come.
type removal struct {
	stream string
	span
	bodies []string
}

// took reports whether a moment lies within the removal. A put may have been under way for
// askTimeout.
func (r *removal) took(t time.Time) bool {
	return !t.IsZero() && r.meets(t, t.Add(askTimeout))
}

// removed is everything that removals took, by stream.
type removed struct {
	all []removal
	had map[string]*traces
}

func newRemoved(all []removal, l *ledger) *removed {
	r := &removed{all: all, had: map[string]*traces{jobsStream: l.traces(), buriedStream: l.traces()}}
	for _, one := range all {
		for _, body := range one.bodies {
			r.had[one.stream].add(l, body)
		}
	}
	return r
}

// within reports whether a stream was removed at one of the moments.
func (r *removed) within(stream string, times ...time.Time) bool {
	return r != nil && slices.ContainsFunc(r.all, func(one removal) bool {
		return one.stream == stream && slices.ContainsFunc(times, one.took)
	})
}

// any reports whether anything was removed.
func (r *removed) any() bool { return r != nil && len(r.all) > 0 }

// tookJob reports whether a push may have gone with its job: with the stream of jobs or,
// after the job was buried, with the stream of buried jobs.
func (v *verdict) tookJob() bool {
	r := v.c.removed
	if !r.any() {
		return false
	}
	if r.had[jobsStream].pushes[v.n] || r.within(jobsStream, v.j.at) || r.had[buriedStream].pushes[v.n] {
		return true
	}
	for _, rec := range v.d.records {
		if rec.class != "token" && rec.class != "expired" && r.within(buriedStream, rec.at) {
			return true
		}
	}
	for _, id := range append(slices.Clone(v.d.jobs), v.j.id) {
		of := jobID{appAt(v.j.app).topic, id}.bare()
		if r.within(buriedStream, v.c.said.buriedBare[of]...) {
			return true
		}
	}
	return false
}

// tookOriginal says whether a push's job went with the stream of jobs. If it had been
// copied to the buried ones by then, and the daemon did not know yet, it would have
// come again, to be buried with a line in the log.
func (v *verdict) tookOriginal() bool {
	return v.c.removed.any() && v.c.removed.had[jobsStream].pushes[v.n]
}

// tookRecord reports whether a push's record may have gone with the stream of jobs, which
// also has the records.
func (v *verdict) tookRecord() bool {
	r := v.c.removed
	return v.tookJob() || r.any() && (r.had[jobsStream].record(v) || r.within(jobsStream, v.d.last))
}

// expected returns which of the sequencer's records must have arrived: those stored, not
// removed, and not waiting in the queue.
func (r *removed) expected(stored []bool, at []time.Time, waiting *traces) []bool {
	out := slices.Clone(stored)
	for n := range out {
		gone := r.any() && (r.had[jobsStream].sequence[n] || r.within(jobsStream, at[n]))
		out[n] = out[n] && !gone && !waiting.sequence[n]
	}
	return out
}
