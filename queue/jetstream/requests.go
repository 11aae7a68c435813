package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// calls matches answers to requests. They all come in on one subscription.
type calls struct {
	inbox string // what subjects of answers begin with: "_INBOX.xyz."
	api   string // what those of questions begin with: "$JS.API."

	// changes counts what may have changed the queue: answers to requests that
	// were not only questions, and what else says so.
	changes atomic.Uint64

	mu   sync.Mutex
	next uint64
	open map[uint64]*call
}

// call is one request under way.
type call struct {
	subject string    // of the request
	until   time.Time // an answer after this is of no use
	asks    bool      // it is a question and changes nothing
	// done is called once, by the goroutine of the subscription or of who ends
	// the call; it must not block.
	done func(m *nats.Msg, err error)
}

func newCalls(o Options) *calls {
	return &calls{inbox: o.newInbox(), api: o.apiPrefix(), open: make(map[uint64]*call)}
}

// errNoAnswer: the request may have been carried out.
var errNoAnswer = fmt.Errorf("jetstream: no answer in time: %w", queue.ErrUnavailable)

// start enters a call and returns the subject for its answer.
func (cs *calls) start(c *call) (id uint64, reply string) {
	cs.mu.Lock()
	cs.next++
	id = cs.next
	cs.open[id] = c
	cs.mu.Unlock()
	b := make([]byte, 0, 64)
	b = append(b, cs.inbox...)
	return id, string(strconv.AppendUint(b, id, 36))
}

// end takes a call out; nil when it has ended already.
func (cs *calls) end(id uint64) *call {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.open[id]
	delete(cs.open, id)
	return c
}

// answer gives a message of the subscription to the call that waits for it.
func (cs *calls) answer(token string, m *nats.Msg) {
	id, err := strconv.ParseUint(token, 36, 64)
	if err != nil {
		return
	}
	if c := cs.end(id); c != nil {
		if !c.asks {
			cs.changes.Add(1)
		}
		if noResponders(m) {
			c.done(nil, errNoResponders)
			return
		}
		c.done(m, nil)
	}
}

// fail ends the calls whose time is over at a time, and counts them.
func (cs *calls) fail(at time.Time, err error) int {
	return cs.endAll(err, func(c *call) bool { return c.until.Before(at) })
}

func (cs *calls) endAll(err error, which func(*call) bool) int {
	var failed []*call
	cs.mu.Lock()
	for id, c := range cs.open {
		if which(c) {
			delete(cs.open, id)
			failed = append(failed, c)
		}
	}
	cs.mu.Unlock()
	for _, c := range failed {
		c.done(nil, err)
	}
	return len(failed)
}

// errNoResponders: no stream or consumer listens, perhaps because its leader is
// being elected. The request was not carried out.
var errNoResponders = fmt.Errorf("jetstream: no answer, the stream has no leader or is gone: %w", queue.ErrUnavailable)

// notSentError: the request was not carried out because it was never sent.
type notSentError struct{ err error }

func (e *notSentError) Error() string   { return "jetstream: not sent: " + e.err.Error() }
func (e *notSentError) Unwrap() []error { return []error{queue.ErrUnavailable, e.err} }

// notDone says whether the request that failed with err was surely not carried
// out.
func notDone(err error) bool {
	_, unsent := errors.AsType[*notSentError](err)
	_, denied := errors.AsType[*deniedError](err)
	return unsent || denied || errors.Is(err, errNoResponders)
}

// answer is what a waiting caller gets.
type answer struct {
	m   *nats.Msg
	err error
}

var answerChans = sync.Pool{New: func() any { return make(chan answer, 1) }}

// request sends m and waits for the answer, for q.opts.timeout at most. When
// ctx ends first, the request may still be carried out.
func (q *client) request(ctx context.Context, cn *conn, m *nats.Msg) (*nats.Msg, error) {
	return q.requestWithin(ctx, cn, m, q.opts.timeout)
}

// requestWithin is request with its own time limit; the renewal loop checks it about once
// a second.
func (q *client) requestWithin(ctx context.Context, cn *conn, m *nats.Msg, limit time.Duration) (*nats.Msg, error) {
	ch := answerChans.Get().(chan answer)
	id, reply := q.calls.start(&call{
		subject: m.Subject,
		until:   time.Now().Add(limit),
		asks:    strings.HasPrefix(m.Subject, q.calls.api), // of these we only use what informs
		done:    func(m *nats.Msg, err error) { ch <- answer{m, err} },
	})
	defer answerChans.Put(ch)
	m.Reply = reply
	err := cn.publish(m)
	if err == nil {
		select {
		case a := <-ch:
			if a.err == nil && q.calls.streamMissing(m.Subject, a.m.Data) {
				q.streamGone(m.Subject)
			}
			return a.m, a.err
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if q.calls.end(id) == nil {
		<-ch // ended by somebody else
	}
	return nil, err
}

var errStreamGone = fmt.Errorf("jetstream: a stream is gone: %w", queue.ErrUnavailable)

// streamGone has the stream created again that the subject asked for. Only burials
// wait for the one of buried jobs.
func (q *client) streamGone(subject string) {
	if strings.HasSuffix(subject, "."+buriedStream) {
		q.link.look()
	} else {
		q.link.doubt(errStreamGone)
	}
}

// streamMissing says whether a question was answered so (nats-server: errors.json,
// 10059).
func (cs *calls) streamMissing(subject string, answer []byte) bool {
	return strings.HasPrefix(subject, cs.api) && len(answer) < 1<<10 && bytes.Contains(answer, []byte(`"err_code":10059`))
}

// publish sends m, or says that it was not sent.
func (cn *conn) publish(m *nats.Msg) error {
	var err error
	switch {
	case len(m.Header) > 0:
		err = cn.nc.PublishMsg(m)
	case m.Reply != "":
		err = cn.nc.PublishRequest(m.Subject, m.Reply, m.Data)
	default:
		err = cn.nc.Publish(m.Subject, m.Data)
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("jetstream: %d bytes: the server takes %d: %w", len(m.Data), cn.nc.MaxPayload(), queue.ErrRejected)
	}
	if err != nil {
		return &notSentError{err}
	}
	return nil
}

// answered is the callback of the subscription for answers.
func (q *client) answered(m *nats.Msg) {
	if token, ok := strings.CutPrefix(m.Subject, q.calls.inbox); ok { // by the number of the subscription it may be any
		q.calls.answer(token, m)
	}
}

// status is the code of a message without content, such as 404; 0 for others.
func status(m *nats.Msg) int {
	n, _ := strconv.Atoi(m.Header.Get("Status"))
	return n
}

func noResponders(m *nats.Msg) bool { return len(m.Data) == 0 && status(m) == 503 }

const (
	// Messages that nats.go has read and we have not looked at yet. More than that
	// comes only from a server that sends what nobody asked for: nats.go drops it.
	maxPending      = 64 << 10
	maxPendingBytes = 256 << 20

	// maxStray is how many more jobs than are wanted may wait: those of pulls that
	// were given up. Others are given back at once.
	maxStray = 2 * maxBatch

	// largeWait is how long a large answer may take.
	largeWait = time.Minute

	maxStack = 8 << 10 // what is logged of a panic's stack
)

// guarded is for callbacks, which run on a goroutine of nats.go. A panic over what
// a server has said ends the connection, and not the process.
func (q *client) guarded(f func(*nats.Msg)) nats.MsgHandler {
	return func(m *nats.Msg) {
		defer func() {
			if v := recover(); v != nil {
				q.link.suspect(unavailable(q.panicked(v)))
				if cn, _, _, _ := q.link.ready(); cn != nil {
					_ = cn.nc.ForceReconnect() // an error: it is closed
				}
			}
		}()
		f(m)
	}
}

// panicked is the error for a panic over what a server has said.
func (q *client) panicked(v any) error {
	stack := debug.Stack()
	q.opts.Log.Error("panic over a message of the queue", "queue", q.opts.String(), "panic", v, "stack", string(stack[:min(len(stack), maxStack)]))
	return fmt.Errorf("panic over a message: %v", v)
}

// expectLarge has answers of more than maxAnswer bytes be let through for a while:
// a list of subjects, or a job, is to be asked for.
func (q *client) expectLarge() { q.large.Store(time.Now().Add(largeWait).UnixNano()) }

// expectsLarge is for the wire.
func (q *client) expectsLarge() bool { return time.Now().UnixNano() < q.large.Load() }

// roomLocked reports whether one more job may wait.
func (c *consumer) roomLocked(body []byte) bool {
	if len(c.Waiting) >= c.Want+maxStray {
		return false
	}
	if len(body) <= maxPendingBytes/maxPending {
		return true
	}
	size := len(body)
	for _, j := range c.Waiting {
		size += len(j.body)
	}
	return size <= maxPendingBytes || len(c.Waiting) == 0
}
