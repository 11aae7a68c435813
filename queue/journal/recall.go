package journal

import "propeller/queue"

// An entry may be of a job that the queue knows by another id, or did not show
// for a while: with a second server beanstalkd's "17" becomes "host:port/17",
// a job moved to another engine gets a new id, and a URL that was wrong for a
// moment made all jobs look gone.

// entriesOf returns the entry of each buried job: its own, also one that was
// put away when its job was not found; or that of another id with the same
// body, which is none of these jobs; or what can be said without. The error is
// the journal's, the entries are of use nevertheless.
func (v Jobs) entriesOf(tube string, buried []queue.BuriedJob) ([]Entry, error) {
	entries, unknown, err := v.known(tube, buried)
	if v.Journal != nil && len(unknown) > 0 && err == nil {
		err = v.recall(tube, buried, entries, unknown)
	}
	for i := range unknown {
		entries[i] = v.unknown(tube, buried[i])
	}
	return entries, err
}

// known looks the jobs up by their ids. The indices of those that the journal
// does not list are in unknown.
func (v Jobs) known(tube string, buried []queue.BuriedJob) (entries []Entry, unknown map[int]bool, err error) {
	entries, unknown = make([]Entry, len(buried)), make(map[int]bool)
	for i := range buried {
		unknown[i] = true
	}
	if v.Journal == nil {
		return entries, unknown, nil
	}
	for i, b := range buried {
		e, ok, err := v.Journal.Get(tube, b.ID)
		if err != nil {
			return entries, unknown, err
		}
		if ok && e.is(b.Body) {
			entries[i] = e
			delete(unknown, i)
		}
	}
	return entries, unknown, nil
}

// recall goes through all that the journal has of tube for the jobs that are
// unknown, and takes out those that it finds.
func (v Jobs) recall(tube string, buried []queue.BuriedJob, entries []Entry, unknown map[int]bool) error {
	ids := make(map[string]int, len(buried))
	bodies := make(map[[8]byte][]int) // of those that are unknown
	for i, b := range buried {
		ids[b.ID] = i
		if unknown[i] {
			sum := Sum(b.Body)
			bodies[sum] = append(bodies[sum], i)
		}
	}
	likely := make(map[[8]byte][]Entry) // at most one for each of the jobs
	look := func(e Entry) bool {
		i, same := ids[e.ID]
		same = same && e.is(buried[i].Body)
		switch {
		case same && unknown[i]:
			entries[i] = e
			delete(unknown, i)
		case !same && len(likely[e.Sum]) < len(bodies[e.Sum]):
			likely[e.Sum] = append(likely[e.Sum], e)
		}
		return true
	}
	for _, shelf := range []string{tube, goneShelf(tube)} {
		if err := v.Journal.scan(shelf, look); err != nil {
			return err
		}
	}
	for sum, some := range likely {
		for _, i := range bodies[sum] {
			if unknown[i] && len(some) > 0 {
				entries[i], some = some[0], some[1:]
				entries[i].ID = buried[i].ID
				delete(unknown, i)
			}
		}
	}
	return nil
}
