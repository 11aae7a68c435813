package jetstream

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"propeller/queue"
)

// wakes collects what a Watch wakes.
type wakes struct {
	mu   sync.Mutex
	list []string
}

func (w *wakes) add(tube string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, tube)
}

func (w *wakes) get() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

// watchTest starts a Watch that is closed with the test.
func watchTest(t testing.TB, q *client) (*watch, *wakes) {
	t.Helper()
	got := &wakes{}
	w := q.Watch(got.add).(*watch)
	t.Cleanup(w.Close)
	return w, got
}

// handWatch is a Watch whose steps the test takes.
func handWatch(t *testing.T, q *client) (*watch, *wakes) {
	t.Helper()
	got := &wakes{}
	w := newWatch(q, got.add)
	q.setWatches(func([]*watch) []*watch { return []*watch{w} })
	t.Cleanup(w.Close)
	return w, got
}

// publish puts a job as any client does, and waits until it is stored.
func publish(t *testing.T, q *client, tube string) {
	t.Helper()
	if _, err := q.link.cn.js.Publish(ctxOf(t), jobSubject(tube), []byte("x")); err != nil {
		t.Fatal(err)
	}
}

// A put between any two steps of falling asleep wakes the tube, also if what the subscription
// brings is dropped.
func TestPutWhileFallingAsleep(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	cn := q.link.cn
	for step := range 5 {
		for _, heard := range []bool{true, false} {
			w, got := handWatch(t, q)
			if err := w.round(true); err != nil { // the stream has been looked at before
				t.Fatal(err)
			}
			tube := fmt.Sprintf("tube%d%v", step, heard)
			var asleep []string
			for i, do := range []func(){
				func() {},
				func() { w.Sleep(tube) },
				func() { asleep = w.subscribe(cn) },
				func() {
					if err := w.find(cn, asleep, false); err != nil {
						t.Fatal(err)
					}
				},
				func() {},
			} {
				do()
				if i == step {
					publish(t, q, tube)
				}
			}
			if err := cn.nc.FlushTimeout(patience); err != nil {
				t.Fatal(err)
			}
			for n := len(w.messages); n > 0; n-- {
				if m := <-w.messages; heard {
					w.heard(m)
				}
			}
			if err := w.round(true); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.get(), []string{tube}) {
				t.Errorf("put after step %d, heard %v: %q was woken", step, heard, got.get())
			}
			w.Close()
		}
	}
}

// Only sleeping tubes are subscribed to.
func TestOnlySleepingTubesAreSubscribedTo(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	before := q.link.cn.nc.NumSubscriptions()
	w, got := watchTest(t, q)
	w.Sleep("a", "b", "c", "not.a.tube.>")
	subs := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " subscriptions"), func() bool { return q.link.cn.nc.NumSubscriptions() == before+n })
	}
	subs(3)
	mustPut(t, q, "a", "x")
	subs(2)
	publish(t, q, "b")
	subs(1)
	w.Forget("c")
	subs(0)
	w.Sleep("c")
	subs(1)
	w.Close()
	subs(0)
	if want := []string{"a", "b"}; !slices.Equal(got.get(), want) {
		t.Errorf("woken: %q, want %q", got.get(), want)
	}
}

// A put that may have been stored wakes its tube.
func TestUncertainPutWakes(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	w, got := handWatch(t, q)
	w.Sleep("uncertain", "refused", "delayed", "buried")
	for tube, c := range map[string]struct {
		o   queue.PutOptions
		err error
	}{
		"uncertain": {queue.PutOptions{}, errNoAnswer},
		"refused":   {queue.PutOptions{}, errNoResponders},
		"delayed":   {queue.PutOptions{Delay: time.Hour}, errNoAnswer},
		"buried":    {queue.PutOptions{Buried: true}, errNoAnswer},
	} {
		if _, err := q.stored(ctxOf(t), tube, "", c.o, nil, c.err); err == nil {
			t.Errorf("%s: no error", tube)
		}
	}
	if want := []string{"uncertain"}; !slices.Equal(got.get(), want) {
		t.Errorf("woken: %q, want %q", got.get(), want)
	}
}

// When nobody reads what is published, the connection is read all the same, and all tubes wake
// in the end.
func TestWatchIsFlooded(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	const tubes = watchRoom + 500
	var got wakes
	block := make(chan struct{})
	w := q.Watch(func(tube string) { got.add(tube); <-block }).(*watch)
	t.Cleanup(w.Close)
	var jobs []queue.NewJob
	var names []string
	for i := range tubes {
		names = append(names, fmt.Sprint("tube", i))
	}
	w.Sleep(names...)
	eventually(t, "all are subscribed to", func() bool { return q.link.cn.nc.NumSubscriptions() > tubes })
	for _, name := range names {
		m := &nats.Msg{Subject: jobSubject(name), Data: []byte("x")}
		if err := q.link.cn.nc.PublishMsg(m); err != nil { // with no hook
			t.Fatal(err)
		}
	}
	jobs = append(jobs, queue.NewJob{Tube: "awake"})
	if s := q.PutAll(ctxOf(t), jobs); s[0].Err != nil { // behind all of them
		t.Fatal(s[0].Err)
	}
	if n := len(w.messages); n != watchRoom {
		t.Errorf("%d messages wait, want %d", n, watchRoom)
	}
	close(block)
	eventually(t, "all are woken", func() bool { return len(got.get()) >= tubes })
	time.Sleep(2 * watchEvery)
	if n := len(got.get()); n != tubes {
		t.Errorf("%d wakes of %d tubes", n, tubes)
	}
}

// The list of subjects comes in several parts where there are very many.
func TestWatchListsInParts(t *testing.T) {
	t.Parallel()
	q := openEmbedded(t)
	const tubes = maxSubjects + 100
	for i := range tubes {
		if err := q.link.cn.nc.Publish(fmt.Sprintf("%sx%06d", jobPrefix, i), nil); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, q, "y") // behind them
	w, got := watchTest(t, q)
	names := []string{"x000000", fmt.Sprintf("x%06d", tubes-1), "y", "z0", "z1", "z2", "z3", "z4", "z5", "z6"}
	w.Sleep(names...)
	eventually(t, "those with jobs are woken", func() bool { return len(got.get()) == 3 })
}

// A user that may not subscribe to jobs is told so once; until it may, the look at the stream
// is what wakes tubes.
func TestWatchDenied(t *testing.T) {
	t.Parallel()
	const may = "authorization { users: [ {user: me, password: pw, permissions: {subscribe: [\"_INBOX.>\", \"$JS.EVENT.>\"%s]}} ] }"
	file := filepath.Join(t.TempDir(), "users.conf")
	write := func(more string) {
		t.Helper()
		if err := writeFile(file, fmt.Sprintf(may, more)); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	s := runServer(t, "include ../001/users.conf") // from the folder of the server's own file
	log, lines := newLog()
	o := Options{URL: serversAt(s.Addr().String()), Log: log, lookEvery: 500 * time.Millisecond}.with("replicas", "1")
	o.User, o.Password = "me", "pw"
	q := openReady(t, o)
	w, got := watchTest(t, q)
	var names []string
	for i := range 3 * lineBurst / 2 { // so many refusals would look like a flood
		names = append(names, fmt.Sprint("tube", i))
	}
	w.Sleep(names...)
	w.Sleep("one")
	publish(t, q, "one")
	eventually(t, "it is woken", func() bool { return slices.Equal(got.get(), []string{"one"}) })
	if err := w.Err(); err != nil {
		t.Error(err)
	}
	said := func() int { return strings.Count(lines.String(), "level=WARN") }
	if text := lines.String(); said() != 1 || !strings.Contains(text, `may not subscribe to \"propeller.job.>\"`) {
		t.Errorf("log:\n%s", text)
	}
	write(`, "propeller.job.>"`)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tubes are subscribed to", func() bool { return q.link.cn.nc.NumSubscriptions() > len(names) })
	write("") // and no more
	before := strings.Count(lines.String(), "propeller.job.")
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is said again", func() bool { return strings.Count(lines.String(), "propeller.job.") > before })
	eventually(t, "it is published", func() bool { // refusals in a flood may have ended the connection
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := q.link.cn.js.Publish(ctx, jobSubject("tube7"), []byte("x"))
		return err == nil
	})
	eventually(t, "it is woken", func() bool { return slices.Contains(got.get(), "tube7") })
}
