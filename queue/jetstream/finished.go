package jetstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// finishedMax is how many jobs are known to be finished: what may be on its way
// to the server until it is noticed that it removes nothing, and what the server
// may have on its way to us.
const finishedMax = 4096

// finished are the jobs that this process has finished last. The server may still
// have them, or serve them once more: what it is told does not change what it has
// sent already, and a server whose disk is full removes nothing.
type finished struct {
	mu    sync.Mutex
	jobs  []numbered // the newest overwrites the oldest
	next  int
	known map[numbered]struct{}
}

// numbered names a job: another stream has others under the same number.
type numbered struct {
	seq    uint64
	stored int64
}

func (d delivery) numbered() numbered { return numbered{d.seq, d.stored} }

func (f *finished) add(j numbered) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil {
		f.known = make(map[numbered]struct{})
	}
	if _, known := f.known[j]; known {
		return
	}
	f.known[j] = struct{}{}
	if len(f.jobs) < finishedMax {
		f.jobs = append(f.jobs, j)
		return
	}
	delete(f.known, f.jobs[f.next])
	f.jobs[f.next] = j
	f.next = (f.next + 1) % finishedMax
}

func (f *finished) has(j numbered) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.known[j]
	return known
}

func (f *finished) all() []numbered {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]numbered(nil), f.jobs...)
}

// removeFinished removes the jobs that this process has finished and the stream of
// an embedded server still has, because the server before it could write nothing.
// Whoever opens the queue next would take them for jobs that were never run.
func (q *client) removeFinished(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leftTime)
	defer cancel()
	cn, _, _, err := q.link.ready()
	if err != nil {
		return
	}
	s, err := cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return
	}
	removed := 0
	for _, j := range q.finished.all() {
		gone, err := removeOne(ctx, s, j, q.opts.Timeout)
		if err != nil {
			return // lookForLeft will see to the rest
		}
		if gone {
			removed++
		}
	}
	if removed > 0 {
		q.opts.Log.Info("finished jobs that a full disk had kept are removed", "queue", q.opts.String(), "jobs", removed)
	}
}

// removeOne removes a finished job, and says whether it was there.
func removeOne(ctx context.Context, s jetstream.Stream, j numbered, timeout time.Duration) (bool, error) {
	m, err := s.GetMsg(ctx, j.seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Time.UnixNano() != j.stored {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, deleteMsg(s, j.seq, timeout)
}

// The server fires a schedule once more when it could not remove it after the first
// time: because the disk was full, or it ended just then, or another server became
// the leader (nats-server: stream.go, processJetStreamMsgWithRollup). So one job is
// in the stream twice, under two numbers and one id.

// jsScheduler is in the messages that the server has made of schedules.
const jsScheduler = "Nats-Scheduler"

// firedMax is how many jobs that were schedules are known by their ids.
const firedMax = 4096

// firedAgain is how long the second copy of a job waits that is still held.
const firedAgain = 5 * time.Second

// fired are the jobs that schedules have become last.
type fired struct {
	mu   sync.Mutex
	ids  []string // the newest overwrites the oldest
	next int
	jobs map[string]numbered
}

// first is the copy of a job that came first, which may be this one.
func (f *fired) first(id string, j numbered) numbered {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first, known := f.jobs[id]; known {
		return first
	}
	if f.jobs == nil {
		f.jobs = make(map[string]numbered)
	}
	f.jobs[id] = j
	if len(f.ids) < firedMax {
		f.ids = append(f.ids, id)
		return j
	}
	delete(f.jobs, f.ids[f.next])
	f.ids[f.next] = id
	f.next = (f.next + 1) % firedMax
	return j
}

// firstCopyLocked says of a job that has come whether another copy of it was finished
// here, or is held. A copy that is neither may be gone for other reasons.
func (t *tube) firstCopyLocked(h nats.Header, d delivery) (done, held bool) {
	id := h.Get(headerID)
	if id == "" || h.Get(jsScheduler) == "" || h.Get(headerKicked) != "" {
		return false, false
	}
	first := t.q.fired.first(id, d.numbered())
	if first == d.numbered() {
		return false, false
	}
	if t.q.finished.has(first) {
		return true, false
	}
	j := t.jobs[first.seq]
	return false, j != nil && j.d.numbered() == first
}
