package jetstream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A server whose disk takes nothing hears that a job is finished and cannot write it
// down. While the daemon runs on that is mended; when it ends, the next one pushes the
// job once more. So much has to be said.

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
