package supervisor

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/worker"
)

// A daemon whose queue is gone is not ready, long before the watchdog's three
// periods are over, and is as soon as the queue is back.
func TestNotReadyWithoutQueue(t *testing.T) {
	w := newWorld(t, apnstest.Options{}, beanstalktest.WithBinlog())
	w.period = time.Hour
	w.start(w.app(topic, "workers: 2"))
	w.put(topic, job(0))
	w.empty(topic)
	if s := w.status(topic); s.Trouble() != "" {
		t.Errorf("not ready: %s", s.Trouble())
	}
	w.bs.Kill()
	w.until("it is not ready", func() bool { s := w.status(topic); return strings.HasPrefix(s.Trouble(), "queue unavailable: ") })
	w.bs.Restart()
	w.until("it is ready again", func() bool { s := w.status(topic); return s.Trouble() == "" })
}

// Moments without a queue, as at the start, do not make an app unready.
func TestQueueAway(t *testing.T) {
	t.Parallel()
	up, down, off := worker.Status{Serving: true}, worker.Status{Serving: true, QueueErr: errors.New("refused")}, worker.Status{}
	synctest.Test(t, func(t *testing.T) {
		a := new(app)
		for i, look := range []struct {
			seen  []worker.Status
			after time.Duration
			away  bool
		}{
			{[]worker.Status{down, down}, 0, false},
			{[]worker.Status{down, off}, awayGrace - time.Second, false},
			{[]worker.Status{down, down}, time.Second, true},
			{[]worker.Status{up, down}, time.Hour, false}, // one that receives will do
			{[]worker.Status{down, down}, time.Second, false},
			{[]worker.Status{off, off}, awayGrace, false}, // the watchdog's matter
			{[]worker.Status{down, down}, time.Second, false},
			{[]worker.Status{down, down}, awayGrace, true},
		} {
			time.Sleep(look.after)
			a.noteQueue(look.seen, time.Now())
			if got := a.queueAway(look.seen, time.Now()); (got != nil) != look.away {
				t.Errorf("look %d: %+v", i, got)
			}
		}
	})
}
