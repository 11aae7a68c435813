// Package buried is the operator's view of buried jobs: which there are, and why.
//
// The jobs say so themselves (worker.BurialOf), but to read one a queue may have
// to hand out all: beanstalkd lists none. So a daemon keeps what they say in an
// index in memory. It is told of the burials of its own workers, and a Walker
// reads the rest once after a start, and again where the queue has another number
// of them than the index: other daemons bury, other clients kick and delete.
package buried

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"propeller/queue"
	"propeller/worker"
)

// maxEntries bounds an index over all tubes: some 50 MB.
const maxEntries = 100_000

// Entry is what is known of one buried job. Job is never empty: it is the queue's
// id where the job does not say.
type Entry struct {
	worker.Burial
	Tube string
	ID   string    // the queue's
	told time.Time // when a worker of this daemon buried it; zero: the entry was read from the queue
	// silent: the job itself says nothing of when it was buried.
	silent bool
}

// public is what others may see of e: what does not change.
func (e *Entry) public() Entry { return Entry{Burial: e.Burial, Tube: e.Tube, ID: e.ID} }

// maxText bounds the reason, and whatever else a job says.
const maxText = 512

func newEntry(tube, id string, b worker.Burial) *Entry {
	b.Job = cmp.Or(b.Job, id)
	for _, text := range []*string{&b.Job, &b.Reason, &b.Ref, &b.APNsID} {
		if len(*text) > maxText {
			*text = strings.ToValidUTF8(strings.Clone((*text)[:maxText]), "")
		}
	}
	return &Entry{Burial: b, Tube: tube, ID: id}
}

// entryOf is the entry of a job as the queue has it.
func entryOf(tube, topic string, b queue.BuriedJob) *Entry {
	e := newEntry(tube, b.ID, worker.BurialOf(b.Body, topic))
	if e.Put.IsZero() {
		e.Put = time.Now().Add(-b.Age)
	}
	if e.silent = e.At.IsZero(); e.silent {
		e.At = e.Put
	}
	return e
}

// Index is what is known of buried jobs, in memory. It is safe for concurrent use.
type Index struct {
	log   *slog.Logger
	limit int // maxEntries, but for tests

	mu      sync.Mutex
	shelves map[string]*shelf // by tube
	n       int               // entries of all
	jobs    map[string]int    // of them, by their first ids
	said    bool              // in the log, that they are too many
}

// shelf is what is known of one tube.
type shelf struct {
	walking chan struct{}     // cap 1: one walk at a time
	entries map[string]*Entry // by the queue's id
	whole   bool              // a walk has read all that there was, and there was room for it
	gone    map[string]bool   // ids of jobs that ended while a walk is under way; nil: none is
	began   time.Time         // the last walk
	ended   time.Time
	told    time.Time // last

	looked  time.Time // the Walker's last walk
	differs time.Time // since when the queue has another number of jobs; zero: it has not
	pause   time.Duration
	next    time.Time // not walked over before, by the Walker
}

// NewIndex returns one that knows nothing.
func NewIndex(log *slog.Logger) *Index {
	return &Index{log: log, limit: maxEntries, shelves: make(map[string]*shelf), jobs: make(map[string]int)}
}

// Reset forgets everything: the queue is another one.
func (x *Index) Reset() { x.keep(nil) }

func (x *Index) shelfLocked(tube string) *shelf {
	s := x.shelves[tube]
	if s == nil {
		s = &shelf{walking: make(chan struct{}, 1), entries: make(map[string]*Entry)}
		x.shelves[tube] = s
	}
	return s
}

// Told enters a job that a worker has buried, by the buried job's id.
func (x *Index) Told(tube, id string, b worker.Burial) {
	e := newEntry(tube, id, b)
	e.told = time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.shelfLocked(tube)
	s.told = e.told
	x.putLocked(s, e)
}

// putLocked enters e, in place of what has its id. When all is full it says so.
func (x *Index) putLocked(s *shelf, e *Entry) {
	if s.entries[e.ID] == nil && x.fullLocked() {
		s.whole = false
		if !x.said {
			x.said = true
			x.log.Warn("more jobs are buried than are listed; kick or delete some", "listed", x.n)
		}
		return
	}
	x.addLocked(s, e)
}

func (x *Index) addLocked(s *shelf, e *Entry) {
	x.removeLocked(s, s.entries[e.ID])
	s.entries[e.ID] = e
	x.jobs[e.Job]++
	x.n++
}

func (x *Index) removeLocked(s *shelf, e *Entry) {
	if e == nil {
		return
	}
	delete(s.entries, e.ID)
	if x.jobs[e.Job]--; x.jobs[e.Job] == 0 {
		delete(x.jobs, e.Job)
	}
	x.n--
}

// learn enters a job that somebody has named, even if there is no room.
func (x *Index) learn(e *Entry) *Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.addLocked(x.shelfLocked(e.Tube), e)
	return e
}

func (x *Index) fullLocked() bool { return x.n >= x.limit }

// forget removes these very entries: one that has since been replaced, because
// its job was buried again, stays.
func (x *Index) forget(entries ...*Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range entries {
		s := x.shelfLocked(e.Tube)
		if s.gone != nil {
			s.gone[e.ID] = true
		}
		if s.entries[e.ID] == e {
			x.removeLocked(s, e)
		}
	}
	x.said = x.said && x.fullLocked()
}

// keep forgets the tubes that are not among these.
func (x *Index) keep(tubes map[string]Tube) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for tube, s := range x.shelves {
		if _, ok := tubes[tube]; !ok {
			for _, e := range s.entries {
				x.removeLocked(s, e)
			}
			delete(x.shelves, tube)
		}
	}
	x.said = x.said && x.fullLocked()
}

// all are the entries of a tube, those buried first in front.
func (x *Index) all(tube string) []*Entry {
	x.mu.Lock()
	var out []*Entry
	if s := x.shelves[tube]; s != nil {
		out = slices.Collect(maps.Values(s.entries))
	}
	x.mu.Unlock()
	slices.SortFunc(out, func(a, b *Entry) int {
		return cmp.Or(cmp.Compare(a.At.Unix(), b.At.Unix()), len(a.Job)-len(b.Job), cmp.Compare(a.Job, b.Job), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// count says how many entries a tube has, and whether these were all.
func (x *Index) count(tube string) (n int, whole bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.shelves[tube]
	if s == nil {
		return 0, false
	}
	return len(s.entries), s.whole
}

// byName finds the entries of a tube by their first ids and by the queue's.
func (x *Index) byName(tube string) map[string][]*Entry {
	out := make(map[string][]*Entry)
	for _, e := range x.all(tube) {
		if out[e.Job] = append(out[e.Job], e); e.ID != e.Job {
			out[e.ID] = append(out[e.ID], e)
		}
	}
	return out
}

// Find returns what is buried of the job that has this first id.
func (x *Index) Find(job string) (out []Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.jobs[job] == 0 {
		return nil
	}
	for _, s := range x.shelves {
		for _, e := range s.entries {
			if e.Job == job {
				out = append(out, e.public())
			}
		}
	}
	return out
}
