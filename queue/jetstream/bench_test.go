package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"propeller/queue"
)

var benchBody = make([]byte, 300)

// BenchmarkPut puts from several goroutines, each waiting for the stream.
func BenchmarkPut(b *testing.B) {
	for _, putters := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("%d", putters), func(b *testing.B) {
			q := openEmbedded(b)
			benchPut(b, q, putters, b.N)
		})
	}
}

func benchPut(b *testing.B, q queue.Queue, putters, n int) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
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
