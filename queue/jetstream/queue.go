package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"propeller/queue"
	"propeller/queue/queueurl"
)

// Open returns a queue on a NATS cluster, or with Options.Dir on a server
// inside this process.
//
// A cluster need not be reachable: the connection is made in the background and
// again for ever. An embedded server is started before Open returns; it ends
// with Close. The error is then *InUseError when another process owns the
// folder. The result also implements queue.Admin.
func Open(o Options) (queue.Queue, error) {
	return open(o)
}

func open(o Options) (*client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	var emb *embedded
	if o.Dir != "" {
		emb, err = startEmbedded(o)
		if err != nil && o.Attach {
			if attached, ok := attach(o, err); ok {
				return start(attached, nil), nil
			}
		}
		if err != nil {
			return nil, err
		}
	}
	q := start(o, emb)
	if emb == nil {
		return q, nil
	}
	// The server is here: what cannot work now will not work later.
	if _, err := q.link.get(q.ctx, untilTried); err != nil {
		_ = q.Close()
		return nil, err
	}
	return q, nil
}

// start makes the queue and its goroutines.
func start(o Options, emb *embedded) *client {
	q := &client{opts: o, embedded: emb, calls: newCalls(o), retries: retries{wake: newEvent()}, tubes: make(map[string]*tube), told: make(map[string]string)}
	q.makes, q.asks = semaphore.NewWeighted(apiAtOnce), semaphore.NewWeighted(apiAtOnce)
	q.swept = make(chan struct{})
	q.overviews.turn = semaphore.NewWeighted(1)
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.link = newLink(q)
	q.pulse.beat(time.Now(), q.opts.AckWait)
	q.wg.Go(q.link.run)
	q.wg.Go(q.renewLoop)
	q.wg.Go(q.sendRetries)
	q.wg.Go(q.watchSchedules)
	q.wg.Go(q.sweepConsumers)
	if emb != nil {
		q.wg.Go(q.watchServer)
		q.wg.Go(q.watchCapacity)
		q.wg.Go(q.watchDamage)
		q.wg.Go(q.watchOrphans)
	}
	return q
}

// client is the queue.Queue.
type client struct {
	opts     Options
	embedded *embedded // nil: the server is elsewhere
	calls    *calls
	link     *link
	retries  retries
	pulse    pulse
	left     atomic.Bool         // an embedded server may have consumers that should be gone
	swept    chan struct{}       // closed when the consumers of earlier times have been dealt with
	makes    *semaphore.Weighted // consumers being made in the server
	asks     *semaphore.Weighted // questions to the server

	denials   denials
	overviews overviews
	damage    damage // of an embedded server's files
	finished  finished
	refused   recent[serving, struct{}] // given back as soon as they came
	fired     recent[copied, numbered]  // the jobs that schedules have become last
	labels    recent[string, string]    // the ids of jobs that this process has put again, by their Nats-Msg-Id

	watches atomic.Pointer[[]*watch] // nil: none

	large atomic.Int64 // until when large answers may come, Unix nanoseconds
	// Of the stream of jobs, as last seen.
	birth  atomic.Int64
	copies atomic.Int64 // on how many servers

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	tubes  map[string]*tube  // those that have consumers here, and those of which something is still to be known
	told   map[string]string // how streams and consumers differ harmlessly; bounded by the tubes
}

var _ interface {
	queue.Queue
	queue.Admin
	queue.Counter
	queue.Watcher
} = (*client)(nil)

var errQueueClosed = fmt.Errorf("jetstream: queue is closed: %w", queue.ErrUnavailable)

// Consume implements queue.Queue. The tube's consumer in the server is made by
// the first Receive.
func (q *client) Consume(name string) (queue.Consumer, error) {
	if err := queue.CheckTube(name); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, errQueueClosed
	}
	return newConsumer(q.tubeLocked(name)), nil
}

func (q *client) tubeLocked(name string) *tube {
	t := q.tubes[name]
	if t == nil {
		t = newTube(q, name)
		q.tubes[name] = t
	}
	return t
}

// tube returns a tube that has had consumers here, or nil.
func (q *client) tube(name string) *tube {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tubes[name]
}

// lateClose is how long Close waits before logging that an embedded server does not stop. It
// goes on waiting; see embedded_restart.go.
const lateClose = 2 * time.Second

// Close implements queue.Queue.
func (q *client) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.mu.Unlock()
	q.burst(time.Now(), true)
	if q.settleAll() {
		q.forgetIdle()
		q.noteAll()
	}
	if q.embedded != nil {
		q.tellUnstored()
	}
	q.cancel()
	if q.embedded != nil {
		late := time.AfterFunc(lateClose, func() {
			q.opts.Log.Warn("the queue's server does not stop", "queue", q.opts.String())
		})
		defer late.Stop()
	}
	for _, t := range q.allTubes() {
		t.wakeAll()
	}
	q.wg.Wait()
	if cn, _, _, _ := q.link.ready(); cn != nil {
		cn.nc.Close()
	}
	q.link.said.end()
	q.calls.fail(farFuture, errQueueClosed)
	if q.embedded != nil {
		return q.embedded.close()
	}
	return nil
}

const (
	// DefaultAckWait is how long a job stays reserved without a sign of life
	// from its holder, on a cluster.
	DefaultAckWait = 120 * time.Second
	// DefaultEmbeddedAckWait is the same for an embedded server. It can be
	// short: holder and server live and pause together, so it only matters how
	// soon the jobs of a killed process return.
	DefaultEmbeddedAckWait = 30 * time.Second

	defaultReplicas = 3               // on how many servers of a cluster each job is kept
	requestTimeout  = 5 * time.Second // bounds one request to the server
	lookEvery       = 30 * time.Second
)

// Options configure Open. They print as their URL, without secrets.
type Options struct {
	// URL is of an embedded server, which lives in this process, or of some servers
	// of a cluster, which tell of the others.
	queueurl.URL
	// Attach says what to do when another process owns the folder of an embedded
	// server: connect to its listen address instead of failing. It is for commands
	// that look in, not for daemons.
	Attach bool
	// AckWait is how long a job stays reserved without a sign of life from its
	// holder. It is a property of a tube's consumer in the server and holds for all
	// daemons. 0 means the default; tests of daemons that die have it shorter.
	AckWait time.Duration
	// Log gets one line per change of the connection's state, and what an
	// embedded server warns of. nil: no log.
	Log *slog.Logger
	// Still is called when an embedded server stands still and only the end of the
	// process helps. nil: that is only logged.
	Still func(error)

	// Tests have these shorter.
	timeout   time.Duration // of one request
	inactive  time.Duration // see inactiveAfter; 0: consumers stay
	lookEvery time.Duration // how often the streams are compared with what they should be
}

// replicas is on how many servers each job is kept.
func (o Options) replicas() int {
	if o.Dir != "" {
		return 1 // one server has one copy
	}
	n, _ := strconv.Atoi(o.Options["replicas"])
	return cmp.Or(n, defaultReplicas)
}

// inboxPrefix is what the subjects of answers begin with.
func (o Options) inboxPrefix() string {
	return cmp.Or(o.Options["inbox_prefix"], strings.TrimSuffix(nats.InboxPrefix, ".")) + "."
}

// newInbox is the beginning of subjects that nobody else has.
func (o Options) newInbox() string { return o.inboxPrefix() + nuid.Next() + "." }

// apiPrefix is what the subjects of JetStream's own requests begin with.
func (o Options) apiPrefix() string {
	if d := o.Options["domain"]; d != "" {
		return "$JS." + d + ".API."
	}
	return "$JS.API."
}

// encrypted reports whether nothing may be sent unencrypted.
func (o Options) encrypted() bool {
	return o.Scheme == "tls" || o.Options["ca"] != "" || o.Options["cert"] != "" || o.Options["tls_first"] != ""
}

// withDefaults returns o complete.
func (o Options) withDefaults() (Options, error) {
	ackWait := DefaultAckWait
	switch {
	case (o.Dir == "") == (len(o.Servers) == 0):
		return o, fmt.Errorf("jetstream: either a folder or servers must be given")
	case o.Options["listen"] != "" && !queueurl.Local(o.Options["listen"]): // a network needs a cluster's security
		return o, fmt.Errorf("jetstream: listen %q: must be an address of this machine alone", o.Options["listen"])
	case o.Dir != "":
		ackWait = DefaultEmbeddedAckWait
	}
	if o.Dir == "" {
		o.inactive = cmp.Or(o.inactive, inactiveAfter)
	}
	o.AckWait = cmp.Or(o.AckWait, ackWait)
	o.timeout = cmp.Or(o.timeout, requestTimeout)
	o.lookEvery = cmp.Or(o.lookEvery, lookEvery)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o, nil
}

// event tells its reader once to look again, however often it is raised.
type event chan struct{}

func newEvent() event { return make(event, 1) }

func (e event) raise() {
	select {
	case e <- struct{}{}:
	default:
	}
}

// wait waits for ch, or returns why not.
func wait[T any](ctx context.Context, q *client, ch <-chan T) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-q.ctx.Done():
		return errQueueClosed
	}
}

// sleep waits, or returns why not.
func (q *client) sleep(ctx context.Context, d time.Duration) error {
	return wait(ctx, q, time.After(d))
}

// each calls f for all there is, up to most at once, until one fails or ctx ends.
func each[K, V any](ctx context.Context, most int, all iter.Seq2[K, V], f func(K, V) error) error {
	calls, going := errgroup.WithContext(ctx)
	calls.SetLimit(most)
	for k, v := range all {
		if going.Err() != nil {
			break
		}
		calls.Go(func() error { return f(k, v) })
	}
	err := calls.Wait()
	return cmp.Or(ctx.Err(), err)
}

// messages are those of a stream whose subjects match a pattern, in their order;
// with an error it ends.
func messages(ctx context.Context, s jetstream.Stream, pattern string) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		for seq := uint64(1); ; seq++ {
			m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(pattern))
			if errors.Is(err, jetstream.ErrMsgNotFound) || !yield(m, err) || err != nil {
				return
			}
			seq = m.Sequence
		}
	}
}

// flushTime bounds the wait for the server to read what was sent, when closing.
const flushTime = 2 * time.Second

// flushFor waits until the server has read all that was sent to it.
func (q *client) flushFor(ctx context.Context) {
	cn, _, _, err := q.link.ready()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	_ = cn.nc.FlushWithContext(ctx)
}

// settleAll waits until the server has dealt with every acknowledgement: an
// embedded one ends with the queue, and would forget those it has only read.
//
// It says whether that is so.
func (q *client) settleAll() bool {
	q.flushFor(q.ctx)
	cn, _, _, err := q.link.ready()
	if err != nil || q.embedded == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(q.ctx, flushTime)
	defer cancel()
	var failed atomic.Bool
	_ = each(ctx, settlesAtOnce, slices.All(q.allTubes()), func(_ int, t *tube) error {
		if err := q.barrier(ctx, cn, t.name); err != nil {
			q.opts.Log.Warn("queue: jobs just finished may be served again", "tube", t.name, "err", err)
			failed.Store(true)
		}
		return nil
	})
	return ctx.Err() == nil && !failed.Load()
}

// settlesAtOnce is how many tubes an embedded server is asked about at once.
const settlesAtOnce = 64
