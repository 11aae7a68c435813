package main

import (
	"errors"
	"sync"
	"time"

	"propeller/queue"
	"propeller/queue/journal"
)

// reasons carries the journal along with the buried jobs of one tube after the
// other. In the other queue they have other ids, which may be those that others
// had in the first: so the tube's entries are read before any is written, and
// forgotten when all are written.
type reasons struct {
	journal *journal.Journal

	mu   sync.Mutex
	tube string
	old  map[string]journal.Entry // by the id in the first queue
	gone []string                 // ids in the first queue of those moved
	new  map[string]bool          // ids in the other
}

// begin reads what the journal knows of a tube: its limit bounds it.
func (r *reasons) begin(tube string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tube, r.old, r.gone, r.new = tube, make(map[string]journal.Entry), nil, make(map[string]bool)
	return r.journal.List(tube, func(e journal.Entry) bool {
		r.old[e.ID] = e
		return true
	})
}

// entryLocked is what the journal knew of a job.
func (r *reasons) entryLocked(j queue.StoredJob) (journal.Entry, bool) {
	e, ok := r.old[j.ID]
	return e, ok && (e.Sum == [8]byte{} || e.Sum == journal.Sum(j.Body))
}

// moved enters a job that has arrived.
func (r *reasons) moved(tube string, j queue.StoredJob, id string) {
	r.mu.Lock()
	e, ok := r.entryLocked(j)
	if r.new[id] = true; j.ID != id {
		r.gone = append(r.gone, j.ID)
	}
	r.mu.Unlock()
	if !ok {
		e = journal.Entry{Tube: tube, Reason: journal.NoReason, At: time.Now().Add(-j.Age)}
	}
	e.ID, e.Sum = id, journal.Sum(j.Body)
	r.journal.Buried(e)
}

// end forgets the ids that are not used any more.
func (r *reasons) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, id := range r.gone {
		if _, known := r.old[id]; known && !r.new[id] {
			errs = append(errs, r.journal.Forget(r.tube, id))
		}
	}
	return errors.Join(errs...)
}
