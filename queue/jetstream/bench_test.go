package jetstream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"propeller/queue"
)

var benchBody = make([]byte, 300)

// BenchmarkPut puts from several goroutines, each waiting for the stream, into a tube beside
// which no others sleep, or many.
func BenchmarkPut(b *testing.B) {
	for _, putters := range []int{1, 64, 256} {
		for _, asleep := range []int{0, 9999} {
			b.Run(fmt.Sprintf("%d/%d", putters, asleep), func(b *testing.B) {
				q := openEmbedded(b)
				w, _ := watchTest(b, q)
				before := q.link.cn.nc.NumSubscriptions()
				for i := range asleep {
					w.Sleep(fmt.Sprint("tube", i))
				}
				eventually(b, "all sleep", func() bool { return q.link.cn.nc.NumSubscriptions() == before+asleep })
				if err := q.link.cn.nc.FlushTimeout(patience); err != nil {
					b.Fatal(err)
				}
				runtime.GC()
				b.ResetTimer()
				benchPut(b, q, putters, b.N)
			})
		}
	}
}

func benchPut(b *testing.B, q queue.Queue, putters, n int) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	cpu := cpuTime()
	var wg sync.WaitGroup
	for range putters {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := q.Put(context.Background(), "bench", benchBody, queue.PutOptions{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(n), "cpu-ns/job") // less noisy
}

// BenchmarkConsume receives and finishes jobs as a worker does: up to 1000
// held, 32 settlers.
func BenchmarkConsume(b *testing.B) {
	q := openEmbedded(b)
	benchConsume(b, q)
}

func benchConsume(b *testing.B, q queue.Queue) {
	b.Helper()
	benchPut(b, q, 64, b.N)
	c := consumeTest(b, q, "bench")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ResetTimer()
	jobs := make(chan queue.Job, 1000)
	var held, done atomic.Int64
	free := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for j := range jobs {
				if err := j.Done(ctx); err != nil {
					b.Error(err)
				}
				held.Add(-1)
				select {
				case free <- struct{}{}:
				default:
				}
				if done.Add(1) == int64(b.N) {
					cancel()
				}
			}
		})
	}
	for ctx.Err() == nil {
		room := 1000 - int(held.Load())
		if room <= 0 {
			<-free
			continue
		}
		got, err := c.Receive(ctx, room)
		if err != nil && !errors.Is(err, context.Canceled) {
			b.Fatal(err)
		}
		held.Add(int64(len(got)))
		for _, j := range got {
			jobs <- j
		}
	}
	close(jobs)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkWake is the way of a job into a sleeping tube: from the put, by this queue or by
// another one, until the job is in hand. Among 1000 tubes that sleep, one at a time wakes, and
// sleeps again.
func BenchmarkWake(b *testing.B) {
	for _, whose := range []string{"own", "foreign"} {
		b.Run(whose, func(b *testing.B) {
			o := Options{URL: embeddedIn(b.TempDir(), "listen", "127.0.0.1:0")}
			q := openTest(b, o)
			o.Attach = true
			putter := map[string]*client{"own": q, "foreign": openTest(b, o)}[whose]
			woken := make(chan string, 1)
			w := q.Watch(func(tube string) { woken <- tube })
			b.Cleanup(w.Close)
			for i := range 1000 {
				w.Sleep(fmt.Sprint("tube", i))
			}
			time.Sleep(4 * watchEvery)
			var took []time.Duration
			b.ResetTimer()
			for i := range b.N {
				name := fmt.Sprint("tube", i%1000)
				began := time.Now()
				mustPut(b, putter, name, "x")
				if got := <-woken; got != name {
					b.Fatalf("%s is woken", got)
				}
				c, err := q.Consume(name)
				if err != nil {
					b.Fatal(err)
				}
				jobs := mustReceive(b, c, 1)
				took = append(took, time.Since(began))
				b.StopTimer()
				mustDone(b, jobs...)
				endNow(b, c)
				w.Sleep(name)
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
