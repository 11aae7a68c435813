package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"propeller/internal/files"
	"propeller/queue"
)

// A server whose files were damaged starts with what is left and says little of
// the rest: in a work queue a missing sequence number means a finished job. So what an
// embedded server has stored is noted beside it, in a file. An orderly end notes everything,
// so whatever is missing at the next start was lost. After any other end nobody knows what
// was finished in the last seconds: then only what was certainly lost is reported, numbers
// that were given and are not known any more.

const (
	storedFile = "stored"
	// storedEvery is how often the file is written while something changes.
	storedEvery = 10 * time.Second
	listEvery   = 6 // and after how many times what is missing is listed
	// maxGaps is how many numbers without a job are listed; with more of them it
	// is not reported between which numbers jobs are missing.
	maxGaps = 50_000
)

// damage is what an embedded queue knows of jobs that are gone.
type damage struct {
	lost atomic.Int64 // jobs since the start

	mu      sync.Mutex
	noted   notes          // as in the file
	written string         // the file, if this process has written it
	struck  map[string]int // what the server itself has found, by stream
}

// notes are the file.
type notes struct {
	Closed  bool                    `json:"closed"` // nothing was changed afterwards
	Streams map[string]*streamState `json:"streams"`
}

// streamState is what a stream had.
type streamState struct {
	Made   time.Time `json:"made"`
	First  uint64    `json:"first"`
	Last   uint64    `json:"last"`
	Jobs   uint64    `json:"jobs"`
	Ends   time.Time `json:"ends"`          // when the server drops the oldest, zero for never
	Has    []span    `json:"has,omitempty"` // the numbers of the jobs, if they are listed
	struck []uint64  // what the server has found to be gone
}

// span are all numbers from one to another.
type span struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

var _ queue.LossReporter = (*client)(nil)

// LostJobs implements queue.LossReporter.
func (q *client) LostJobs() int64 { return q.damage.lost.Load() }

// gone compares what a stream had with what it has, and returns how many jobs are
// gone and between which numbers. closed says that nothing was done in between; else
// the number is about right. Jobs that were done and are back, because that they
// were done is gone too, are taken off it.
func gone(was, now *streamState, closed bool, at time.Time) (jobs uint64, where span) {
	switch {
	case was == nil || was.Jobs == 0:
	case !was.Made.Equal(now.Made):
		return was.Jobs, span{was.First, was.Last}
	case now.Last < was.Last && now.Jobs < was.Jobs && !closed:
		// What there is now was there then: the rest was done since, or is gone.
		return min(was.Jobs-now.Jobs, was.Last-now.Last), span{now.Last + 1, was.Last}
	case closed && now.Jobs < was.Jobs && (was.Ends.IsZero() || at.Before(was.Ends)):
		return was.Jobs - now.Jobs, missing(was, now)
	}
	return 0, span{}
}

// missing is between which numbers there were jobs that are not there now.
func missing(was, now *streamState) (all span) {
	for _, had := range was.Has {
		for _, m := range without(had, now.Has) {
			if all.From == 0 {
				all.From = m.From
			}
			all.To = m.To
		}
	}
	if all.From == 0 {
		return span{was.First, was.Last} // they were not listed
	}
	return all
}

// without is a less known, which are in their order.
func without(a span, known []span) (left []span) {
	first, _ := slices.BinarySearchFunc(known, a.From, func(g span, n uint64) int { return cmp.Compare(g.To, n) })
	for _, g := range known[first:] {
		if g.From > a.To {
			break
		}
		if g.From > a.From {
			left = append(left, span{a.From, g.From - 1})
		}
		a.From = g.To + 1
	}
	if a.From <= a.To {
		left = append(left, a)
	}
	return left
}

// streamStateOf asks what a stream has, listed with the numbers of the jobs unless there
// are too many gaps.
func (q *client) streamStateOf(ctx context.Context, cn *conn, stream string, listed bool) (*streamState, error) {
	info, err := q.askStream(ctx, cn, stream, nil)
	s := &info.State
	listed = listed && s.Messages > 0 && s.LastSeq-s.FirstSeq+1-s.Messages <= maxGaps
	if listed && err == nil {
		info, err = q.askStream(ctx, cn, stream, []byte(`{"deleted_details":true}`))
	}
	if err != nil {
		return nil, err
	}
	m := &streamState{Made: info.Created, First: s.FirstSeq, Last: s.LastSeq, Jobs: s.Messages, struck: s.Lost.Msgs}
	if info.Config.MaxAge > 0 {
		m.Ends = s.FirstTS.Add(info.Config.MaxAge)
	}
	if listed {
		gaps := make([]span, len(s.Deleted))
		for i, n := range s.Deleted {
			gaps[i] = span{n, n}
		}
		m.Has = without(span{m.First, m.Last}, gaps)
	}
	return m, nil
}

// streamStates asks what all streams have.
func (q *client) streamStates(ctx context.Context, cn *conn, listed bool) (all map[string]*streamState, err error) {
	all = make(map[string]*streamState)
	for _, stream := range []string{jobsStream, buriedStream} {
		if all[stream], err = q.streamStateOf(ctx, cn, stream, listed); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// inspect reports what has gone since the file was written, and rewrites it. The
// first inspection is before anything is served. listed: what the server itself
// has found is asked for, too, which costs more.
func (q *client) inspect(ctx context.Context, cn *conn, listed bool) error {
	d := &q.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noted.Streams == nil {
		d.noted, d.struck = readStored(q.embedded.dir), make(map[string]int)
	}
	now, err := q.streamStates(ctx, cn, listed)
	if err != nil {
		return err
	}
	for name, m := range now {
		jobs, where := gone(d.noted.Streams[name], m, d.noted.Closed, time.Now())
		if n := len(m.struck); n > d.struck[name] {
			// The count is too small when it brings finished jobs back.
			jobs = max(jobs, uint64(n-d.struck[name]))
			where = span{slices.Min(m.struck), slices.Max(m.struck)}
			d.struck[name] = n
		}
		q.tell(name, jobs, where)
		m.Has = nil
	}
	d.note(q.embedded.dir, notes{Streams: now})
	return nil
}

func (q *client) tell(stream string, jobs uint64, where span) {
	if jobs == 0 {
		return
	}
	q.damage.lost.Add(int64(jobs))
	q.opts.Log.Error("jobs are gone from the queue's files", "queue", q.opts.String(), "stream", stream,
		"jobs", jobs, "from", where.From, "to", where.To)
}

// noteAll notes what is stored when the queue is about to end, if that does not
// change any more.
func (q *client) noteAll() {
	cn, _, _, err := q.link.ready()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	d := &q.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	var was map[string]*streamState
	for range 20 {
		now, err := q.streamStates(ctx, cn, true)
		if err != nil {
			return
		}
		if reflect.DeepEqual(was, now) {
			d.note(q.embedded.dir, notes{Closed: true, Streams: now})
			return
		}
		was = now
		if q.sleep(ctx, minPause) != nil {
			return
		}
	}
}

// note writes the file unless it says that already. One that cannot be written is
// removed: what it says of an orderly end would not be true any more.
func (d *damage) note(dir string, n notes) {
	text, err := json.Marshal(n)
	if err != nil || string(text) == d.written {
		return
	}
	d.noted, d.written = n, string(text)
	path := filepath.Join(dir, storedFile)
	if writeFile(path, d.written) != nil {
		_ = os.Remove(path)
	}
}

// maxStored bounds the file, which has some 200 bytes for each stream.
const maxStored = 64 << 20

// readStored reads the file; without one nothing is known to have been there.
func readStored(dir string) (s notes) {
	text, err := files.Read(filepath.Join(dir, storedFile), maxStored)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil || s.Streams == nil {
		return notes{Streams: map[string]*streamState{}}
	}
	return s
}

// watchDamage inspects the queue until it is closed, and at once when its server
// cannot read a job.
func (q *client) watchDamage() {
	tick := time.NewTicker(storedEvery)
	defer tick.Stop()
	var reread time.Time
	for n := 1; ; n++ {
		why := ""
		select {
		case <-q.ctx.Done():
			return
		case <-tick.C:
		case why = <-q.embedded.unread:
			if time.Since(reread) < restartWell {
				continue
			}
			reread = time.Now()
		}
		if cn, _, _, err := q.link.ready(); err == nil {
			_ = q.inspect(q.ctx, cn, why != "" || n%listEvery == 0) // it is tried again; a full disk is reported elsewhere
		}
		if why != "" {
			q.embedded.fail(fmt.Errorf("a file of the queue cannot be read: %s", why)) // a new server looks at the files
		}
	}
}
