package jetstream

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// The server's words for giving a job back. A plain one makes it the next to be
// served, but is forgotten if the server stops before that: then the job waits
// for the end of its reservation. One with a delay, be it of a nanosecond, is
// stored (nats-server: consumer.go, processNak).
var (
	wordNak       = []byte("-NAK")
	wordNakStored = []byte(`-NAK {"delay":1}`)
)

func wordNakAfter(d time.Duration) []byte { return fmt.Appendf(nil, `-NAK {"delay":%d}`, d) }

// nakAll gives jobs back that nobody holds any more, in the order of their
// tube, and waits for the server to have done so. No pull of ours may wait, or
// it would bring them right back.
func (t *tube) nakAll(ctx context.Context, jobs []*job) {
	slices.SortFunc(jobs, func(a, b *job) int { return cmp.Compare(a.d.seq, b.d.seq) })
	for _, j := range jobs {
		j.sayNak()
	}
	if len(jobs) > 0 {
		t.q.await(ctx, jobs[len(jobs)-1].address(), wordNak)
	}
}

// sayNak gives a job back that nobody holds, without waiting.
func (j *job) sayNak() {
	j.say(wordNakStored)
	j.say(wordNak)
}

// await says something to the server again, and waits for its answer: it deals
// with what is said about a tube's jobs in order.
func (q *client) await(ctx context.Context, address string, word []byte) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	if cn, _, _, err := q.link.ready(); err == nil {
		_, _ = q.request(ctx, cn, &nats.Msg{Subject: address, Data: word}) // at worst the reservation has to end
	}
}

// nak asks the server to serve the job again at once.
func (j *job) nak(ctx context.Context) error {
	t := j.c.t
	cn, err := t.q.link.get(ctx, untilReady)
	if err != nil {
		return err
	}
	t.mu.Lock()
	if j.Over() { // its stream is gone
		t.mu.Unlock()
		return nil
	}
	// Before it is sent: any consumer of ours may be served it at once.
	t.jobs.Unlist(&j.Lease)
	asking := j.c.Receiving
	t.mu.Unlock()
	if !asking { // a consumer that gives back and asks for no more is about to close
		j.c.waitQuiet(ctx)
		j.c.withdraw(ctx)
		if err := cn.publish(&nats.Msg{Subject: j.ack, Data: wordNakStored}); err != nil {
			return err
		}
	}
	_, err = t.q.request(ctx, cn, &nats.Msg{Subject: j.ack, Data: wordNak})
	return err
}

// retryEvery is the pause between two bursts of retries.
//
// Each of them makes the server look for jobs that are due not before 10 ms
// have passed, and the next one 10 ms after that (consumer.go, processNak): with
// more than a hundred a second, one by one, no job would ever come back. Several
// daemons do not know of each other's bursts, hence so much more than 10 ms.
const retryEvery = 100 * time.Millisecond

// retry is a job that is to be served again at a time.
type retry struct {
	tube  *tube
	ack   string // where to say so
	due   time.Time
	until time.Time // the reservation is ours at least so long
}

// retries sends retries in bursts. One that is not sent in time, because the
// server is away, is dropped: the job comes back when its reservation ends.
type retries struct {
	mu      sync.Mutex
	waiting []retry
	wake    event // there are some
}

func (r *retries) add(one retry) {
	r.mu.Lock()
	r.waiting = append(r.waiting, one)
	r.mu.Unlock()
	r.wake.raise()
}

// take returns what waits, which does no more.
func (r *retries) take() []retry {
	r.mu.Lock()
	defer r.mu.Unlock()
	some := r.waiting
	r.waiting = nil
	return some
}

// sendRetries is a goroutine of the queue's.
func (q *client) sendRetries() {
	for {
		select {
		case <-q.retries.wake:
		case <-q.ctx.Done():
			return
		}
		if q.sleep(q.ctx, retryEvery) != nil {
			return
		}
		q.burst(time.Now(), false)
	}
}

// burst sends all retries that wait; with wait it waits until the server has
// dealt with them.
func (q *client) burst(now time.Time, wait bool) {
	cn, _, _, err := q.link.ready()
	last := make(map[*tube]retry)
	for _, r := range q.retries.take() {
		if now.After(r.until) {
			continue
		}
		if err == nil {
			err = cn.publish(&nats.Msg{Subject: r.ack, Data: r.word(now)})
		}
		if err != nil {
			q.retries.add(r)
			continue
		}
		last[r.tube] = r
	}
	if !wait {
		return
	}
	ctx, cancel := context.WithTimeout(q.ctx, flushTime) // for all tubes together
	defer cancel()
	for _, r := range last {
		q.await(ctx, r.ack, r.word(now))
	}
}

func (r retry) word(now time.Time) []byte { return wordNakAfter(max(r.due.Sub(now), 1)) }
