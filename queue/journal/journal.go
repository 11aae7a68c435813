// Package journal remembers why jobs were buried.
//
// beanstalkd keeps no reason with a buried job and lists none of them. The
// journal is a small database (bbolt) beside the daemon that says which job of
// which tube was buried, when, and why; Jobs joins it with the queue, which
// alone knows what is still buried.
//
// Nothing depends on the journal: it may be lost, damaged, full or locked, and
// pushes go on. Entries are written behind, in batches, so that a crash may
// cost the last tenth of a second of them; jobs without an entry are found in
// the queue and entered anew, without their reason.
package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"propeller/queue"
)

// DefaultLimit is how many entries of a tube are kept.
const DefaultLimit = 100_000

const (
	// totalFactor bounds the entries of all tubes together to so many times the
	// limit of one: 500,000 entries are some 250 MB of disk.
	totalFactor = 5

	// maxBuffer bounds the entries that wait to be written: a burst of some
	// seconds while the disk is busy. More are dropped and counted.
	maxBuffer = 10_000

	// batchEvery and batchSize say when waiting entries are written: one
	// transaction costs two fsyncs whatever is in it.
	batchEvery = 100 * time.Millisecond
	batchSize  = 1000
)

// ErrLocked: another process has the journal open.
var ErrLocked = errors.New("locked by another process")

// Options configure Open.
type Options struct {
	Log   *slog.Logger // damage, failures to write, dropped entries; nil: no log
	Limit int          // entries kept per tube, the oldest go first; 0 means DefaultLimit
}

// Journal is an open journal. It is safe for concurrent use.
type Journal struct {
	dir   string
	log   *slog.Logger
	limit int

	mu       sync.Mutex // guards the buffer, and what is with it
	buffer   []Entry
	overflow int // dropped since the last batch: the buffer was full
	closed   bool
	compared map[string]time.Time // when all entries of a tube were compared with the queue

	wake    chan struct{} // something is in the buffer; room for one
	full    chan struct{} // a batch's worth is; room for one
	stop    chan struct{}
	wg      sync.WaitGroup // the writer
	closing sync.Once

	dropped atomic.Int64
	rebuilt atomic.Int64

	work    sync.Mutex // guards all below: one transaction at a time
	st      *store     // nil once closed or given up
	failing bool       // the last batch could not be written
	renewed int        // how often this process has begun the file anew
}

// Open opens the journal in dir, which is created when missing. A file that is
// damaged, or of another version, is renamed aside, and a new one begun (see
// Rebuilt). Errors: one that wraps ErrLocked after waiting a second for another
// process; the folder or file cannot be created, read or written.
func Open(dir string, o Options) (*Journal, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Limit < 0 {
		return nil, fmt.Errorf("journal: limit %d: must not be negative", o.Limit)
	}
	j := &Journal{
		dir:   dir,
		log:   o.Log,
		limit: o.Limit,
		wake:  make(chan struct{}, 1),
		full:  make(chan struct{}, 1),
		stop:  make(chan struct{}),

		compared: make(map[string]time.Time),
	}
	gone := lost(dir)
	st, err := openStore(dir)
	if isDamage(err) {
		st, err = j.anew(err)
	}
	if err != nil {
		return nil, err
	}
	j.st = st
	if gone {
		j.sayLost()
	}
	if err := mark(dir); err != nil {
		o.Log.Warn("should the journal of buried jobs be removed, that would not be noticed", "err", err)
	}
	j.wg.Go(j.write)
	return j, nil
}

// Rebuilt is how often the file was damaged or gone and was begun anew, by Open
// and since: what was known before is lost.
func (j *Journal) Rebuilt() int { return int(j.rebuilt.Load()) }

// Dropped is how many entries could not be kept, since Open: the buffer was
// full, the disk was, or they were no valid entries.
func (j *Journal) Dropped() int64 { return j.dropped.Load() }

// Buried enters a job that is about to be buried, or just was. It never
// blocks. An entry with the same tube and id is replaced.
func (j *Journal) Buried(e Entry) {
	e, err := e.bounded()
	if err != nil {
		j.dropped.Add(1)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || len(j.buffer) >= maxBuffer {
		j.dropped.Add(1)
		j.overflow++
		return
	}
	j.buffer = append(j.buffer, e)
	switch len(j.buffer) {
	case 1:
		signal(j.wake)
	case batchSize:
		signal(j.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write is the writer's goroutine.
func (j *Journal) write() {
	for {
		select {
		case <-j.wake:
		case <-j.stop:
			return // Close writes the rest
		}
		t := time.NewTimer(batchEvery)
		select {
		case <-t.C:
		case <-j.full:
		case <-j.stop:
			t.Stop()
			return
		}
		t.Stop()
		j.work.Lock()
		_ = j.flushLocked() // said in the log
		j.work.Unlock()
	}
}

// List calls f for every entry of tube, oldest first, until it returns false.
// Entries made meanwhile may be among them. f may use the journal.
func (j *Journal) List(tube string, f func(Entry) bool) error {
	if err := queue.CheckTube(tube); err != nil {
		return err
	}
	return j.scan(tube, f)
}

// scan is List for a shelf.
func (j *Journal) scan(shelf string, f func(Entry) bool) error {
	for c := (cursor{}); !c.end; {
		var some []Entry
		err := j.do(func(st *store) (err error) {
			some, err = st.read(shelf, &c, batchSize)
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range some {
			if !f(e) {
				return nil
			}
		}
	}
	return nil
}

// Get returns the entry of one job; ok says whether there is one.
func (j *Journal) Get(tube, id string) (e Entry, ok bool, err error) {
	if err := queue.CheckTube(tube); err != nil {
		return e, false, err
	}
	err = j.do(func(st *store) (err error) {
		e, ok, err = st.get(tube, id)
		return err
	})
	return e, ok, err
}

// Len is how many entries of tube there are.
func (j *Journal) Len(tube string) (n int, err error) {
	err = j.do(func(st *store) error {
		n = st.counts.of[tube]
		return nil
	})
	return n, err
}

// Forget removes the entry of one job, if there is one.
func (j *Journal) Forget(tube, id string) error {
	if err := queue.CheckTube(tube); err != nil {
		return err
	}
	return j.do(func(st *store) error {
		e, ok, err := st.get(tube, id)
		if err != nil || !ok {
			return err
		}
		return st.forget([]Entry{e})
	})
}

// forget removes these very entries: one that has since been replaced, because
// its job was buried again, stays.
func (j *Journal) forget(entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	return j.do(func(st *store) error { return st.forget(entries) })
}

// putAway keeps entries of one tube whose jobs were found not to be buried, but
// lists them no more. One that has been replaced stays.
func (j *Journal) putAway(entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	return j.do(func(st *store) error { return st.putAway(entries, time.Now(), j.limit) })
}

// compareEvery is how often all entries of a tube are compared with the queue
// where a few would do: it takes two questions for each.
const compareEvery = time.Minute

func (j *Journal) toCompare(tube string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Since(j.compared[tube]) >= compareEvery
}

func (j *Journal) noteCompared(tube string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.compared[tube] = time.Now()
}

// fill enters jobs at once, but those that have an entry already.
func (j *Journal) fill(entries []Entry) error {
	return j.do(func(st *store) error {
		for len(entries) > 0 {
			n := min(len(entries), batchSize)
			if err := st.write(entries[:n], j.limit, keepOld); err != nil {
				return err
			}
			entries = entries[n:]
		}
		return nil
	})
}

// Close writes what waits and ends the journal.
func (j *Journal) Close() error {
	var err error
	j.closing.Do(func() {
		j.mu.Lock()
		j.closed = true
		j.mu.Unlock()
		close(j.stop)
		j.wg.Wait()
		j.work.Lock()
		defer j.work.Unlock()
		err = j.flushLocked()
		if j.st != nil {
			err = errors.Join(err, j.st.close())
			j.st = nil
		}
	})
	return err
}
