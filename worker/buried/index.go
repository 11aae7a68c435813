// Package buried is the operator's view of buried jobs: which there are, and why.
//
// Each job carries its reason (job.BurialOf), but reading them is expensive:
// beanstalkd cannot list buried jobs without handing them out. So a daemon keeps an
// index in memory. Its own workers report what they bury, and a Walker reads the rest
// after a start. The Walker reads again when the queue's number of buried jobs differs
// from the index, because other daemons bury jobs and other clients kick and delete them.
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
	"propeller/worker/job"
)

// maxEntries bounds an index over all tubes: about 50 MB.
const maxEntries = 100_000

// Entry describes one buried job. Job is never empty: if the job does not say which
// job its producer put, it is the queue's id.
type Entry struct {
	job.Burial
	Tube string
	ID   string    // of the buried job in the queue
	told time.Time // when a worker of this daemon buried it; zero: the entry was read from the queue
	// silent: the job does not say when it was buried.
	silent bool
}

// public is the part of e that never changes, for use outside the index.
func (e *Entry) public() Entry { return Entry{Burial: e.Burial, Tube: e.Tube, ID: e.ID} }

// maxText bounds each text that a job carries.
const maxText = 512

// newEntry copies the texts: each may be a part of the whole job's.
func newEntry(tube, id string, b job.Burial) *Entry {
	b.Job = cmp.Or(b.Job, id)
	for _, text := range []*string{&b.Job, &b.Reason, &b.Ref, &b.APNsID, &b.Token} {
		if len(*text) > maxText {
			*text = strings.ToValidUTF8((*text)[:maxText], "")
		}
		*text = strings.Clone(*text)
	}
	return &Entry{Burial: b, Tube: tube, ID: id}
}

// entryOf returns the entry of a job read from the queue.
func entryOf(tube, topic string, b queue.StoredJob) *Entry {
	e := newEntry(tube, b.ID, job.BurialOf(b.Body, topic))
	if e.Put.IsZero() {
		e.Put = time.Now().Add(-b.Age)
	}
	if e.silent = e.At.IsZero(); e.silent {
		e.At = e.Put
	}
	return e
}

// Index holds what is known of buried jobs. It is safe for concurrent use.
type Index struct {
	log   *slog.Logger
	limit int // maxEntries, but for tests

	mu      sync.Mutex
	shelves map[string]*shelf // by tube
	n       int               // entries in all shelves
	jobs    map[string]int    // how many entries, by Job
	said    bool              // the log has said that the index is full
}

// shelf is the part of the index for one tube.
type shelf struct {
	walking chan struct{}     // cap 1: one walk at a time
	entries map[string]*Entry // by the queue's id
	whole   bool              // a walk read everything, and the index had room for it
	gone    map[string]bool   // ids of jobs that were settled during the walk under way; nil without a walk
	began   time.Time         // the last walk
	ended   time.Time
	told    time.Time // last burial by a worker of this daemon

	looked  time.Time // when the Walker last read it
	differs time.Time // since when the queue's number of jobs differs; zero if it agrees
	pause   time.Duration
	next    time.Time // the Walker does not read it before
}

// NewIndex returns an empty index.
func NewIndex(log *slog.Logger) *Index {
	return &Index{log: log, limit: maxEntries, shelves: make(map[string]*shelf), jobs: make(map[string]int)}
}

// Reset empties the index, because another queue is used now.
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
func (x *Index) Told(tube, id string, b job.Burial) {
	e := newEntry(tube, id, b)
	e.told = time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.shelfLocked(tube)
	s.told = e.told
	x.putLocked(s, e)
}

// putLocked adds e, replacing the entry with its id. If the index is full it says so
// in the log, once.
func (x *Index) putLocked(s *shelf, e *Entry) {
	if s.entries[e.ID] == nil && x.fullLocked() {
		s.whole = false
		if !x.said {
			x.said = true
			x.log.Warn("more jobs are buried than the index holds, so lists are incomplete; kick or delete some", "listed", x.n)
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

// learn adds a job that an operator named, even if there is no room.
func (x *Index) learn(e *Entry) *Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.addLocked(x.shelfLocked(e.Tube), e)
	return e
}

func (x *Index) fullLocked() bool { return x.n >= x.limit }

// forget removes exactly these entries. If a job was buried again meanwhile, its new
// entry stays.
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

// keep removes the tubes that are not in the given set.
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

// count returns how many entries a tube has, and whether they are complete.
func (x *Index) count(tube string) (n int, whole bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.shelves[tube]
	if s == nil {
		return 0, false
	}
	return len(s.entries), s.whole
}

// byName maps a tube's entries by Job and by the queue's id.
func (x *Index) byName(tube string) map[string][]*Entry {
	out := make(map[string][]*Entry)
	for _, e := range x.all(tube) {
		if out[e.Job] = append(out[e.Job], e); e.ID != e.Job {
			out[e.ID] = append(out[e.ID], e)
		}
	}
	for name, entries := range out {
		if len(entries) > 1 {
			out[name] = genuine(entries, name)
		}
	}
	return out
}

// genuine returns those entries that come of one job: any client of the queue can write
// another job's id into its own. An entry of that id is the job itself. Without one it is
// the first of them that the queue stored.
func genuine(entries []*Entry, id string) (out []*Entry) {
	first := entries[0]
	for _, e := range entries[1:] {
		if first.ID != id && (e.ID == id || cmp.Or(len(e.ID)-len(first.ID), cmp.Compare(e.ID, first.ID)) < 0) {
			first = e
		}
	}
	for _, e := range entries {
		if e.Tube == first.Tube && e.Seed == first.Seed {
			out = append(out, e)
		}
	}
	return out
}

// Find returns the buried jobs whose producer got this id.
func (x *Index) Find(job string) (out []Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.jobs[job] == 0 {
		return nil
	}
	var all []*Entry
	for _, s := range x.shelves {
		for _, e := range s.entries {
			if e.Job == job {
				all = append(all, e)
			}
		}
	}
	for _, e := range genuine(all, job) {
		out = append(out, e.public())
	}
	return out
}

// maxTexts bounds the reasons that a matcher remembers.
const maxTexts = 1000

// matcher applies a filter, but for its IDs, to very many entries, most of which have one
// of few reasons.
type matcher struct {
	Filter
	want string          // the reason in lower case
	has  map[string]bool // by reason or class: whether want is in it
}

func (f Filter) matcher() *matcher {
	return &matcher{f, strings.ToLower(f.Reason), make(map[string]bool)}
}

func (m *matcher) match(e *Entry) bool {
	switch at := e.At.Unix(); {
	case !m.Since.IsZero() && at < m.Since.Unix(), !m.Before.IsZero() && at >= m.Before.Unix():
		return false
	case m.Only != nil && !m.Only(e):
		return false
	}
	return m.want == "" || m.contains(e.Reason) || m.contains(e.Class)
}

func (m *matcher) contains(text string) bool {
	has, known := m.has[text]
	if !known {
		has = strings.Contains(strings.ToLower(text), m.want)
		if len(m.has) < maxTexts {
			m.has[text] = has
		}
	}
	return has
}

// choose returns the entries that match, up to the limit, in their order.
func (f Filter) choose(all []*Entry) (some []*Entry, more bool) {
	m := f.matcher()
	for _, e := range all {
		if !m.match(e) {
			continue
		}
		if len(some) == f.limit() {
			return some, true
		}
		some = append(some, e)
	}
	return some, false
}

// selectsAll reports whether f selects every job, up to its limit.
func (f Filter) selectsAll() bool {
	return f.Reason == "" && f.Only == nil && len(f.IDs) == 0 && f.Since.IsZero() && f.Before.IsZero()
}

func (f Filter) limit() int { return cmp.Or(f.Limit, DefaultMany) }

// oldest returns the entries of a tube that match, up to the limit, the oldest burial
// first. Of those that match it sorts no more than it must: there may be very many.
func (x *Index) oldest(tube string, f Filter) (some []*Entry, more bool) {
	m, limit := f.matcher(), f.limit()
	var last *Entry // none after it is among the chosen; nil while there are less than limit
	cut := func() {
		slices.SortFunc(some, before)
		if len(some) > limit {
			clear(some[limit:])
			some, last, more = some[:limit], some[limit-1], true
		}
	}
	for _, e := range x.unsorted(tube) {
		switch {
		case !m.match(e):
			continue
		case last != nil && before(e, last) > 0:
			continue
		}
		if some = append(some, e); len(some) >= 2*limit+100 {
			cut()
		}
	}
	cut()
	return some, more
}

// before compares entries by their burials.
func before(a, b *Entry) int {
	return cmp.Or(cmp.Compare(a.At.Unix(), b.At.Unix()), len(a.Job)-len(b.Job), cmp.Compare(a.Job, b.Job), cmp.Compare(a.ID, b.ID))
}

func (x *Index) unsorted(tube string) []*Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.shelves[tube]; s != nil {
		return slices.AppendSeq(make([]*Entry, 0, len(s.entries)), maps.Values(s.entries))
	}
	return nil
}

// all returns the entries of a tube, the oldest burial first.
func (x *Index) all(tube string) []*Entry {
	out := x.unsorted(tube)
	slices.SortFunc(out, before)
	return out
}
