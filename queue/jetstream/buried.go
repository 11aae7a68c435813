package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// readers is how many buried jobs are read at the same time.
const readers = 16

// maxListed bounds the bodies that Buried returns, in bytes.
const maxListed = 64 << 20

// Buried implements queue.Admin, the oldest ids first. It disturbs nothing.
func (q *client) Buried(ctx context.Context, tube string, limit int) ([]queue.BuriedJob, error) {
	if limit < 1 {
		return nil, fmt.Errorf("jetstream: list of %d buried jobs: must be 1 or more", limit)
	}
	cn, s, err := q.buriedOf(ctx, tube)
	if err != nil {
		return nil, err
	}
	first, seen := firstIDs{limit: limit}, 0
	err = q.eachSubject(ctx, cn, buriedStream, buriedSubject(tube, "*"), func(subject string) error {
		if seen++; seen > maxIDs {
			return queue.ErrCut
		}
		first.add(strings.TrimPrefix(subject, buriedSubject(tube, "")))
		return nil
	})
	cut := errors.Is(err, queue.ErrCut)
	if err != nil && !cut {
		return nil, adminError(ctx, err)
	}
	jobs, err := readBuried(ctx, s, tube, first.sorted())
	if err == nil && cut {
		err = fmt.Errorf("jetstream: tube %q has more than %d buried jobs: %w", tube, maxIDs, queue.ErrCut)
	}
	return jobs, err
}

// firstIDs keeps the first of very many ids, and hardly more than that.
type firstIDs struct {
	limit int
	ids   []string
}

func (f *firstIDs) add(id string) {
	if f.ids = append(f.ids, id); len(f.ids) >= 2*f.limit+1000 {
		f.sorted()
	}
}

func (f *firstIDs) sorted() []string {
	slices.SortFunc(f.ids, compareIDs)
	if len(f.ids) > f.limit {
		clear(f.ids[f.limit:])
		f.ids = f.ids[:f.limit]
	}
	return f.ids
}

// maxIDs is of how many buried jobs of a tube the oldest are sought.
const maxIDs = 2_000_000

// buriedOf is the stream of buried jobs, for a request about a tube.
func (q *client) buriedOf(ctx context.Context, tube string) (*conn, jetstream.Stream, error) {
	cn, err := q.reach(ctx, tube)
	if err != nil {
		return nil, nil, err
	}
	q.expectLarge()
	s, err := cn.js.Stream(ctx, buriedStream)
	return cn, s, adminError(ctx, err)
}

// compareIDs orders the sequence numbers of one stream by size, and behind them
// the ids of jobs that were put with a delay.
func compareIDs(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// readBuried reads some jobs, several at a time, in the given order.
func readBuried(ctx context.Context, s jetstream.Stream, tube string, ids []string) ([]queue.BuriedJob, error) {
	found := make([]queue.BuriedJob, len(ids))
	var size atomic.Int64
	err := each(ctx, readers, slices.All(ids), func(i int, id string) error {
		if n := size.Load(); n > maxListed {
			return fmt.Errorf("jetstream: tube %q: buried jobs: %d MiB are listed: %w", tube, n>>20, queue.ErrCut)
		}
		b, _, err := peek(ctx, s, tube, id)
		if errors.Is(err, queue.ErrNotFound) { // gone meanwhile
			return nil
		}
		found[i] = b
		size.Add(int64(len(b.Body)))
		return err
	})
	return slices.DeleteFunc(found, func(b queue.BuriedJob) bool { return b.ID == "" }), err
}

// peek reads one buried job; the message is what the stream has.
func peek(ctx context.Context, s jetstream.Stream, tube, id string) (queue.BuriedJob, *jetstream.RawStreamMsg, error) {
	m, err := s.GetLastMsgForSubject(ctx, buriedSubject(tube, id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return queue.BuriedJob{}, nil, fmt.Errorf("jetstream: tube %q: job %s: %w", tube, id, queue.ErrNotFound)
	}
	if err != nil {
		return queue.BuriedJob{}, nil, adminError(ctx, err)
	}
	put := putTime(m.Header, m.Time.UnixNano())
	return queue.BuriedJob{ID: id, Body: m.Data, Age: max(time.Since(put), 0)}, m, nil
}

// find is peek for an operator's tube and id. A bare number may also be of a job
// that was put when ids were that, and buried since.
func (q *client) find(ctx context.Context, tube, id string) (cn *conn, s jetstream.Stream, b queue.BuriedJob, m *jetstream.RawStreamMsg, err error) {
	if err = checkID(id); err != nil {
		return
	}
	if cn, s, err = q.buriedOf(ctx, tube); err != nil {
		return
	}
	b, m, err = peek(ctx, s, tube, id)
	if seq, perr := strconv.ParseUint(id, 10, 64); perr == nil && errors.Is(err, queue.ErrNotFound) {
		b, m, err = peek(ctx, s, tube, seqID(q.birth.Load(), seq))
	}
	return
}

// Peek implements queue.Admin.
func (q *client) Peek(ctx context.Context, tube, id string) (queue.BuriedJob, error) {
	_, _, b, _, err := q.find(ctx, tube, id)
	return b, err
}

// Delete implements queue.Admin.
func (q *client) Delete(ctx context.Context, tube, id string) error {
	_, s, b, m, err := q.find(ctx, tube, id)
	if err != nil {
		return err
	}
	return q.remove(ctx, s, tube, b.ID, m.Sequence)
}

// remove deletes a buried job. Of two who do it at the same time one finds
// nothing. queue.ErrBusy: it was kicked meanwhile, and is buried anew.
func (q *client) remove(ctx context.Context, s jetstream.Stream, tube, id string, seq uint64) error {
	err := s.DeleteMsg(ctx, seq)
	q.calls.changes.Add(1)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		_, m, perr := peek(ctx, s, tube, id)
		switch {
		case errors.Is(perr, queue.ErrNotFound):
			return perr
		case perr == nil && m.Sequence != seq:
			return fmt.Errorf("jetstream: tube %q: job %s: buried anew: %w", tube, id, queue.ErrBusy)
		}
	}
	return adminError(ctx, err)
}

// adminError is an error of an operator's request.
func adminError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, queue.ErrUnavailable), errors.Is(err, queue.ErrRejected):
		return err
	}
	return unavailable(err)
}
