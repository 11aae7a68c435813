package jetstream

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// tube is what the consumers of one tube in this process share.
type tube struct {
	q      *client
	name   string
	config jetstream.ConsumerConfig
	making making

	mu sync.Mutex
	// What a tube had when it was first looked at is of a time before this
	// process; see recheck.
	seen      bool
	notUntil  time.Time // no pull before
	consumers map[*consumer]struct{}
	// jobs are all that this process holds, by sequence number: one that the
	// server serves again, because it heard nothing of it for too long, is
	// bound to its old holder and not served twice.
	jobs map[uint64]*job
	// leader is the leader of the tube's consumer that last answered, and when; see ledBy.
	leader leadership
	// late are finished jobs whose acknowledgement the server does not know
	// yet, because who finished them could not wait. The keeper goes on.
	late map[*job]struct{}
	// doubtful are finished jobs that the server may have served again before it
	// heard of it: if one arrives, it is finished once more and not delivered.
	// They are in jobs too, and both are bounded by what was held.
	doubtful map[*job]struct{}
	// later are the retries of this process that wait, by the second when they
	// are due; for TubeStats, because the server counts them as held.
	later map[int64]int
	// acked is where the last job was acknowledged without an answer; see
	// barrier.
	acked string
}

func newTube(q *client, name string) *tube {
	return &tube{
		q: q, name: name, config: consumerConfig(name, q.opts.AckWait), making: newMaking(),
		consumers: make(map[*consumer]struct{}), jobs: make(map[uint64]*job),
		late: make(map[*job]struct{}), doubtful: make(map[*job]struct{}), later: make(map[int64]int),
	}
}

// laterMax bounds tube.later: retries further apart than this many seconds
// count as held.
const laterMax = 4096

// delayedLocked notes a retry that waits until due.
func (t *tube) delayedLocked(due time.Time) {
	second := due.Unix() + 1
	if _, known := t.later[second]; known || len(t.later) < laterMax {
		t.later[second]++
	}
}

// waitingLocked is how many retries of this process still wait.
func (t *tube) waitingLocked(now time.Time) (n int) {
	for second, k := range t.later {
		if second <= now.Unix() {
			delete(t.later, second)
			continue
		}
		n += k
	}
	return n
}

// lease is how long a job may be held without a sign of life. It
// is a little less than what the server grants, so that we know first.
func lease(ackWait time.Duration) time.Duration { return ackWait - ackWait/10 }
