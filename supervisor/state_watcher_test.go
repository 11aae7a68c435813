package supervisor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/worker"
)

// A daemon whose queue is gone is not ready, long before the watchdog's three
// periods are over, and is as soon as the queue is back.
func TestNotReadyWithoutQueue(t *testing.T) {
	w := newWorld(t, apnstest.Options{}, beanstalktest.WithBinlog())
	w.period = time.Hour
	w.start(w.app(topic, "workers: 2"))
	w.put(topic, jobBody(0))
	w.empty(topic)
	if s := w.status(topic); s.Health.State.Trouble() {
		t.Errorf("not ready: %s", s.Health)
	}
	w.bs.Kill()
	w.until("it is not ready", func() bool {
		s := w.status(topic)
		return strings.HasPrefix(s.Health.String(), "no queue: queue unavailable: ")
	})
	w.bs.Restart()
	w.until("it is ready again", func() bool { s := w.status(topic); return !s.Health.State.Trouble() })
}

// A queue that serves jobs and takes none makes the app unready, too: records
// cannot be put, for which jobs are held, nor jobs of who puts them.
func TestNotReadyWhenNothingIsTaken(t *testing.T) {
	w := newWorld(t, apnstest.Options{}, beanstalktest.WithBinlog())
	w.period = time.Hour
	w.apns.SetScript(apnstest.Always(apnstest.Answer{Status: 410, Reason: "Unregistered"}))
	const other = "com.example.other"
	w.start(w.app(topic, "feedback: {tube: records}") + w.app(other))
	if err := w.sup.Pause(topic, "until the queue drains"); err != nil {
		t.Fatal(err)
	}
	w.put(topic, jobBody(0))
	w.bs.Drain()
	if err := w.sup.Resume(topic); err != nil {
		t.Fatal(err)
	}
	w.until("it is not ready for its records", func() bool {
		s := w.status(topic)
		return strings.HasPrefix(s.Health.String(), "no queue: the queue takes no records: ") && strings.Contains(s.Health.Reason, "draining")
	})
	if s := w.status(other); s.Health.State.Trouble() {
		t.Errorf("%s: not ready before anything was put: %s", other, s.Health)
	}
	w.until("the other is not ready for its jobs", func() bool {
		if _, err := w.sup.Put(t.Context(), other, []byte(jobBody(1)), 0); err == nil {
			t.Fatal("put while the queue takes nothing")
		}
		s := w.status(other)
		return strings.HasPrefix(s.Health.String(), "no queue: the queue takes no jobs: ")
	})
	w.bs.Stop()
	w.bs.Restart()
	w.until("both are ready again", func() bool {
		_, err := w.sup.Put(t.Context(), other, []byte(jobBody(2)), 0)
		one, two := w.status(topic), w.status(other)
		return err == nil && !one.Health.State.Trouble() && !two.Health.State.Trouble()
	})
}

// Puts that fail for long enough are trouble, until one is taken or nobody puts
// any more.
func TestPutsFailing(t *testing.T) {
	t.Parallel()
	away := queue.ErrUnavailable
	for name, tt := range map[string]struct {
		ends  []error // one a second
		later time.Duration
		want  bool
	}{
		"none":                  {nil, 0, false},
		"one":                   {[]error{away}, 10 * time.Second, false},
		"for 5 s":               {[]error{away, away, away, away, away, away}, 0, true},
		"not answered":          {slices.Repeat([]error{context.DeadlineExceeded}, 6), 0, true},
		"one was taken":         {[]error{away, away, away, nil, away, away, away}, 0, false},
		"then one was taken":    {[]error{away, away, away, away, away, away, nil}, 0, false},
		"clients that hang up":  {slices.Repeat([]error{context.Canceled}, 9), 0, false},
		"jobs that are refused": {slices.Repeat([]error{queue.ErrRejected}, 9), 0, false},
		"a minute ago":          {slices.Repeat([]error{away}, 9), putsForget, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var p puts
			for _, err := range tt.ends {
				time.Sleep(time.Second)
				p.note(err, time.Now())
			}
			last := time.Now()
			time.Sleep(tt.later + time.Millisecond)
			got := judge(&snapshot{now: time.Now(), puts: p.failed.Load()}, past{})
			if (got.State == NoQueue) != tt.want {
				t.Errorf("%s: %+v", name, got)
			}
			if tt.want && last.Sub(got.Since) != time.Duration(len(tt.ends)-1)*time.Second {
				t.Errorf("%s: since %v before the last", name, last.Sub(got.Since))
			}
		})
	}
}

// Short moments without a queue or APNs, as at the start, are no trouble.
func TestAway(t *testing.T) {
	t.Parallel()
	full := worker.Status{Serving: true, Unstored: errors.New("the queue takes no records: full")}
	up, down, off := worker.Status{Serving: true}, worker.Status{Serving: true, QueueErr: errors.New("refused")}, worker.Status{}
	lost, there := worker.Status{Serving: true, Unreachable: errors.New("refused")}, worker.Status{Serving: true, Connected: true}
	now, before := time.Unix(1e9, 0), past{}
	for i, look := range []struct {
		seen  []worker.Status
		after time.Duration
		want  State
	}{
		{[]worker.Status{down, down}, 0, Idle},
		{[]worker.Status{down, off}, awayGrace - time.Second, Idle},
		{[]worker.Status{down, down}, time.Second, NoQueue},
		{[]worker.Status{up, down}, time.Hour, Idle}, // one worker that receives is enough
		{[]worker.Status{down, down}, time.Second, Idle},
		{[]worker.Status{off, off}, awayGrace, Idle}, // that is for the watchdog
		{[]worker.Status{down, down}, time.Second, Idle},
		{[]worker.Status{down, down}, awayGrace, NoQueue},
		{[]worker.Status{up, up}, time.Second, Idle},
		{[]worker.Status{up, full}, time.Second, Idle},
		{[]worker.Status{up, full}, awayGrace, NoQueue}, // its jobs are held
		{[]worker.Status{up, lost}, time.Second, Idle},
		{[]worker.Status{lost, up}, downGrace - time.Second, Idle}, // another worker has tried
		{[]worker.Status{up, lost}, time.Second, Unreachable},
		{[]worker.Status{there, lost}, time.Second, Idle}, // one worker that reaches APNs is enough
		{[]worker.Status{lost, lost}, time.Second, Idle},
		{[]worker.Status{up, up}, downGrace, Idle}, // nobody tries
		{[]worker.Status{lost, down}, time.Second, Idle},
		{[]worker.Status{lost, down}, downGrace, Unreachable},
	} {
		now = now.Add(look.after)
		before = before.after(&snapshot{now: now, workers: look.seen})
		if got := before.health; got.State != look.want {
			t.Errorf("look %d: %+v, want %s", i, got, look.want)
		}
	}
}
