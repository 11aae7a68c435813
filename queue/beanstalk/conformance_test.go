package beanstalk

import (
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/queuetest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // they wait more than they work
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, queuetest.Engine{
		New:               newInstance,
		MaxBody:           65535, // beanstalkd's default limit
		WholeSecondDelays: true,
		NewIDs:            true,
		Priorities:        true,
	})
}

func newInstance(t *testing.T) queuetest.Instance {
	srv := beanstalktest.Start(t, beanstalktest.WithBinlog())
	const lease = 5 * time.Second // longer than touchEvery, as short as the suite can have it
	o := Options{Addrs: []string{srv.Addr()}, ttr: lease}
	return queuetest.Instance{
		Queue: openOther(t, o),
		Other: func(t *testing.T) queue.Queue { return openOther(t, o) },
		Lease: lease,
		Down:  func(*testing.T) { srv.Kill() },
		Up:    func(*testing.T) { srv.Restart() },
		PutFleeting: func(t *testing.T, tube string, body []byte) func() {
			// A TTR of 1 s is over before the watchdog touches for the first time.
			return putFleeting(t, srv, tube, body)
		},
		PauseTube: pauseTube(srv),
	}
}

// openOther opens a queue that the suite closes.
func openOther(t *testing.T, o Options) queue.Queue {
	t.Helper()
	q, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func pauseTube(servers ...*beanstalktest.Server) func(*testing.T, string, time.Duration) {
	return func(t *testing.T, tube string, d time.Duration) {
		t.Helper()
		for _, srv := range servers {
			if err := gobeanstalk.NewTube(srv.Dial(), tube).Pause(d); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func putFleeting(t *testing.T, srv *beanstalktest.Server, tube string, body []byte) (steal func()) {
	t.Helper()
	put := srv.Dial()
	put.Tube.Name = tube
	if _, err := put.Put(body, 0, 0, time.Second); err != nil {
		t.Fatal(err)
	}
	stranger := srv.Dial()
	stranger.TubeSet.Name = map[string]bool{tube: true}
	return func() {
		t.Helper()
		id, _, err := stranger.Reserve(time.Minute)
		if err != nil {
			t.Fatalf("stranger: %v", err)
		}
		go func() { // keeps it until its connection ends with the test
			for stranger.Touch(id) == nil {
				time.Sleep(300 * time.Millisecond)
			}
		}()
	}
}

// Several servers: the suite again, jobs spread over three.
func TestConformanceSeveralServers(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, queuetest.Engine{
		New:               newCluster,
		MaxBody:           65535,
		WholeSecondDelays: true,
		NewIDs:            true,
		Overshoot:         3,
		// Each server has its own order.
	})
}

func newCluster(t *testing.T) queuetest.Instance {
	var servers []*beanstalktest.Server
	var addrs []string
	for range 3 {
		srv := beanstalktest.Start(t, beanstalktest.WithBinlog())
		servers = append(servers, srv)
		addrs = append(addrs, srv.Addr())
	}
	const lease = 5 * time.Second
	o := Options{Addrs: addrs, ttr: lease}
	return queuetest.Instance{
		Queue: openOther(t, o),
		Other: func(t *testing.T) queue.Queue { return openOther(t, o) },
		Lease: lease,
		Down: func(*testing.T) {
			for _, srv := range servers {
				srv.Kill()
			}
		},
		Up: func(*testing.T) {
			for _, srv := range servers {
				srv.Restart()
			}
		},
		PutFleeting: func(t *testing.T, tube string, body []byte) func() {
			return putFleeting(t, servers[1], tube, body)
		},
		PauseTube: pauseTube(servers...),
	}
}
