package supervisor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// soon has apps sleep as soon as they have nothing to do.
var soon = sleepTimes{after: time.Millisecond, every: 5 * time.Millisecond, turn: 100 * time.Millisecond} // never written to

func (w *world) asleep(topics ...string) func() bool {
	return func() bool {
		for _, topic := range topics {
			if !w.status(topic).Asleep {
				return false
			}
		}
		return true
	}
}

// Apps sleep until they have a job, and then again; what is known of them stays.
func TestAppsSleep(t *testing.T) {
	const other = "com.example.other"
	w := newWorld(t, apnstest.Options{})
	w.sleeps = soon
	apps := w.app(topic, "workers: 2") + w.app(other)
	w.start(apps)
	<-w.sup.Started()
	if s := w.status(topic); !s.Asleep || len(s.Workers) != 2 || s.Workers[0].Serving || s.Health.State != Idle {
		t.Errorf("%+v", s)
	}
	for n := range 3 {
		w.put(topic, jobBody(n))
		w.until("it is delivered", func() bool { return w.ended(topic, apnsconn.Delivered) == int64(n+1) })
		w.until("the app sleeps", w.asleep(topic))
		w.until("its connection is closed", func() bool { return w.apns.Conns() == 0 })
	}
	if err := w.sup.Pause(topic, "paused by a test"); err != nil {
		t.Fatal(err)
	}
	w.apply(w.app(topic, "workers: 3") + w.app(other))
	if s := w.status(topic); !s.Asleep || len(s.Workers) != 3 || !s.Paused.Paused {
		t.Errorf("%+v", s)
	}
	w.put(topic, jobBody(3))
	if err := w.sup.Resume(topic); err != nil {
		t.Fatal(err)
	}
	w.eachLater(4)
	if s, ok := w.sup.AppStatus(other); !ok || s.Name != other || !s.Asleep || s.Counters.Dials.Load() != 0 {
		t.Errorf("the other app: %+v", s)
	}
	w.apply(w.app(other))
	if s, ok := w.sup.AppStatus(topic); ok {
		t.Errorf("an app that is gone: %+v", s)
	}
	w.put(topic, jobBody(5))
	w.put(other, jobBody(4))
	w.eachLater(5)
}

// eachLater waits until pushes 0…n-1 are delivered, and fails unless each is, once.
func (w *world) eachLater(n int) {
	w.t.Helper()
	w.until("all are delivered", func() bool { return len(w.received()) >= n })
	w.eachOnce(n)
}

// Jobs that come while an app goes to sleep or wakes are served, whoever puts them.
func TestJobsWhileFallingAsleep(t *testing.T) {
	const n = 300
	w := newWorld(t, apnstest.Options{})
	w.sleeps = soon
	w.start(w.app(topic))
	for i := range n {
		time.Sleep(time.Duration(rand.Int64N(int64(20 * time.Millisecond))))
		if i%2 == 0 {
			w.put(topic, jobBody(i))
		} else if _, err := w.sup.Put(t.Context(), topic, []byte(jobBody(i)), 0); err != nil {
			t.Fatal(err)
		}
	}
	w.eachLater(n)
	w.until("it sleeps", w.asleep(topic))
}

// The same on an embedded queue, where retries need their consumer.
func TestRetriesWhileFallingAsleep(t *testing.T) {
	const n = 60
	refused := make(map[string]bool)
	var mu sync.Mutex
	script := func(r *apnstest.Request) apnstest.Answer {
		mu.Lock()
		defer mu.Unlock()
		if !refused[r.Token] {
			refused[r.Token] = true
			return apnstest.Answer{Status: 503, Reason: "ServiceUnavailable"}
		}
		return apnstest.Answer{Status: 200}
	}
	w := newWorld(t, apnstest.Options{Script: script})
	w.sleeps = soon
	w.queue = "embedded://" + t.TempDir()
	w.start(w.app(topic))
	for i := range n {
		time.Sleep(time.Duration(rand.Int64N(int64(10 * time.Millisecond))))
		if _, err := w.sup.Put(t.Context(), topic, []byte(jobBody(i)), 0); err != nil {
			t.Fatal(err)
		}
	}
	w.eachLater(n)
	w.until("it sleeps", w.asleep(topic))
}

// A record wakes the webhook of an app that sleeps.
func TestRecordWakesTheWebhook(t *testing.T) {
	w := newWorld(t, apnstest.Options{Script: apnstest.Always(apnstest.Answer{Status: 410, Reason: "Unregistered"})})
	w.sleeps = soon
	r := newReceiver(t)
	w.start(w.app(topic, hooked(r)))
	for n := range 3 {
		w.put(topic, jobBody(n))
		w.until("the webhook has the record", func() bool { return w.status(topic).Webhook.Counters.Delivered.Load() == int64(n+1) })
		w.until("the app sleeps", w.asleep(topic))
	}
}

// If open files are short apps take turns, and each gets its own.
func TestAppsTakeTurns(t *testing.T) {
	const apps, each = 8, 50
	w := newWorld(t, apnstest.Options{})
	w.sleeps, w.files = soon, 4 // two apps
	w.sleeps.after = time.Hour
	var text strings.Builder
	for i := range apps {
		text.WriteString(w.app(fmt.Sprint("com.example.app", i)))
	}
	for i := range apps * each {
		w.put(fmt.Sprint("com.example.app", i%apps), jobBody(i))
	}
	w.start(text.String())
	most := 0
	w.until("all are delivered", func() bool {
		w.sup.mu.Lock()
		most = max(most, w.sup.sleep.files)
		w.sup.mu.Unlock()
		return len(w.received()) == apps*each
	})
	w.eachOnce(apps * each)
	if most > w.files {
		t.Errorf("apps had %d files, at most %d are allowed", most, w.files)
	}
	if !w.log.contains("more apps have jobs than open files allow") {
		t.Error("the log does not say so")
	}
	w.until("the log says that it is over", func() bool { return w.log.contains("no app waits for open files any more") })
}

// deafQueue is a queue that wakes nobody.
type deafQueue struct{ sleepingQueue }

// sleepingQueue is what the engines are, besides adminQueue.
type sleepingQueue interface {
	adminQueue
	queue.Watcher
	queue.Counter
}

func (d deafQueue) Watch(func(string)) queue.Watch { return d.sleepingQueue.Watch(func(string) {}) }

// The watchdog wakes an app that sleeps although it has jobs.
func TestWatchdogWakesAnApp(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.period = 200 * time.Millisecond
	w.wrap = func(q adminQueue) adminQueue { return deafQueue{q.(sleepingQueue)} }
	w.start(w.app(topic))
	w.put(topic, jobBody(0))
	w.until("it is woken", func() bool { return w.log.contains("an app sleeps although its tube has jobs") })
	w.eachLater(1)
}

// While the queue is away an app that sleeps says so.
func TestSleeperWithoutQueue(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.start(w.app(topic))
	<-w.sup.Started()
	w.bs.Kill()
	w.until("it says so", func() bool { return w.status(topic).Health.State == NoQueue })
	w.bs.Restart()
	w.until("it is well", func() bool { return w.status(topic).Health.State == Idle })
	if !w.status(topic).Asleep {
		t.Error("it is awake")
	}
}

// At most aSecond pass within any second, in their order; who would be too late is told at once.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p pace
		var times []time.Time
		for i := range 5 * aSecond {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Now())
			if i >= aSecond && times[i].Sub(times[i-aSecond]) < time.Second {
				t.Fatalf("%d within %v", aSecond+1, times[i].Sub(times[i-aSecond]))
			}
		}
		if took := times[len(times)-1].Sub(times[0]); took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := p.wait(late); err != context.DeadlineExceeded || late.Err() != nil {
			t.Errorf("%v", err)
		}
	})
}

// An app that waits long for open files is in trouble, and says why.
func TestWaitingForFilesShows(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for since, want := range map[time.Duration]State{time.Second: Running, 2 * waitGrace: Unreachable} {
		h := judge(&snapshot{now: now, waits: now.Add(-since), active: now}, past{})
		if h.State != want || want == Unreachable && (!strings.Contains(h.Reason, "open files") || !h.Since.Equal(now.Add(-since))) {
			t.Errorf("after %v: %+v", since, h)
		}
	}
}

// counted waits until the open files that are counted are those of the apps that are awake.
func (w *world) counted() {
	w.t.Helper()
	w.until("files are counted for the apps that are awake", func() bool {
		w.sup.mu.Lock()
		defer w.sup.mu.Unlock()
		sum := 0
		for a := range w.sup.sleep.awake {
			sum += w.sup.cost(a)
		}
		return sum == w.sup.sleep.files
	})
}

// A reload that removes an app, or some of its workers, makes room for one that waits.
func TestReloadMakesRoom(t *testing.T) {
	const other = "com.example.other"
	w := newWorld(t, apnstest.Options{})
	w.sleeps = sleepTimes{after: time.Hour, every: 20 * time.Millisecond, turn: time.Hour}
	w.files = 4
	first, second := w.app(topic, "workers: 2"), w.app(other)
	w.start(first + second)
	w.put(topic, jobBody(0))
	w.until("the first works", func() bool { return w.ended(topic, apnsconn.Delivered) == 1 })
	w.put(other, jobBody(1))
	w.apply(strings.Replace(first, "workers: 2", "workers: 1", 1) + second)
	w.until("the other works", func() bool { return w.ended(other, apnsconn.Delivered) == 1 })
	w.counted()
	w.apply(second)
	w.put(other, jobBody(2))
	w.eachLater(3)
	w.counted()
}

// Paused apps with jobs do not wake, and so take no room from others; resumed ones do.
func TestPausedAppsSleep(t *testing.T) {
	const n = 6
	w := newWorld(t, apnstest.Options{})
	w.sleeps, w.files = soon, 4
	w.period = 100 * time.Millisecond
	text := w.app(topic)
	paused := make([]string, n)
	for i := range n {
		paused[i] = fmt.Sprint("com.example.paused", i)
		text += w.app(paused[i])
	}
	w.start(text)
	<-w.sup.Started()
	for i, name := range paused {
		if err := w.sup.Pause(name, "paused by a test"); err != nil {
			t.Fatal(err)
		}
		w.put(name, jobBody(i))
	}
	w.put(topic, jobBody(n))
	w.until("the app that is not paused works", func() bool { return w.ended(topic, apnsconn.Delivered) == 1 })
	counted := func(name string) func() bool {
		return func() bool { q := w.status(name).Queue; return q != nil && q.Ready == 1 }
	}
	w.until("the watchdog has seen a job", counted(paused[0]))
	seen := w.status(paused[0]).Queue.At
	w.until("it has seen it for more than two periods", func() bool { return w.status(paused[0]).Queue.At.Sub(seen) > 3*w.period })
	if !w.asleep(paused...)() {
		t.Error("a paused app is awake")
	}
	if w.log.contains("although its tube has jobs; it is woken\" app=com.example.paused") {
		t.Error("the watchdog takes a paused app for one that was missed")
	}
	for _, name := range paused {
		if err := w.sup.Resume(name); err != nil {
			t.Fatal(err)
		}
	}
	w.eachLater(n + 1)
}

// An app that sleeps has its queue as long as one of its servers answers.
func TestSleeperWithOneOfTwoServers(t *testing.T) {
	w := newWorld(t, apnstest.Options{})
	w.more = beanstalktest.Start(t)
	w.start(w.app(topic))
	<-w.sup.Started()
	w.more.Kill()
	w.until("the log says that a server is away", func() bool { return w.log.contains(w.more.Addr()) && w.log.contains("refused") })
	for range 2 * awayGrace / lookEvery {
		if s := w.status(topic); s.Health.NoQueue || !s.Asleep {
			t.Fatalf("%+v", s.Health)
		}
		time.Sleep(lookEvery)
	}
	w.put(topic, jobBody(0))
	w.eachLater(1)
}
