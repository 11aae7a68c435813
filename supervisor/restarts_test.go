package supervisor

import (
	"fmt"
	"sync"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/apnsconn"
	"propeller/apnsconn/apnstest"
	"propeller/queue/beanstalk/beanstalktest"
)

// producer puts the jobs 0, 1, 2 … into some tubes, with a connection of its
// own that it makes anew when it is lost, until it is stopped.
type producer struct {
	addr  string
	tubes []string
	every time.Duration
	stop  chan struct{}
	done  sync.WaitGroup

	// accepted says of each job whether beanstalkd has accepted it. Of one
	// whose reply was lost that cannot be known. Valid once stopped.
	accepted []bool
}

func (w *world) produce(every time.Duration, tubes ...string) *producer {
	p := &producer{addr: w.bs.Addr(), tubes: tubes, every: every, stop: make(chan struct{})}
	p.done.Go(p.run)
	w.t.Cleanup(p.halt)
	return p
}

// halt stops the producer and waits for it; it may be called twice.
func (p *producer) halt() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.done.Wait()
}

func (p *producer) run() {
	var conn *gobeanstalk.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		var err error
		if conn == nil {
			if conn, err = gobeanstalk.Dial("tcp", p.addr); err != nil {
				conn = nil
				continue
			}
		}
		i := len(p.accepted)
		tube := gobeanstalk.NewTube(conn, p.tubes[i%len(p.tubes)])
		_, err = tube.Put([]byte(jobBody(i)), 1024, 0, time.Minute)
		p.accepted = append(p.accepted, err == nil)
		if err != nil {
			conn.Close()
			conn = nil
		}
	}
}

// logFile is the size of beanstalkd's log files in the test below, the least
// that holds the largest job.
const logFile = 68 << 10

// ballast keeps beanstalkd 1.12 from compacting its log, which loses jobs when
// it is killed meanwhile: moveone (walg.c) deletes the file that a job was in
// before it writes the job into another. It compacts when the log is three
// times as large as the jobs in it, which many restarts with small jobs soon
// make it, but for some large ones that stay.
func (w *world) ballast() {
	w.t.Helper()
	conn := w.bs.Dial()
	defer conn.Close()
	tube := gobeanstalk.NewTube(conn, "ballast")
	for range 100 {
		if _, err := tube.Put(make([]byte, 64_000), 1024, 24*time.Hour, time.Minute); err != nil {
			w.t.Fatalf("put: %v", err)
		}
	}
}

// beanstalkd is killed and started again 100 times while jobs come in and are
// pushed: none is lost, what is delivered twice is counted, and in the end
// every worker works.
func TestQueueRestartedHundredTimes(t *testing.T) {
	// A consumer whose connections do not last comes back after up to 5 s. Of
	// so many there is always one that has just come back when the next
	// restart is due.
	const restarts, apps, workers = 100, 3, 8
	w := newWorld(t, apnstest.Options{Delay: 5 * time.Millisecond}, beanstalktest.WithBinlog(), beanstalktest.WithArgs("-s", fmt.Sprint(logFile)))
	w.ballast()
	var tubes []string
	config := ""
	for i := range apps {
		tubes = append(tubes, fmt.Sprintf("com.example.app%d", i))
		config += w.app(tubes[i], fmt.Sprintf("workers: %d", workers), "in_flight: 20")
	}
	w.start(config)
	p := w.produce(2*time.Millisecond, tubes...)
	for i := range restarts {
		enough := w.apns.Count() + 1 + int64(i%10)*5
		w.until("pushes between two restarts", func() bool { return w.apns.Count() >= enough })
		w.bs.Kill()
		w.bs.Restart()
	}
	p.halt()
	for _, tube := range tubes {
		w.empty(tube)
	}

	got := w.received()
	twice, unknown := 0, 0
	for i, accepted := range p.accepted {
		n := got[token(i)]
		if n == 0 && accepted {
			t.Fatalf("push %d of %d lost", i, len(p.accepted))
		}
		if !accepted {
			unknown++
		}
		twice += max(0, n-1)
	}
	var counted, delivered, buried int64
	for _, tube := range tubes {
		c := w.status(tube).Counters
		counted += c.PossibleDuplicates.Load()
		delivered += c.Ended(apnsconn.Delivered)
		buried += c.Buried.Load()
	}
	// Of a put that was cut short by the kill, beanstalkd may make a job of zero
	// bytes, which is buried as no JSON.
	if buried > int64(unknown) {
		t.Errorf("%d jobs buried, %d puts without a reply", buried, unknown)
	}
	t.Logf("%d jobs put over %d restarts, %d deliveries; %d delivered twice, %d counted as possible duplicates", len(p.accepted), restarts, delivered, twice, counted)
	if twice > int(counted) {
		t.Errorf("%d delivered twice, %d counted", twice, counted)
	}
	if w.log.contains("ended unexpectedly") {
		t.Error("a worker was restarted")
	}
	w.until("every worker has its queue again", func() bool {
		for _, tube := range tubes {
			for _, s := range w.status(tube).Workers {
				if !s.Serving || s.QueueErr != nil {
					return false
				}
			}
		}
		return true
	})
}
