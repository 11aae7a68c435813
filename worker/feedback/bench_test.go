package feedback

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"propeller/queue/beanstalk"
	"propeller/queue/beanstalk/beanstalktest"
)

// BenchmarkWebhook: from the writer's put to the record's deletion, with an
// endpoint on this machine.
func BenchmarkWebhook(b *testing.B) {
	srv := beanstalktest.Start(b)
	q, err := beanstalk.Open(beanstalk.Options{Addrs: []string{srv.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	write := Writer(q, testTube)
	for i := range b.N {
		if err := write(context.Background(), testRecord(i)); err != nil {
			b.Fatal(err)
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer s.Close()
	h := newHook(q, s.URL)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	b.ResetTimer()
	go func() { ended <- h.Serve(ctx) }()
	for h.counters.Delivered.Load() < int64(b.N) {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.StopTimer()
	cancel()
	<-ended
}
