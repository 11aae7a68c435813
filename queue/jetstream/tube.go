package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"propeller/queue"
	"propeller/queue/lease"
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
	jobs lease.Table[*job]
	// leader is the leader of the tube's consumer that last answered, and when; see ledBy.
	leader leadership
	// late are finished jobs whose acknowledgement the server does not know
	// yet, because the settle call could not wait. The renewal loop repeats them.
	late lease.List[*job]
	// tombstones are of finished jobs that the server may have served again before it
	// heard of it: if one arrives, it is finished once more and not delivered.
	tombstones lease.List[*job]
	// later are the retries of this process that wait, by the second when they
	// are due; for TubeStats, because the server counts them as held.
	later map[int64]int
	// acked is where the last job was acknowledged without an answer; see
	// barrier.
	acked string
	// asked is when jobs were last asked for. expired: the servers may have removed the
	// consumer since the time before that; see keep.
	asked   time.Time
	expired bool
}

func newTube(q *client, name string) *tube {
	config := consumerConfig(name, q.opts.AckWait)
	config.InactiveThreshold = q.opts.inactive
	return &tube{
		q: q, name: name, config: config, making: newMaking(),
		consumers: make(map[*consumer]struct{}), later: make(map[int64]int),
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

// maxTombstones bounds tube.tombstones: far more than were ever held when a server was away.
const maxTombstones = 1 << 16

// wakeAll makes every Receive of the tube look again.
func (t *tube) wakeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.consumers {
		c.Wake()
	}
}

// listedLocked returns the job or the tombstone of a sequence number, or nil.
func (t *tube) listedLocked(seq uint64) *job {
	if l := t.jobs.Find(seq); l != nil {
		return l.Job
	}
	return nil
}

// reservation is how long a job may be held without a sign of life. It
// is a little less than what the server grants, so that we know first.
func reservation(ackWait time.Duration) time.Duration { return ackWait - ackWait/10 }

// The server makes consumers one after the other. If all tubes of a daemon asked
// at once, the last would have no answer in time, and those that asked again would
// be behind all the others; with 10,000 requests waiting it throws all of them
// away (nats-server: jetstream_api.go, JSDefaultRequestQueueLimit).

// apiAtOnce is how many requests to make a consumer this process has under way at
// once, and how many questions.
const apiAtOnce = 8

// making is what a tube's consumers here share of making the one in the server.
type making struct {
	turn *semaphore.Weighted // one of them does it
	// For the one that has the turn.
	info  *jetstream.ConsumerInfo // as it was at
	at    time.Time
	asked bool // for, and not answered: it may have been made, or may be yet
}

func newMaking() making { return making{turn: semaphore.NewWeighted(1)} }

// make makes the tube's consumer in the server unless it is there, and returns
// what is known of it. What others find while one waits for its turn is good
// enough.
func (t *tube) make(ctx context.Context, cn *conn) (*jetstream.ConsumerInfo, error) {
	since := time.Now()
	m := &t.making
	if err := m.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer m.turn.Release(1)
	if m.at.After(since) {
		return m.info, nil
	}
	if err := t.q.makes.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer t.q.makes.Release(1)
	ctx, cancel := context.WithTimeout(ctx, t.q.opts.timeout)
	defer cancel()
	info, err := t.makeOrFind(ctx, cn)
	if err != nil {
		return nil, t.q.denials.because(err, since)
	}
	if expired := t.takeExpired(); m.info != nil && !m.info.Created.Equal(info.Created) && !expired {
		t.q.opts.Log.Warn("a tube's consumer was missing and was created again", "queue", t.q.opts.String(), "tube", t.name)
		t.q.link.doubt(t.removed()) // perhaps it went with the stream
	}
	m.info, m.at = info, time.Now()
	return info, nil
}

// removed is why the stream has to be seen before anything is said to it.
func (t *tube) removed() error {
	return fmt.Errorf("jetstream: tube %q: its consumer was removed: %w", t.name, queue.ErrUnavailable)
}

// makeOrFind asks for the consumer once. As long as that may wait in the server
// it only looks whether it has been made: such questions are answered after all
// else.
func (t *tube) makeOrFind(ctx context.Context, cn *conn) (*jetstream.ConsumerInfo, error) {
	m, name, began := &t.making, t.config.Durable, time.Now()
	var c jetstream.Consumer
	var err error = jetstream.ErrConsumerNotFound
	if m.asked {
		c, err = cn.js.Consumer(ctx, jobsStream, name)
	}
	answered := err == nil
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = cn.js.CreateConsumer(ctx, jobsStream, t.config)
		m.asked = late(err)
	}
	if errors.Is(err, jetstream.ErrConsumerExists) { // made otherwise than we would
		if c, err = cn.js.Consumer(ctx, jobsStream, name); err == nil {
			_ = t.q.limit(ctx, cn, c.CachedInfo().Config) // else it stays for longer
		}
		answered = true
	}
	sure := func(info *jetstream.ConsumerInfo) bool {
		return m.info == nil && t.q.justMade(info, began) || m.info != nil && m.info.Created.Equal(info.Created)
	}
	if err == nil && !answered && !sure(c.CachedInfo()) {
		// The first answer of a server that was started gives the time of its start
		// for when the consumer was made (nats-server: jetstream.go, setCreatedTime
		// after consumer.go, initialInfo).
		c, err = cn.js.Consumer(ctx, jobsStream, name)
		m.asked = late(err)
	}
	switch {
	case codeOf(err) == errCodeTooManyConsumers:
		return nil, fmt.Errorf("jetstream: consumer %s: %w: %s", name, err, tooManyConsumers(ctx, cn.js))
	case err != nil:
		return nil, fmt.Errorf("jetstream: consumer %s: %w", name, inner(err))
	}
	m.asked = false
	t.ledBy(c.CachedInfo())
	harmless, err := consumerDiffers(c.CachedInfo().Config, t.config)
	t.q.remark(name, harmless)
	return c.CachedInfo(), err
}

// justMade says that a consumer was made by the request whose answer this is.
func (q *client) justMade(info *jetstream.ConsumerInfo, asked time.Time) bool {
	if q.embedded != nil { // by the same clock
		return info.Created.After(asked)
	}
	age := info.TimeStamp.Sub(info.Created)
	return age >= 0 && age < justNow && info.Delivered.Consumer == 0
}

// justNow is less than passes between the start of a server elsewhere and what this process
// first asks of it.
const justNow = 100 * time.Millisecond

// late says whether an answer may still be on its way.
func late(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// A tube's consumer has a leader among the servers, which alone serves its jobs. What a
// leader has served is known to the next one only if it had the time to tell the others,
// and one that is cut off from them goes on serving for a while. So when there is a new
// leader, the jobs held here may be served to others as if for the first time, and neither
// the number of tries nor a late acknowledgement shows it. All that can be known is that
// there was an election: the jobs held then count as shared.

// electedSubject is where a server says that it leads a consumer (nats-server:
// jetstream_cluster.go, sendConsumerLeaderElectAdvisory).
const electedSubject = "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED." + jobsStream + "."

// watchElections hears of elections on a new connection to a cluster.
func (q *client) watchElections(nc *nats.Conn) error {
	if q.embedded != nil {
		return nil // the one server knows what it has served
	}
	_, err := nc.Subscribe(electedSubject+"*", q.guarded(func(m *nats.Msg) {
		name := strings.TrimPrefix(m.Subject, electedSubject)
		var said leadership
		if json.Unmarshal(m.Data, &said) != nil {
			said = leadership{} // then it counts as a new one
		}
		for _, t := range q.allTubes() {
			if t.config.Durable == name {
				t.elected(said)
			}
		}
	}))
	return err
}

// reconnected is watchElections for those that nobody could tell us of.
func (q *client) reconnected() {
	if q.copies.Load() <= 1 { // the URL may say otherwise
		return
	}
	for _, t := range q.allTubes() {
		t.elected(leadership{})
	}
}

// leadership is what a server says of its election (nats-server: jetstream_events.go,
// JSConsumerLeaderElectedAdvisory).
type leadership struct {
	Leader string    `json:"leader"`
	At     time.Time `json:"timestamp"` // by the leader's clock
}

// ledBy notes the leader that answered for the tube's consumer.
func (t *tube) ledBy(info *jetstream.ConsumerInfo) {
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if was := t.leader.Leader; was != "" && was != info.Cluster.Leader {
		t.shareLocked()
	}
	t.leader = leadership{info.Cluster.Leader, info.TimeStamp}
}

// elected notes that the tube's consumer has a new leader. The election of the one that
// has answered since, as when the consumer was created, does not count: its notice is only late.
func (t *tube) elected(e leadership) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Leader != "" && e.Leader == t.leader.Leader && e.At.Before(t.leader.At) {
		return
	}
	t.shareLocked()
}

// shareLocked marks the jobs held here as perhaps served to others.
func (t *tube) shareLocked() {
	for l := range t.jobs.All() {
		l.Job.shared = true
	}
}
