package jetstream

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// recentMax is how many jobs are remembered: what may be on its way to the server
// until it is noticed that it removes nothing, and what the server may have on its
// way to us.
const recentMax = 4096

// recent remembers something of what was noted last.
type recent[K comparable, V any] struct {
	mu    sync.Mutex
	keys  []K // the newest overwrites the oldest
	next  int
	known map[K]V
}

// note remembers v for a key for which nothing is known, and returns what is.
func (r *recent[K, V]) note(k K, v V) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, known := r.known[k]; known {
		return was
	}
	if r.known == nil {
		r.known = make(map[K]V)
	}
	r.known[k] = v
	if len(r.keys) < recentMax {
		r.keys = append(r.keys, k)
		return v
	}
	delete(r.known, r.keys[r.next])
	r.keys[r.next] = k
	r.next = (r.next + 1) % recentMax
	return v
}

func (r *recent[K, V]) has(k K) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.known[k]
	return known
}

// get returns what is known of a key; the zero value if nothing is.
func (r *recent[K, V]) get(k K) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[k]
}

func (r *recent[K, V]) all() []K {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.keys)
}

// finished are the jobs that this process has finished last. The server may still
// have them, or serve them once more: what it is told does not change what it has
// sent already, and a server whose disk is full removes nothing.
type finished struct {
	recent[numbered, time.Time]
}

func (f *finished) add(j numbered) { f.note(j, time.Now()) }

// numbered names a job: another stream has others under the same number.
type numbered struct {
	seq    uint64
	stored int64
}

// numbered reads nothing that changes: it needs no lock.
func (d *delivery) numbered() numbered { return numbered{d.seq, d.stored} }

// removeFinished removes the jobs that this process has finished and the stream of
// an embedded server still has, because the server before it could write nothing.
// The next process that opens the queue would take them for jobs that never ran.
func (q *client) removeFinished() error {
	ctx, cancel := context.WithTimeout(q.ctx, orphansTime)
	defer cancel()
	cn, err := q.link.get(ctx, untilReady)
	if err != nil {
		return err
	}
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return err
	}
	removed := 0
	for _, j := range q.finished.all() {
		m, err := s.GetMsg(ctx, j.seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Time.UnixNano() != j.stored {
			continue
		}
		if err == nil {
			err = deleteMsg(s, j.seq, q.opts.timeout)
		}
		if err != nil {
			return err
		}
		removed++
	}
	if removed > 0 {
		q.opts.Log.Info("removed finished jobs that a full disk had kept", "queue", q.opts.String(), "jobs", removed)
	}
	return nil
}

// The server fires a schedule once more when it could not remove it after the first
// time: because the disk was full, or it ended just then, or another server became
// the leader (nats-server: stream.go, processJetStreamMsgWithRollup). So one job is
// in the stream twice, under two numbers and one id.

// jsScheduler is in the messages that the server has made of schedules.
const jsScheduler = "Nats-Scheduler"

// firedAgain is how long the second copy of a job waits that is still held.
const firedAgain = 5 * time.Second

// copied is what two copies of a job have in common. Without the body any message of that id
// would be one.
type copied struct {
	id   string
	body [sha256.Size]byte
}

// firstCopyLocked says of a job that has come whether another copy of it was finished
// here, or is held. A copy that is neither may be gone for other reasons.
func (t *tube) firstCopyLocked(h nats.Header, body []byte, d delivery) (done, held bool) {
	id := h.Get(headerID)
	if id == "" || h.Get(jsScheduler) == "" || h.Get(headerKicked) != "" {
		return false, false
	}
	first := t.q.fired.note(copied{t.name + "." + id, sha256.Sum256(body)}, d.numbered())
	if first == d.numbered() {
		return false, false
	}
	if t.q.finished.has(first) {
		return true, false
	}
	j := t.listedLocked(first.seq)
	return false, j != nil && j.d.numbered() == first
}

// A server whose disk accepts no writes learns that a job is finished but cannot write it
// down. A running daemon repairs that; if it ends first, the next one pushes the
// job once more. The log must say so.

// unwritten is for how long before its fault the server may have kept in memory only what
// it heard: it collects for some milliseconds what it writes. It forgets the jobs at once.
const unwritten = time.Second

// tellUnstored says, when the queue is about to end on a disk that takes nothing, how
// many of the jobs that were finished last may be served again.
func (q *client) tellUnstored() {
	e := q.embedded
	e.mu.Lock()
	why, since := e.fault, e.faultAt.Add(-unwritten)
	e.mu.Unlock()
	if why == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	n := 0
	for _, j := range q.finished.all() {
		if q.finished.get(j).After(since) || q.stillStored(ctx, j) {
			n++
		}
	}
	if n > 0 {
		q.opts.Log.Warn("job finished but not deleted: it may be pushed again", "queue", q.opts.String(), "jobs", n, "err", why)
	}
}

// stillStored says whether the stream still has a job, as far as the server says.
func (q *client) stillStored(ctx context.Context, j numbered) bool {
	q.link.mu.Lock()
	cn := q.link.cn
	q.link.mu.Unlock()
	if cn == nil {
		return true
	}
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return true
	}
	m, err := s.GetMsg(ctx, j.seq)
	return !errors.Is(err, jetstream.ErrMsgNotFound) && (err != nil || m.Time.UnixNano() == j.stored)
}
