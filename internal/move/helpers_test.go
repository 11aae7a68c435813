package move

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/jetstream"
	"propeller/queue/queueurl"
)

const tube = "com.example.app"

// patient bounds waits for what must happen; only a failing test reaches it.
const patient = 2 * time.Minute

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	t.Cleanup(cancel)
	return ctx
}

// engine makes queues of one kind for tests.
type engine struct {
	name string
	url  func(t *testing.T) string
	// what it keeps
	priority, age bool
}

var engines = []engine{
	{name: "beanstalkd", priority: true, url: func(t *testing.T) string {
		return beanstalktest.Start(t, beanstalktest.WithBinlog()).URL()
	}},
	{name: "beanstalkds", priority: true, url: func(t *testing.T) string {
		return beanstalktest.Start(t).URL() + "," + beanstalktest.Start(t).URL()
	}},
	{name: "embedded", age: true, url: func(t *testing.T) string { return "embedded://" + t.TempDir() }},
}

func openURL(url string) (Queue, error) {
	if strings.HasPrefix(url, "embedded") {
		o := jetstream.Options{URL: queueurl.URL{Scheme: "embedded", Dir: strings.TrimPrefix(url, "embedded://")}}
		// Processes that are being started hold the lock of the folder for a
		// moment with all that this one has open.
		for end := time.Now().Add(patient); ; time.Sleep(time.Millisecond) {
			q, err := jetstream.Open(o)
			if err == nil {
				return q.(Queue), nil
			}
			if _, used := errors.AsType[*jetstream.InUseError](err); !used || time.Now().After(end) {
				return nil, err
			}
		}
	}
	var addrs []string
	for u := range strings.SplitSeq(url, ",") {
		addrs = append(addrs, strings.TrimPrefix(u, "beanstalk://"))
	}
	q, err := beanstalk.Open(beanstalk.Options{Addrs: addrs})
	if err != nil {
		return nil, err
	}
	return q.(Queue), nil
}

func openTest(t *testing.T, url string) Queue {
	t.Helper()
	q, err := openURL(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return q
}

func put(t *testing.T, q queue.Queue, body string, o queue.PutOptions) string {
	t.Helper()
	id, err := q.Put(ctxOf(t), tube, []byte(body), o)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// putMany puts jobs with the bodies prefix0, prefix1, ….
func putMany(t *testing.T, q queue.Queue, prefix string, n int, o queue.PutOptions) {
	t.Helper()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := g; i < n; i += 8 {
				if _, err := q.Put(ctxOf(t), tube, fmt.Append(nil, prefix, i), o); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// bury puts a job and buries it unchanged. No other job may be ready.
func bury(t *testing.T, q queue.Queue, body string, o queue.PutOptions) {
	t.Helper()
	put(t, q, body, o)
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctxOf(t))
	jobs, err := c.Receive(ctxOf(t), 1)
	if err == nil {
		err = jobs[0].Bury(ctxOf(t), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// arrived is a job in a queue.
type arrived struct {
	queue.StoredJob
	Buried bool
}

// content is all that is in a tube but for what is due soon, by the jobs'
// bodies: several jobs with one body are an error. The ready ones are taken out.
func content(t *testing.T, q Queue) map[string]arrived {
	t.Helper()
	all := make(map[string]arrived)
	add := func(j arrived) {
		if _, twice := all[string(j.Body)]; twice {
			t.Errorf("%s is there twice", j.Body)
		}
		all[string(j.Body)] = j
	}
	for _, j := range listed(t, q) {
		if j.Buried || j.Delay > queue.Soon { // others may be ready a moment later
			add(j)
		}
	}
	for _, j := range taken(t, q) {
		add(j)
	}
	return all
}

// listed is what List shows, and changes nothing.
func listed(t *testing.T, q Queue) (all []arrived) {
	t.Helper()
	for _, state := range []queue.State{queue.Delayed, queue.Buried} {
		err := q.List(ctxOf(t), tube, state, func(jobs []queue.StoredJob) error {
			for _, j := range jobs {
				all = append(all, arrived{j, state == queue.Buried})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// taken takes all ready jobs out.
func taken(t *testing.T, q Queue) (all []arrived) {
	t.Helper()
	c, err := q.Consume(tube)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctxOf(t))
	for {
		jobs, err := receive(ctxOf(t), c, 100, 200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range jobs {
			st, err := j.Stat(ctxOf(t))
			if err == nil {
				err = j.Done(ctxOf(t))
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, arrived{StoredJob: queue.StoredJob{ID: j.ID(), Body: j.Body(), Priority: st.Priority, Age: st.Age}})
		}
		if len(jobs) == 0 {
			st, err := q.TubeStats(ctxOf(t), tube)
			if err != nil {
				t.Fatal(err)
			}
			if st.Ready == 0 {
				return all
			}
		}
	}
}

func mustMove(t *testing.T, m *Mover) {
	t.Helper()
	if err := m.Tube(ctxOf(t), tube); err != nil {
		t.Fatalf("after %d jobs: %v", m.Moved(), err)
	}
}

func mustBeEmpty(t *testing.T, q queue.Admin) {
	t.Helper()
	st, err := q.TubeStats(ctxOf(t), tube)
	if err != nil || st != (queue.TubeStats{}) {
		t.Errorf("left: %+v, %v", st, err)
	}
}

func bodies(m map[string]arrived) []string { return slices.Sorted(maps.Keys(m)) }

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

var errStop = errors.New("stop")
