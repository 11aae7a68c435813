package beanstalk

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue/beanstalk/beanstalktest"
)

// sleeping are the tubes of the benchmarks below. Run them with -benchtime 1x.
const sleeping = 10_000

// BenchmarkWatchIdle prints what sleeping tubes cost in % of a core, of this process and of the server:
// with tubes that do not exist, with a ready job in a tube of nobody, and with tubes that all have a delayed job.
func BenchmarkWatchIdle(b *testing.B) {
	for _, bm := range []struct {
		name           string
		ready, delayed int
	}{{"absent", 0, 0}, {"ready", 1, 0}, {"delayed", 0, 9000}, {"delayed+ready", 1, 9000}} {
		b.Run(bm.name, func(b *testing.B) {
			srv, w, _, tubes := benchWatch(b, bm.delayed)
			c := srv.Dial()
			if bm.ready > 0 {
				benchPut(b, c, "nobody")
			}
			time.Sleep(time.Second)
			own, theirs, began := cpu(b), serverCPU(b, c), time.Now()
			const d = 20 * time.Second
			time.Sleep(d)
			took := time.Since(began)
			b.ReportMetric(100*float64(cpu(b)-own)/float64(took), "%own")
			b.ReportMetric(100*float64(serverCPU(b, c)-theirs)/float64(took), "%server")
			if err := w.Err(); err != nil || len(tubes) != w.sleepers.Len() {
				b.Fatal(err, w.sleepers.Len())
			}
		})
	}
}

// BenchmarkWatchForeignPut prints the time from a put by another program until its tube wakes.
func BenchmarkWatchForeignPut(b *testing.B) {
	for _, bm := range []struct {
		name    string
		delayed int
		at      int // the tubes that get a job: from here on
	}{{"absent", 0, 0}, {"beside_delayed", 9000, 9000}, {"into_delayed", 9000, 0}} {
		b.Run(bm.name, func(b *testing.B) {
			srv, _, woken, tubes := benchWatch(b, bm.delayed)
			c := srv.Dial()
			var took []time.Duration
			for _, tube := range tubes[bm.at : bm.at+200] {
				began := time.Now()
				benchPut(b, c, tube)
				took = append(took, woken.since(tube, began))
				time.Sleep(time.Duration(began.Nanosecond()%37) * time.Millisecond)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms-p50")
			b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "ms-p99")
			b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "ms-max")
		})
	}
}

// BenchmarkWatchAllDue prints how long it takes until 9,000 tubes are classified, and until all are awake
// when their delayed jobs come due at the same time.
func BenchmarkWatchAllDue(b *testing.B) {
	srv := beanstalktest.Start(b)
	q, err := open(Options{Addrs: []string{srv.Addr()}}, dialTCP)
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	var tubes []string
	for i := range 9000 {
		tubes = append(tubes, fmt.Sprintf("tube-%05d", i))
	}
	const delay = 40 * time.Second
	began := time.Now()
	putDelayed(b, srv, tubes, delay)
	filled := time.Now()
	var woken wakeTimes
	w := q.Watch(woken.wake)
	defer w.Close()
	w.Sleep(tubes...)
	awaitClassified(b, q, tubes)
	b.ReportMetric(time.Since(filled).Seconds(), "s-classified")
	woken.since(tubes[0], began)
	for _, tube := range tubes {
		woken.since(tube, began)
	}
	b.ReportMetric(woken.last().Sub(began.Add(delay)).Seconds(), "s-all-awake")
	b.ReportMetric(filled.Sub(began).Seconds(), "s-of-puts")
}

func benchWatch(b *testing.B, delayed int) (*beanstalktest.Server, *watch, *wakeTimes, []string) {
	b.Helper()
	srv := beanstalktest.Start(b)
	q, err := open(Options{Addrs: []string{srv.Addr()}}, dialTCP)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { q.Close() })
	var tubes []string
	for i := range sleeping {
		tubes = append(tubes, fmt.Sprintf("tube-%05d", i))
	}
	putDelayed(b, srv, tubes[:delayed], time.Hour)
	var woken wakeTimes
	w := q.Watch(woken.wake).(*watch)
	w.Sleep(tubes...)
	awaitClassified(b, q, tubes[:delayed])
	return srv, w, &woken, tubes
}

func awaitClassified(b *testing.B, q *client, tubes []string) {
	b.Helper()
	c, err := gobeanstalk.Dial("tcp", q.servers[0].addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(time.Minute); len(tubes) > 0; {
		if time.Now().After(end) {
			b.Fatal("the tubes are not classified")
		}
		st, err := gobeanstalk.NewTube(c, tubes[0]).Stats()
		if err == nil && st["current-watching"] == "1" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func benchPut(b *testing.B, c *gobeanstalk.Conn, tube string) {
	b.Helper()
	if _, err := gobeanstalk.NewTube(c, tube).Put([]byte("x"), 1, 0, time.Minute); err != nil {
		b.Fatal(err)
	}
}

// cpu is the CPU time of this process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverCPU is that of the server, as it says.
func serverCPU(b *testing.B, c *gobeanstalk.Conn) time.Duration {
	b.Helper()
	stats, err := c.Stats()
	if err != nil {
		b.Fatal(err)
	}
	var sum float64
	for _, key := range []string{"rusage-utime", "rusage-stime"} {
		s, err := strconv.ParseFloat(stats[key], 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += s
	}
	return time.Duration(sum * float64(time.Second))
}

// wakeTimes records when tubes wake.
type wakeTimes struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (w *wakeTimes) wake(tube string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = make(map[string]time.Time)
	}
	w.at[tube] = time.Now()
}

// since waits until a tube has woken, and returns how long after began that was.
func (w *wakeTimes) since(tube string, began time.Time) time.Duration {
	for {
		w.mu.Lock()
		at, woken := w.at[tube]
		w.mu.Unlock()
		if woken {
			return at.Sub(began)
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *wakeTimes) last() (last time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range w.at {
		if at.After(last) {
			last = at
		}
	}
	return last
}
