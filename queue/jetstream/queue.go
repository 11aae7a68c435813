package jetstream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"propeller/queue"
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
	q.makes, q.asks = make(slots, apiAtOnce), make(slots, apiAtOnce)
	q.overviews.turn = make(slots, 1)
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.link = newLink(q)
	q.pulse.beat(time.Now(), q.opts.AckWait)
	q.wg.Go(q.link.run)
	q.wg.Go(q.keep)
	q.wg.Go(q.sendRetries)
	q.wg.Go(q.watchSchedules)
	if emb != nil {
		q.wg.Go(q.mend)
		q.wg.Go(q.watchRoom)
		q.wg.Go(q.watchDamage)
		q.wg.Go(q.watchLeft)
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
	makes    slots // consumers being made in the server
	asks     slots // questions to the server

	denials   denials
	overviews overviews
	damage    damage // of an embedded server's files
	finished  finished
	fired     recent[copied, numbered] // the jobs that schedules have become last
	labels    recent[string, string]   // the ids of jobs that this process has put again, by their Nats-Msg-Id

	large atomic.Int64 // until when large answers may come, Unix nanoseconds
	// Of the stream of jobs, as last seen.
	birth  atomic.Int64
	copies atomic.Int64 // on how many servers

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	tubes  map[string]*tube  // those that have consumers here
	told   map[string]string // how streams and consumers differ harmlessly; bounded by the tubes
}

var _ interface {
	queue.Queue
	queue.Admin
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
	t := q.tubes[name]
	if t == nil {
		t = newTube(q, name)
		q.tubes[name] = t
	}
	return newConsumer(t), nil
}

// tube returns a tube that has had consumers here, or nil.
func (q *client) tube(name string) *tube {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tubes[name]
}

// lateClose is after what time it is said that an embedded server does not end. It
// is waited for all the same; see still.go.
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
			q.opts.Log.Warn("the queue's server does not end", "queue", q.opts.String())
		})
		defer late.Stop()
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
