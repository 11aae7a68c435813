package beanstalk

import (
	"context"
	"sync"
	"testing"
	"time"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
)

// fill puts n jobs with 64 putters.
func fill(tb testing.TB, q queue.Queue, tube string, n int) {
	tb.Helper()
	body := make([]byte, 300)
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < n; i += 64 {
				if _, err := q.Put(context.Background(), tube, body, queue.PutOptions{}); err != nil {
					tb.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkReserveDelete: 32 goroutines delete what Receive hands out at once.
func BenchmarkReserveDelete(b *testing.B) {
	for name, ctx := range contexts(b) {
		b.Run(name, func(b *testing.B) { benchReserveDelete(b, ctx) })
	}
}

// contexts are the two ways a settle call can wait: by itself, or with somebody
// to run the command while it watches its context.
func contexts(b *testing.B) map[string]context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	return map[string]context.Context{"background": context.Background(), "cancellable": ctx}
}

func benchReserveDelete(b *testing.B, ctx context.Context) {
	srv := beanstalktest.Start(b)
	q, err := Open(Options{Addrs: []string{srv.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	fill(b, q, "bench", b.N)
	c, err := q.Consume("bench")
	if err != nil {
		b.Fatal(err)
	}
	const window = 1000
	slots := make(chan struct{}, window)
	jobs := make(chan queue.Job, window)
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 32 {
		wg.Go(func() {
			for j := range jobs {
				if err := j.Done(ctx); err != nil {
					b.Errorf("done: %v", err)
				}
				<-slots
			}
		})
	}
	receiveAll(b, c, b.N, slots, func(j queue.Job) { jobs <- j })
	close(jobs)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.StopTimer()
	if err := c.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// receiveAll receives n jobs while slots has room and hands each to f.
func receiveAll(b *testing.B, c queue.Consumer, n int, slots chan struct{}, f func(queue.Job)) {
	for got := 0; got < n; {
		slots <- struct{}{} // one at least
		got2, err := c.Receive(context.Background(), min(cap(slots)-len(slots)+1, n-got))
		if err != nil {
			b.Fatal(err)
		}
		for i, j := range got2 {
			if i > 0 {
				slots <- struct{}{}
			}
			f(j)
		}
		got += len(got2)
	}
}

// Benchmark50msInFlight1000: every job takes 50 ms, 1000 at a time; the ceiling
// is 20,000 jobs/s.
func Benchmark50msInFlight1000(b *testing.B) {
	srv := beanstalktest.Start(b)
	q, err := Open(Options{Addrs: []string{srv.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	fill(b, q, "bench", b.N)
	c, err := q.Consume("bench")
	if err != nil {
		b.Fatal(err)
	}
	slots := make(chan struct{}, 1000)
	var wg sync.WaitGroup
	b.ResetTimer()
	receiveAll(b, c, b.N, slots, func(j queue.Job) {
		wg.Add(1)
		time.AfterFunc(50*time.Millisecond, func() {
			defer wg.Done()
			if err := j.Done(context.Background()); err != nil {
				b.Errorf("done: %v", err)
			}
			<-slots
		})
	})
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.StopTimer()
	if err := c.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPut: 64 putters, one tube.
func BenchmarkPut(b *testing.B) {
	srv := beanstalktest.Start(b)
	q, err := Open(Options{Addrs: []string{srv.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	b.ResetTimer()
	fill(b, q, "bench", b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}
