package supervisor

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/queue"
)

// slowQueue counts the consumers of feedback tubes, which take their time to end.
type slowQueue struct {
	adminQueue
	mu             sync.Mutex
	begun, at, max int
}

type slowConsumer struct {
	queue.Consumer
	q *slowQueue
}

func (q *slowQueue) Consume(tube string) (queue.Consumer, error) {
	c, err := q.adminQueue.Consume(tube)
	if err != nil || !strings.HasSuffix(tube, ".feedback") {
		return c, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.begun++
	q.at++
	q.max = max(q.max, q.at)
	return &slowConsumer{c, q}, nil
}

func (c *slowConsumer) Close(ctx context.Context) error {
	time.Sleep(500 * time.Millisecond)
	c.q.mu.Lock()
	c.q.at--
	c.q.mu.Unlock()
	return c.Consumer.Close(ctx)
}

func (q *slowQueue) has(begun int) func() bool {
	return func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.begun >= begun && q.at == 1
	}
}

// However reloads follow each other, one webhook at a time serves a tube: the
// order of the records depends on it.
func TestOneWebhookAtATime(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	q := new(slowQueue)
	w.wrap = func(a adminQueue) adminQueue { q.adminQueue = a; return q }
	r := newReceiver(t)
	w.start(w.app(topic, hooked(r)))
	w.until("the first webhook serves", q.has(1))
	w.apply(w.app(topic, hooked(r), "in_flight: 7"))
	w.apply(w.app(topic, hooked(r), "in_flight: 8")) // before the second could begin
	w.until("the third serves", q.has(2))
	w.apply(w.app("com.example.other"))
	w.apply(w.app(topic, hooked(r))) // taken out and put back
	w.until("the fourth serves", q.has(3))
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.max != 1 {
		t.Errorf("%d webhooks at once", q.max)
	}
}

// A webhook whose consumer receives nothing is restarted; and if that does not
// help it shows, makes nothing unready, and does not keep the daemon from ending.
func TestWatchdogRestartsADeafWebhook(t *testing.T) {
	for name, deaf := range map[string]int{"once": 1, "for ever": 1_000_000} {
		t.Run(name, func(t *testing.T) {
			const n = 20
			w := newWorld(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 410, Reason: "Unregistered"})})
			w.period = period
			w.deafen(topic+".feedback", int64(deaf))
			r := newReceiver(t)
			w.start(w.app(topic, hooked(r), "push_timeout: 1s"))
			w.putMany(topic, n)
			w.empty(topic)
			w.until("the webhook is restarted", func() bool { return w.status(topic).Webhook.Steps.Restarted.Load() > 0 })
			if deaf == 1 {
				w.until("all records have arrived", r.has(n))
			} else {
				w.until("the webhook stalls", func() bool { return w.status(topic).Webhook.Stalled != nil })
				begun := time.Now()
				w.halt()
				if took := time.Since(begun); took > patience/2 {
					t.Errorf("the end took %v", took)
				}
			}
			s := w.status(topic)
			if s.Health.State.Trouble() || s.Steps.Restarted.Load() != 0 {
				t.Errorf("not ready: %s, %d workers restarted", s.Health, s.Steps.Restarted.Load())
			}
			if w.log.contains("ended unexpectedly") {
				t.Error("suture has taken the restart for a failure")
			}
		})
	}
}

// How many records wait in a feedback tube is told, webhook or not.
func TestRecordsWaiting(t *testing.T) {
	const n = 20
	w := newWorld(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 410, Reason: "Unregistered"})})
	w.period = period
	w.start(w.app(topic, "feedback: {tube: dead}") + w.app("com.example.other"))
	w.putMany(topic, n)
	w.until("all records are counted", func() bool { r := w.status(topic).Records; return r != nil && r.Ready == n })
	if s := w.status("com.example.other"); s.Records != nil {
		t.Errorf("records of an app without feedback: %+v", s.Records)
	}
}
