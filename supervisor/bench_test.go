package supervisor

import (
	"context"
	"io"
	"log/slog"
	"syscall"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/config"
	"propeller/queue"
	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queueurl"
)

// benchTree prepares a tree of one app between a real beanstalkd and the
// stand-in; the beanstalkd has n jobs.
func benchTree(b *testing.B, n, inFlight int, delay time.Duration) (*Supervisor, *apnstest.Server) {
	b.Helper()
	bs := beanstalktest.Start(b)
	apns := apnstest.NewServer(apnstest.Options{Delay: delay, Record: -1, AllowAnonymous: true})
	b.Cleanup(apns.Close)
	cfg := config.Default()
	cfg.Queue.Servers = []string{bs.Addr()}
	cfg.Apps[0].Name, cfg.Apps[0].Topic, cfg.Apps[0].Tube = topic, topic, topic
	cfg.Apps[0].Addr, cfg.Apps[0].RootCAs, cfg.Apps[0].InFlight = apns.Addr, apns.CertPool(), inFlight
	log := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))
	sup, err := New(&cfg, Options{Log: log, OpenQueue: func(queueurl.URL) (queue.Queue, error) {
		return beanstalk.Open(beanstalk.Options{Addrs: []string{bs.Addr()}, Log: log})
	}})
	if err != nil {
		b.Fatal(err)
	}
	tube := gobeanstalk.NewTube(bs.Dial(), topic)
	for i := range n {
		if _, err := tube.Put([]byte(jobBody(i)), 1024, 0, time.Minute); err != nil {
			b.Fatal(err)
		}
	}
	return sup, apns
}

func (s *Supervisor) delivered() int64 {
	return s.totals[topic].Counters.Ended(apnsconn.Delivered)
}

// BenchmarkWorker is 20,000 jobs through one worker with 1000 in flight:
// beanstalkd, daemon and stand-in on this machine. docs/benchmarks.md has the
// figures.
func BenchmarkWorker(b *testing.B) {
	for _, bench := range []struct {
		name  string
		delay time.Duration
	}{{"answers-after-50ms", 50 * time.Millisecond}, {"answers-at-once", 0}} {
		b.Run(bench.name, func(b *testing.B) {
			const n = 20_000
			var took, cpu time.Duration
			for range b.N {
				b.StopTimer()
				sup, _ := benchTree(b, n, 1000, bench.delay)
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan error, 1)
				b.StartTimer()
				begun, used := time.Now(), cpuTime()
				go func() { done <- sup.Serve(ctx) }()
				for sup.delivered() < n {
					time.Sleep(time.Millisecond)
				}
				took += time.Since(begun)
				cpu += cpuTime() - used
				b.StopTimer()
				stop()
				<-done
				b.StartTimer()
			}
			b.ReportMetric(float64(n*b.N)/took.Seconds(), "pushes/s")
			b.ReportMetric(float64(cpu.Microseconds())/float64(n*b.N), "µs-cpu/push")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpuTime is what this process (daemon and stand-in, not beanstalkd) has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFirstPush is from the start of the tree to the first request at
// APNs: connecting to the queue, reserving, TLS and HTTP/2 included.
func BenchmarkFirstPush(b *testing.B) {
	var took time.Duration
	for range b.N {
		b.StopTimer()
		sup, apns := benchTree(b, 1, 500, 0)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		b.StartTimer()
		begun := time.Now()
		go func() { done <- sup.Serve(ctx) }()
		if err := apns.Wait(ctx, 1); err != nil {
			b.Fatal(err)
		}
		took += time.Since(begun)
		b.StopTimer()
		stop()
		<-done
		b.StartTimer()
	}
	b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "ms/first-push")
	b.ReportMetric(0, "ns/op")
}
