package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"propeller/queue"
)

// TubeStats implements queue.Admin. The server counts jobs that were given back
// and not yet served again as held. Retries of this process that wait are taken
// out of that; those of other daemons are not known, and count as reserved. What
// other programs put or took may be missing for a second.
func (q *client) TubeStats(ctx context.Context, name string) (queue.TubeStats, error) {
	var st queue.TubeStats
	cn, err := q.reach(ctx, name)
	if err != nil {
		return st, err
	}
	if err := q.barrier(ctx, cn, name); err != nil {
		return st, adminError(ctx, err)
	}
	if st, err = q.tubeStats(ctx, cn, name); err != nil {
		return queue.TubeStats{}, adminError(ctx, err)
	}
	if t := q.tube(name); t != nil {
		t.mu.Lock()
		later := min(t.waitingLocked(time.Now()), st.Reserved)
		t.mu.Unlock()
		st.Delayed += later
		st.Reserved -= later
	}
	return st, nil
}

func (q *client) tubeStats(ctx context.Context, cn *conn, name string) (st queue.TubeStats, err error) {
	n, known, err := q.overview(ctx, cn, name)
	if err != nil {
		return st, err
	}
	st.Delayed, st.Buried = n.delayed, n.buried
	if known && n.jobs == 0 {
		return st, nil // so none is held either
	}
	if !known {
		if st.Delayed, err = q.count(ctx, cn, jobsStream, schedSubject(name, "*")); err != nil {
			return st, err
		}
		if st.Buried, err = q.count(ctx, cn, buriedStream, buriedSubject(name, "*")); err != nil {
			return st, err
		}
	}
	c, err := q.consumerOf(ctx, cn, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) { // nobody has ever asked for its jobs
		st.Ready, err = q.countOne(ctx, cn, jobSubject(name))
		return st, err
	}
	if err != nil {
		return st, err
	}
	info := c.CachedInfo()
	if t := q.tube(name); t != nil {
		t.compare(info.Config)
	}
	st.Ready, st.Reserved = int(info.NumPending), info.NumAckPending
	if info.Paused {
		st.Paused = st.Ready
		st.PausedUntil = time.Now().Add(info.PauseRemaining)
	}
	if st.Reserved > 0 {
		// After a crash the consumer takes jobs for held that the stream has no
		// more, until their time is over.
		n, err := q.countOne(ctx, cn, jobSubject(name))
		if err != nil {
			return st, err
		}
		st.Reserved = min(st.Reserved, max(0, n-st.Ready))
	}
	return st, nil
}

// consumerOf asks for the consumer of a tube.
func (q *client) consumerOf(ctx context.Context, cn *conn, name string) (jetstream.Consumer, error) {
	if err := q.asks.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer q.asks.Release(1)
	return cn.js.Consumer(ctx, jobsStream, durable(name))
}

// barrier waits until the server has dealt with every acknowledgement that this
// process sent without waiting for an answer: it works them off in order.
func (q *client) barrier(ctx context.Context, cn *conn, name string) error {
	t := q.tube(name)
	if t == nil {
		return nil
	}
	t.mu.Lock()
	last := t.acked
	t.acked = ""
	t.mu.Unlock()
	if last == "" {
		return nil
	}
	_, err := q.request(ctx, cn, &nats.Msg{Subject: last, Data: wordAck}) // a second time: no harm
	return err
}

// streamInfo is the server's answer to a question about a stream.
type streamInfo struct {
	Created time.Time `json:"created"`
	Config  struct {
		MaxAge time.Duration `json:"max_age"`
	} `json:"config"`
	Total int       `json:"total"` // of the subjects that match
	Error *apiError `json:"error"`
	State struct {
		Messages    uint64        `json:"messages"`
		FirstSeq    uint64        `json:"first_seq"`
		FirstTS     time.Time     `json:"first_ts"`
		LastSeq     uint64        `json:"last_seq"`
		NumSubjects int           `json:"num_subjects"`
		Subjects    subjectCounts `json:"subjects"`
		Deleted     []uint64      `json:"deleted"` // in their order
		Lost        struct {
			Msgs []uint64 `json:"msgs"`
		} `json:"lost"`
	} `json:"state"`
}

// AllStats implements queue.Counter.
func (q *client) AllStats(ctx context.Context) (map[string]queue.TubeStats, error) {
	cn, err := q.link.get(ctx, untilTried)
	if err != nil {
		return nil, err
	}
	tubes := make(map[string]tubeCounts)
	for _, stream := range []string{jobsStream, buriedStream} {
		err := q.eachSubject(ctx, cn, stream, ">", func(subject string, n int) error {
			addSubject(tubes, subject, n)
			return nil
		})
		if err != nil {
			return nil, adminError(ctx, err)
		}
	}
	out := make(map[string]queue.TubeStats, len(tubes))
	for tube, n := range tubes {
		out[tube] = queue.TubeStats{Ready: n.jobs, Delayed: n.delayed, Buried: n.buried}
	}
	return out, nil
}

// subjectCounts are the numbers of messages, by subject.
type subjectCounts map[string]int

// maxSubjects is how many a server lists at a time (nats-server: JSMaxSubjectDetails).
const maxSubjects = 100_000

// UnmarshalJSON takes no more than an honest server sends: the map is many times as
// large as its text.
func (c *subjectCounts) UnmarshalJSON(text []byte) error {
	if n := bytes.Count(text, []byte(`":`)); n > 2*maxSubjects { // names may have that too
		return fmt.Errorf("%d subjects, at most %d are listed at a time", n, maxSubjects)
	}
	return json.Unmarshal(text, (*map[string]int)(c))
}

// eachSubject calls f for the subjects of a stream that match a pattern, and how many messages
// each has.
func (q *client) eachSubject(ctx context.Context, cn *conn, stream, pattern string, f func(subject string, n int) error) error {
	for offset := 0; ; {
		q.expectLarge()
		info, err := q.streamInfo(ctx, cn, stream, pattern, offset)
		if err != nil {
			return err
		}
		for subject, n := range info.State.Subjects {
			if err := f(subject, n); err != nil {
				return err
			}
		}
		n := len(info.State.Subjects)
		if offset += n; n == 0 || offset >= info.Total {
			return nil
		}
	}
}

// streamInfo asks for a stream, and for its subjects that match a pattern; "":
// none of them.
func (q *client) streamInfo(ctx context.Context, cn *conn, stream, subject string, offset int) (streamInfo, error) {
	return q.askStream(ctx, cn, stream, fmt.Appendf(nil, `{"subjects_filter":%q,"offset":%d}`, subject, offset))
}

func (q *client) askStream(ctx context.Context, cn *conn, stream string, question []byte) (info streamInfo, err error) {
	if err := q.asks.Acquire(ctx, 1); err != nil {
		return info, err
	}
	defer q.asks.Release(1)
	m, err := q.request(ctx, cn, &nats.Msg{Subject: q.calls.api + "STREAM.INFO." + stream, Data: question})
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return info, fmt.Errorf("jetstream: stream %s: information: %w", stream, err)
	}
	if info.Error != nil {
		return info, fmt.Errorf("jetstream: stream %s: %w", stream, info.Error)
	}
	if stream == jobsStream {
		q.birth.Store(info.Created.UnixMilli())
	}
	return info, nil
}

// count is how many subjects match, each of them having one message. The
// offset, beyond the last, keeps the server from listing them.
func (q *client) count(ctx context.Context, cn *conn, stream, pattern string) (int, error) {
	info, err := q.streamInfo(ctx, cn, stream, pattern, 1<<30)
	return info.Total, err
}

// countOne is how many messages a subject has.
func (q *client) countOne(ctx context.Context, cn *conn, subject string) (int, error) {
	info, err := q.streamInfo(ctx, cn, jobsStream, subject, 0)
	return info.State.Subjects[subject], err
}

const (
	// overviewAge is how old an overview may be. What this process does itself
	// makes it void at once; other programs' jobs may be seen so much later.
	overviewAge = time.Second
	// overviewMax is the most subjects of a stream that are listed: a subject is
	// a tube that has jobs, or one delayed or buried job. With more of them it
	// is cheaper to ask for each tube.
	overviewMax = 5000
)

// overview is how many messages each tube has in the streams. A daemon with a
// thousand tubes asks for their numbers all at once, and most have nothing.
type overview struct {
	taken   time.Time
	changes uint64                // of calls: later ones make it void
	tubes   map[string]tubeCounts // those that have something; nil: not known
}

// tubeCounts are a tube's messages.
type tubeCounts struct{ jobs, delayed, buried int }

// overviews keeps the last overview for one caller at a time.
type overviews struct {
	turn *semaphore.Weighted // one
	last overview
}

// overview returns a tube's counts, if they are known without asking for this
// tube.
func (q *client) overview(ctx context.Context, cn *conn, name string) (n tubeCounts, known bool, err error) {
	if err := q.overviews.turn.Acquire(ctx, 1); err != nil {
		return n, false, err
	}
	defer q.overviews.turn.Release(1)
	o := &q.overviews.last
	if time.Since(o.taken) >= overviewAge {
		*o = overview{taken: time.Now()}
		if err := q.takeOverview(ctx, cn, o); err != nil {
			return n, false, err
		}
	} else if o.changes != q.calls.changes.Load() {
		return n, false, nil
	}
	n = o.tubes[name]
	return n, o.tubes != nil, nil
}

// takeOverview asks for all tubes. If something changes meanwhile it is of use to who
// asked for it, and void for the next.
func (q *client) takeOverview(ctx context.Context, cn *conn, o *overview) error {
	changes := q.calls.changes.Load()
	tubes := make(map[string]tubeCounts)
	for _, stream := range []string{jobsStream, buriedStream} {
		info, err := q.streamInfo(ctx, cn, stream, "", 0)
		if err != nil {
			return err
		}
		switch n := info.State.NumSubjects; {
		case n > overviewMax:
			return nil
		case n == 0:
			continue
		}
		if info, err = q.streamInfo(ctx, cn, stream, ">", 0); err != nil {
			return err
		}
		for subject, n := range info.State.Subjects {
			addSubject(tubes, subject, n)
		}
	}
	o.tubes, o.changes = tubes, changes
	return nil
}

// addSubject adds the messages of a subject to those of its tube.
func addSubject(tubes map[string]tubeCounts, subject string, n int) {
	tube := tubeOf(subject)
	if tube == "" {
		return
	}
	c := tubes[tube]
	switch {
	case strings.HasPrefix(subject, jobPrefix):
		c.jobs += n
	case strings.HasPrefix(subject, schedPrefix):
		c.delayed += n
	default:
		c.buried += n
	}
	tubes[tube] = c
}
