package beanstalk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"propeller/queue"
)

// Open returns a queue over the given servers. It does not connect: servers
// that are down are dialled again, forever, whenever one is needed.
// The result also implements queue.Admin, queue.Watcher and queue.Counter.
func Open(o Options) (queue.Queue, error) {
	return open(o, dialTCP)
}

// dialFunc opens the network connection to a server.
type dialFunc func(ctx context.Context, addr string) (net.Conn, error)

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	nc, err := d.DialContext(ctx, "tcp", addr)
	// The end of ctx's time ends a dial as well, and may do so a moment before ctx is told.
	if end, ok := ctx.Deadline(); err != nil && ok && !time.Now().Before(end) {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return nc, err
}

// dialTimeout bounds one attempt to connect, name look-up included.
const dialTimeout = 5 * time.Second

func open(o Options, dial dialFunc) (*client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	q := &client{opts: o, closed: make(chan struct{})}
	for _, addr := range o.Addrs {
		q.servers = append(q.servers, newServer(q, addr, dial))
	}
	return q, nil
}

// client is the queue.Queue over one or several servers.
type client struct {
	opts    Options
	servers []*server

	closing sync.Once
	closed  chan struct{}

	watching sync.Mutex               // held to change watches
	watches  atomic.Pointer[[]*watch] // those open
}

var _ interface {
	queue.Queue
	queue.Admin
	queue.Watcher
	queue.Counter
} = (*client)(nil)

// Consume implements queue.Queue: one connection per server, opened at once
// and reopened for ever.
func (q *client) Consume(tube string) (queue.Consumer, error) {
	if err := queue.CheckTube(tube); err != nil {
		return nil, err
	}
	if q.isClosed() {
		return nil, errQueueClosed
	}
	return newConsumer(q, tube), nil
}

// Close implements queue.Queue.
func (q *client) Close() error {
	q.closing.Do(func() { close(q.closed) })
	for _, w := range q.openWatches() {
		w.Close()
	}
	for _, srv := range q.servers {
		srv.close()
	}
	return nil
}

func (q *client) isClosed() bool {
	select {
	case <-q.closed:
		return true
	default:
		return false
	}
}

// several says whether there is more than one server: ids then need the
// server's address to be unique.
func (q *client) several() bool { return len(q.servers) > 1 }

// jobID is the id of a job for the outside: the number beanstalkd gave it, and
// with several servers host:port/number.
func (srv *server) jobID(id uint64) string {
	n := strconv.FormatUint(id, 10)
	if srv.q.several() {
		return srv.addr + "/" + n
	}
	return n
}

var errQueueClosed = fmt.Errorf("beanstalk: queue is closed: %w", queue.ErrUnavailable)

const (
	// ttr is the time to run of jobs put by this process: how long a worker of any
	// program may hold one without a sign of life.
	ttr = 120 * time.Second
	// reservers is how many reserve commands one consumer keeps under way per server
	// when a tube is full: jobs per second × round trip in seconds.
	reservers = 32
	// answerTime is how long a server may leave a command unanswered before its
	// connection is given up.
	answerTime = 10 * time.Second
)

// Options configure Open.
type Options struct {
	// Addrs are the servers, host:port, each once. Names are looked up at
	// every connect.
	Addrs []string
	// Log gets one line per change of a connection's state. nil: no log.
	Log *slog.Logger

	ttr, timeout time.Duration // tests have them shorter
}

// withDefaults returns o complete.
func (o Options) withDefaults() (Options, error) {
	if len(o.Addrs) == 0 {
		return o, errors.New("beanstalk: no server address")
	}
	o.ttr, o.timeout = cmp.Or(o.ttr, ttr), cmp.Or(o.timeout, answerTime)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o, nil
}

// maxSeconds is the longest time the protocol can say: delays and TTRs are
// unsigned 32-bit seconds (beanstalkd protocol.txt, put).
const maxSeconds = 1<<32 - 1

// wholeSeconds rounds d up to whole seconds: go-beanstalk cuts, so that half a
// second of delay would be none. The result is between 0 and maxSeconds.
func wholeSeconds(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	n := (d-1)/time.Second + 1 // (d+999ms)/1s without the overflow
	return min(n, maxSeconds) * time.Second
}
