package buried

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"propeller/internal/backoff"
	"propeller/queue"
)

// walk reads up to limit buried jobs of a tube into the index. A caller waits for a walk under
// way, and uses its result if it began after the caller asked. The error is the queue's;
// the index has what could be read all the same.
func (x *Index) walk(ctx context.Context, q queue.Admin, tube, topic string, limit int) error {
	asked := time.Now()
	x.mu.Lock()
	s := x.shelfLocked(tube)
	x.mu.Unlock()
	select {
	case s.walking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.walking }()
	x.mu.Lock()
	if s.whole && s.began.After(asked) {
		x.mu.Unlock()
		return nil
	}
	s.began, s.gone = time.Now(), make(map[string]bool)
	x.mu.Unlock()
	found, err := read(ctx, q, tube, topic, limit)
	x.take(tube, s, found, err == nil)
	return err
}

// read lists up to about limit jobs.
func read(ctx context.Context, q queue.Admin, tube, topic string, limit int) (found map[string]*Entry, err error) {
	found = make(map[string]*Entry)
	err = q.List(ctx, tube, queue.Buried, func(jobs []queue.StoredJob) error {
		for _, j := range jobs {
			found[j.ID] = entryOf(tube, topic, j)
		}
		if len(found) >= limit {
			return queue.ErrCut
		}
		return nil
	})
	return found, err
}

// take adds what a walk found. If the walk was complete, it removes entries that the walk
// did not find, unless they were added meanwhile.
func (x *Index) take(tube string, s *shelf, found map[string]*Entry, whole bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.shelves[tube] != s { // the app or its queue is gone
		return
	}
	for id, e := range found {
		old := s.entries[id]
		if e.silent && old != nil && old.Job == e.Job { // its worker reported more than the job says
			e.Burial, e.silent = old.Burial, old.silent
		}
		if s.gone[id] || old != nil && old.told.After(s.began) { // buried again since
			delete(found, id)
		}
	}
	for _, old := range s.entries {
		if whole && found[old.ID] == nil && !old.told.After(s.began) {
			x.removeLocked(s, old)
		}
	}
	s.whole, s.gone, s.ended = whole, nil, time.Now()
	for _, e := range found {
		x.putLocked(s, e)
	}
}

// Tube is a tube that an app works on.
type Tube struct {
	Topic  string
	Buried int // buried jobs at the last count; -1 if unknown
}

const (
	// lookEvery is the time between two comparisons of the numbers.
	lookEvery = time.Minute
	// patience is how long the numbers must differ: workers bury jobs meanwhile, and
	// the queue is counted at another moment.
	patience = 2 * lookEvery
	// readAgain is when a tube with buried jobs is read again even if the numbers agree:
	// other clients may have kicked as many as were buried.
	readAgain = time.Hour
	// maxPause is the longest pause before a tube is read again that could not be read,
	// or whose numbers still differ.
	maxPause = time.Hour
	// maxWalk bounds one walk: on beanstalkd each job takes four commands.
	maxWalk = 10 * time.Minute
	// minPause is the shortest pause between two walks, which is at least as long as the first took.
	minPause = time.Millisecond
)

// Walker is a service that reads buried jobs into an index.
type Walker struct {
	Log   *slog.Logger
	Index *Index
	Tubes func() (map[string]Tube, queue.Admin) // nil if the queue cannot be asked

	warned bool // the log has said that a tube cannot be read
}

// String names the service in suture's events.
func (*Walker) String() string { return "reader of buried jobs" }

// Serve compares the numbers once a minute, and reads the tubes that are due.
func (w *Walker) Serve(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		w.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look reads the tubes that are due. What fails is tried again after longer and longer
// pauses. With several queue servers, those that answer are read.
func (w *Walker) look(ctx context.Context, now time.Time) {
	tubes, admin := w.Tubes()
	if admin == nil {
		return
	}
	w.Index.keep(tubes)
	unread := false
	for _, tube := range slices.Sorted(maps.Keys(tubes)) {
		if w.Index.due(tube, tubes[tube].Buried, now) {
			w.read(ctx, admin, tube, tubes[tube].Topic)
		}
		if ctx.Err() != nil {
			return
		}
		_, whole := w.Index.count(tube)
		unread = unread || !whole
	}
	if w.warned && !unread {
		w.warned = false
		w.Log.Info("the list of buried jobs is complete again")
	}
}

// read reads a tube, and then rests.
func (w *Walker) read(ctx context.Context, admin queue.Admin, tube, topic string) {
	began := time.Now()
	within, cancel := context.WithTimeout(ctx, maxWalk)
	defer cancel()
	err := w.Index.walk(within, admin, tube, topic, w.Index.limit)
	if err != nil && !w.warned && !errors.Is(err, queue.ErrCut) && ctx.Err() == nil {
		w.warned = true
		w.Log.Warn("cannot read all buried jobs yet: their list is incomplete", "tube", tube, "err", err)
	}
	_ = backoff.Sleep(ctx, max(time.Since(began), minPause))
}

// due reports whether the Walker should read a tube now, and if so sets the next time.
func (x *Index) due(tube string, counted int, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.shelfLocked(tube)
	switch {
	case counted < 0 || counted == len(s.entries):
		s.differs = time.Time{}
	case s.differs.IsZero():
		s.differs = now
	}
	differ := !s.differs.IsZero() && now.Sub(s.differs) >= patience
	old := len(s.entries) > 0 && now.Sub(s.looked) >= readAgain
	switch {
	case s.whole && !differ && !old:
		s.pause = 0
		return false
	case now.Before(s.next), x.fullLocked():
		return false
	}
	s.pause = min(max(2*s.pause, lookEvery), maxPause)
	s.looked, s.next = now, now.Add(s.pause)
	return true
}
