package jetstream

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"propeller/queue"
)

// ledger has what became of each job, by its body, and the longest time without
// one finished.
type ledger struct {
	mu       sync.Mutex
	accepted map[string]uint64   // its number in the stream
	finished map[string]int      // how often
	late     map[string]bool     // finished, but Done said that the reservation was lost
	served   map[string][]string // under which address and when
	last     time.Time
	gap      time.Duration
}

func newLedger() *ledger {
	return &ledger{
		accepted: make(map[string]uint64), finished: make(map[string]int), late: make(map[string]bool), last: time.Now(),
		served: make(map[string][]string),
	}
}

// accept enters a job that the queue has taken.
func (l *ledger) accept(t *testing.T, body []byte, id string) {
	seq, err := strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
	if err != nil {
		t.Errorf("put: id: %v", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted[string(body)] = seq
}

// serve enters a job that has been received.
func (l *ledger) serve(j queue.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	body := string(j.Body())
	l.served[body] = append(l.served[body], j.(*job).address()+" at "+time.Now().Format(time.StampMicro))
}

// finish enters a job whose Done returned err.
func (l *ledger) finish(body []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.finished[string(body)]++
	case errors.Is(err, queue.ErrLost): // worked on and out of the queue all the same
		l.late[string(body)] = true
	default:
		return
	}
	now := time.Now()
	l.gap = max(l.gap, now.Sub(l.last))
	l.last = now
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.finished)
}

// repeats tells of the jobs that were finished more than once; "" when there are
// none.
func (l *ledger) repeats() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for body, n := range l.finished {
		if n > 1 {
			fmt.Fprintf(&b, "\n%q: %d times: served %q", body, n, l.served[body])
		}
	}
	return b.String()
}

// lates is how many jobs were finished when their reservation had ended.
func (l *ledger) lates() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.late)
}

// resetGap returns the longest time without a finished job since the last call.
func (l *ledger) resetGap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := max(l.gap, time.Since(l.last))
	l.gap, l.last = 0, time.Now()
	return gap
}

// missing are the bodies of the accepted jobs that nobody has finished.
func (l *ledger) missing() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var bodies []string
	for body := range l.accepted {
		if l.finished[body] == 0 && !l.late[body] {
			bodies = append(bodies, body)
		}
	}
	slices.Sort(bodies)
	return bodies
}

// account tells, for a test that failed, where the missing jobs are: in the
// stream or not, and what the tube's consumer in the server says of itself.
func (l *ledger) account(t *testing.T, q *client, tube string) string {
	t.Helper()
	var b strings.Builder
	missing := l.missing()
	fmt.Fprintf(&b, "%d of %d accepted jobs are not finished", len(missing), len(l.accepted))
	s, err := q.link.cn.js.Stream(ctxOf(t), jobsStream)
	if err != nil {
		return fmt.Sprintf("%s; stream: %v", &b, err)
	}
	st := s.CachedInfo().State
	fmt.Fprintf(&b, "\nstream: %d messages, %d to %d", st.Msgs, st.FirstSeq, st.LastSeq)
	if c, err := s.Consumer(ctxOf(t), durable(tube)); err != nil {
		fmt.Fprintf(&b, "\nconsumer: %v", err)
	} else {
		in := c.CachedInfo()
		fmt.Fprintf(&b, "\nconsumer: leader %s, %d pending, %d held, %d redelivered, %d pulls wait, delivered %+v, acknowledged %+v",
			in.Cluster.Leader, in.NumPending, in.NumAckPending, in.NumRedelivered, in.NumWaiting, in.Delivered, in.AckFloor)
	}
	for _, body := range missing[:min(len(missing), 20)] {
		fmt.Fprintf(&b, "\n%q: served: %q", body, l.served[body])
		m, err := s.GetMsg(ctxOf(t), l.accepted[body])
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			fmt.Fprintf(&b, "\n%q: message %d is not in the stream", body, l.accepted[body])
		case err != nil:
			fmt.Fprintf(&b, "\n%q: message %d: %v", body, l.accepted[body], err)
		default:
			fmt.Fprintf(&b, "\n%q: message %d is in the stream: %q of %v", body, m.Sequence, m.Data, m.Time)
		}
	}
	return b.String()
}
