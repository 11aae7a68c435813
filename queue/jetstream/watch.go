package jetstream

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// A sleeping tube has no consumer in the server. Three things wake it, of which each sees what
// the one before does not:
//
//   - this process puts a job into it: woken;
//   - anybody publishes on its subject: a subscription, as long as it sleeps;
//   - the stream has stored something, which its number of the last message shows, asked for
//     every watchEvery: a schedule came due, or something was put while the connection was
//     lost, or while nobody read what the subscriptions brought. Then the subjects that have
//     jobs are listed; see watch_look.go.
//
// Busy tubes are not subscribed to: their jobs would come twice.

const (
	// watchEvery is how often the stream is asked for its last message.
	watchEvery = 250 * time.Millisecond
	// watchRoom is how many messages may wait for read. What comes beyond that is dropped,
	// and the next look at the stream finds the tubes that have it.
	watchRoom = 4096
)

// watch is a queue.Watch. read takes what the subscriptions bring, and keep does all else.
type watch struct {
	q        *client
	sleepers *queue.Sleepers
	messages chan *nats.Msg
	look     event
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	denied   atomic.Pointer[error] // why tubes cannot be subscribed to

	gate sync.Mutex // held while a tube is woken
	over bool       // under gate: nothing is woken any more

	mu      sync.Mutex
	changed map[string]struct{} // tubes that have fallen asleep or woken up since keep looked
	err     error

	// Only for keep.
	subs    map[string]*nats.Subscription
	allowed bool      // to subscribe
	told    bool      // that it is not
	asked   time.Time // whether it is after all
	epoch   int       // of the link, when the jobs were last listed
	seen    lastMessage
}

// Watch implements queue.Watcher.
func (q *client) Watch(wake func(tube string)) queue.Watch {
	w := newWatch(q, wake)
	q.setWatches(func(all []*watch) []*watch { return append(all, w) })
	w.wg.Go(w.read)
	w.wg.Go(w.keep)
	return w
}

// newWatch is a watch that does nothing yet.
func newWatch(q *client, wake func(tube string)) *watch {
	w := &watch{
		q: q, messages: make(chan *nats.Msg, watchRoom), look: newEvent(),
		changed: make(map[string]struct{}), subs: make(map[string]*nats.Subscription),
	}
	w.sleepers = queue.NewSleepers(func(tube string) {
		w.gate.Lock()
		defer w.gate.Unlock()
		if !w.over {
			wake(tube)
		}
	})
	w.ctx, w.cancel = context.WithCancel(q.ctx)
	return w
}

// Empty implements queue.Watcher. All jobs but the delayed and the buried ones are on the
// tube's subject, whoever holds them and for whatever they wait.
func (q *client) Empty(ctx context.Context, tube string) (bool, error) {
	cn, err := q.reach(ctx, tube)
	if err != nil {
		return false, err
	}
	if err := q.barrier(ctx, cn, tube); err != nil {
		return false, adminError(ctx, err)
	}
	n, err := q.countOne(ctx, cn, jobSubject(tube))
	return n == 0 && err == nil, adminError(ctx, err)
}

// setWatches replaces the queue's watches, which woken reads without a lock.
func (q *client) setWatches(change func([]*watch) []*watch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []*watch
	if old := q.watches.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if all = change(all); len(all) == 0 {
		q.watches.Store(nil)
		return
	}
	q.watches.Store(&all)
}

// eachWatch calls f for the queue's watches.
func (q *client) eachWatch(f func(*watch)) {
	if all := q.watches.Load(); all != nil {
		for _, w := range *all {
			f(w)
		}
	}
}

// woken wakes a tube that this process has put a job into, or may have.
func (q *client) woken(tube string) {
	if all := q.watches.Load(); all != nil {
		for _, w := range *all {
			w.wake(tube)
		}
	}
}

// wake wakes a tube if it sleeps.
func (w *watch) wake(tube string) {
	if w.sleepers.Wake(tube) {
		w.change(tube)
	}
}

// change has keep look at tubes.
func (w *watch) change(tubes ...string) {
	w.mu.Lock()
	for _, tube := range tubes {
		w.changed[tube] = struct{}{}
	}
	w.mu.Unlock()
	w.look.raise()
}

// Sleep implements queue.Watch. A tube sleeps from here on for what this process puts; what
// was there before is looked for when it has been subscribed to.
func (w *watch) Sleep(tubes ...string) {
	if w.ctx.Err() != nil {
		return
	}
	var added []string
	for _, tube := range tubes {
		if queue.CheckTube(tube) == nil && w.sleepers.Add(tube) { // others never have a consumer
			added = append(added, tube)
		}
	}
	w.change(added...)
}

// Forget implements queue.Watch.
func (w *watch) Forget(tubes ...string) {
	for _, tube := range tubes {
		w.sleepers.Remove(tube)
	}
	w.change(tubes...)
}

// Err implements queue.Watch.
func (w *watch) Err() error {
	if _, _, _, err := w.q.link.ready(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close implements queue.Watch.
func (w *watch) Close() {
	w.gate.Lock()
	w.over = true
	w.gate.Unlock()
	w.q.setWatches(func(all []*watch) []*watch {
		return slices.DeleteFunc(all, func(other *watch) bool { return other == w })
	})
	w.cancel()
	w.wg.Wait()
}

// read wakes the tubes that something is published to.
func (w *watch) read() {
	for {
		select {
		case m := <-w.messages:
			w.heard(m)
		case <-w.ctx.Done():
			return
		}
	}
}

func (w *watch) heard(m *nats.Msg) {
	if tube, ok := strings.CutPrefix(m.Subject, jobPrefix); ok {
		w.wake(tube)
	}
}

// subscribeAtOnce is how many tubes are subscribed to before the server's word is waited for.
// A refusal is a line for each of them, of which the wire takes lineBurst.
const subscribeAtOnce = 500

// subscribe has those tubes subscribed to that sleep, and only those. It returns the ones that
// have fallen asleep since the last time.
func (w *watch) subscribe(cn *conn) (asleep []string) {
	w.mu.Lock()
	changed := w.changed
	w.changed = make(map[string]struct{})
	w.mu.Unlock()
	n := 0
	for tube := range changed {
		sub := w.subs[tube]
		if !w.sleepers.Has(tube) {
			if sub != nil {
				_ = sub.Unsubscribe() // an error: it is closed
				delete(w.subs, tube)
			}
			continue
		}
		asleep = append(asleep, tube)
		if sub != nil || w.denied.Load() != nil {
			continue
		}
		before := cn.nc.LastError()
		sub, err := cn.nc.ChanSubscribe(jobSubject(tube), w.messages)
		if err != nil { // it is closed
			continue
		}
		w.subs[tube] = sub
		if n++; !w.allowed || n%subscribeAtOnce == 0 {
			w.askAllowed(cn, before)
		}
	}
	return asleep
}

// askAllowed waits for what the server has to say about the last subscription. before is what
// it said before.
func (w *watch) askAllowed(cn *conn, before error) {
	ctx, cancel := context.WithTimeout(w.ctx, w.q.opts.timeout)
	defer cancel()
	if err := cn.nc.FlushWithContext(ctx); err != nil {
		return // the next one asks again
	}
	if err := cn.nc.LastError(); err != nil && err != before {
		w.q.denyWatch(err) // nats.go says so too, a little later
	}
	if w.allowed = w.denied.Load() == nil; w.allowed {
		w.told = false
	}
}

func (w *watch) unsubscribeAll() {
	for _, sub := range w.subs {
		_ = sub.Unsubscribe()
	}
	clear(w.subs)
}

// denyWatch notes that the server does not let tubes be subscribed to, if err says so. known
// says that it did, and that the watches say what there is to be said.
func (q *client) denyWatch(err error) (known bool) {
	var why error
	if parts := violation.FindStringSubmatch(err.Error()); errors.Is(err, nats.ErrPermissionViolation) && parts != nil {
		if !strings.EqualFold(parts[1], "subscription") || !strings.HasPrefix(parts[2], jobPrefix) {
			return false
		}
		why, known = &deniedError{"subscribe to", jobPrefix + ">"}, true
	} else if errors.Is(err, nats.ErrMaxSubscriptionsExceeded) {
		why = errors.New("the queue's account may not have so many subscriptions: raise its limit")
	} else {
		return false
	}
	q.eachWatch(func(w *watch) {
		w.denied.Store(&why)
		w.look.raise()
	})
	return known
}

// ofWatch says whether an error of the connection concerns only what wakes tubes.
func (q *client) ofWatch(sub *nats.Subscription, err error) bool {
	if errors.Is(err, nats.ErrSlowConsumer) && sub != nil && strings.HasPrefix(sub.Subject, jobPrefix) {
		return true // see watchRoom
	}
	return q.denyWatch(err)
}
