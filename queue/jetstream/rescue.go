package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// rescueTime bounds the search for left jobs: it takes a question for each tube,
// some 50 µs, and two more for each job.
const rescueTime = time.Minute

// rescue puts left jobs of an embedded queue again, before any are served. A
// server that is killed may have written that a consumer is done with a job, and
// not yet that the job is gone: such a job is served to nobody, and is counted
// as ready for ever. Most were finished and some, after the machine has lost
// power, may not have been served at all; so they run again, as a job does whose
// daemon died before it was deleted. A cluster's servers look for them themselves
// (nats-server: stream.go, checkInterestState); of those of a server that was not
// killed see left.go.
func (l *link) rescue() error {
	ctx, cancel := context.WithTimeout(l.q.ctx, rescueTime)
	defer cancel()
	s, err := l.cn.js.Stream(ctx, jobsStream)
	if err != nil {
		return err
	}
	if s.CachedInfo().State.Msgs == 0 {
		return nil
	}
	consumers := s.ListConsumers(ctx)
	left := 0
	for c := range consumers.Info() {
		n, _, err := l.q.rescueTube(ctx, l.cn, s, c.Config.FilterSubject, c.AckFloor.Stream)
		if left += n; err != nil {
			return fmt.Errorf("rescue of consumer %s: %w", c.Name, err)
		}
	}
	if left > 0 {
		l.q.opts.Log.Warn("the queue was killed while jobs were being deleted; they run again", "jobs", left)
	}
	return consumers.Err()
}

// rescueTube puts those jobs of a tube again that its consumer is done with, up
// to a number. Those that this process has finished are removed instead.
func (q *client) rescueTube(ctx context.Context, cn *conn, s jetstream.Stream, subject string, done uint64) (again, removed int, err error) {
	tube, ours := strings.CutPrefix(subject, jobPrefix)
	if done == 0 || !ours {
		return 0, 0, nil
	}
	for seq := uint64(1); ; seq++ {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return again, removed, nil
		}
		if err != nil || m.Sequence > done {
			return again, removed, err
		}
		seq = m.Sequence
		held, finished := q.holds(tube, m)
		if held {
			continue
		}
		if !finished {
			if _, err := q.store(ctx, cn, q.again(birthOf(s.CachedInfo()), tube, m)); err != nil {
				return again, removed, err
			}
		}
		if err := deleteMsg(s, seq, q.opts.Timeout); err != nil {
			return again, removed, err
		}
		if finished {
			removed++
		} else {
			again++
		}
	}
}

// again is the message that puts a job once more under the id it had.
func (q *client) again(birth int64, tube string, m *jetstream.RawStreamMsg) *nats.Msg {
	h := nats.Header{
		headerID:  {seqID(birth, m.Sequence)},
		headerPut: {strconv.FormatInt(m.Time.UnixNano(), 10)},
		jsMsgID:   {onceID("rescue", m)}, // once, should this be killed before the old one is deleted
	}
	for _, name := range []string{headerID, headerPut, headerKicked} {
		if v := m.Header.Get(name); v != "" {
			h[name] = []string{v}
		}
	}
	return &nats.Msg{Subject: q.backSubject(tube), Data: m.Data, Header: h}
}
