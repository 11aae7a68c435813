package supervisor

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/queue/jetstream/jetstreamtest"
)

// Three daemons share a tube, on a cluster of three servers and on two servers
// of beanstalkd: each job is pushed once, and all take part.
func TestThreeDaemons(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) string{
		"NATS cluster":           func(t *testing.T) string { return jetstreamtest.Start(t, 3).URL() },
		"two beanstalkd servers": func(t *testing.T) string { return beanstalktest.Start(t).URL() + "," + beanstalktest.Start(t).URL() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// An answer takes a while, so that a single daemon cannot be done at once.
			f := newFleet(t, start(t), apnstest.Options{Delay: 100 * time.Millisecond})
			for range 3 {
				f.daemon()
			}
			jobs := 0
			waitUntil(t, "all take part", func() bool {
				f.putMany(jobs, jobs+500)
				jobs += 500
				return !slices.ContainsFunc(f.members, func(m *fleetDaemon) bool { return m.finished() == 0 })
			})
			if repeats := f.wait(jobs); repeats > 0 {
				t.Errorf("%d pushes were sent again", repeats)
			}
			total := int64(0)
			for _, m := range f.members {
				total += m.finished()
			}
			if total != int64(jobs) {
				t.Errorf("the daemons count %d jobs, %d were put", total, jobs)
			}
		})
	}
}

// putMany puts the jobs from…to-1 from several goroutines.
func (f *fleet) putMany(from, to int) {
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := from + g; i < to; i += 16 {
				f.put(i)
			}
		})
	}
	wg.Wait()
}

// The server that leads the jobs is killed -9 in the middle and comes back
// later: every job that was put arrives. The pause is measured.
func TestClusterServerIsKilled(t *testing.T) {
	t.Parallel()
	c := jetstreamtest.Start(t, 3)
	f := newFleet(t, c.URL(), apnstest.Options{})
	for range 3 {
		f.daemon()
	}
	const jobs, every = 900, 5 * time.Millisecond
	f.put(0)
	f.wait(1) // everything runs
	var producer sync.WaitGroup
	failures := 0
	third, twoThirds := make(chan struct{}), make(chan struct{})
	producer.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 1; i < jobs; i++ {
			switch i {
			case jobs / 3:
				close(third)
			case 2 * jobs / 3:
				close(twoThirds)
			}
			<-tick.C
			failures += f.put(i)
		}
	})
	<-third
	leader := c.Leader("PROPELLER_JOBS")
	c.Kill(leader)
	killed := time.Now()
	<-twoThirds
	c.Restart(leader)
	producer.Wait()
	repeats := f.wait(jobs)
	gap, from := f.longestGap()
	t.Logf("server %d of 3 killed: 0 of %d jobs lost, no push for %v, from %v after the kill on; %d puts failed and were repeated, %d pushes sent again",
		leader, jobs, gap.Round(time.Millisecond), from.Sub(killed).Round(time.Millisecond), failures, repeats)
	// A put whose answer is lost is put again by the producer, and a job whose
	// daemon cannot tell the cluster in time is served again: but not many.
	if limit := 3 * 2 * fleetFlight; repeats > limit {
		t.Errorf("%d pushes were sent again, more than can have been in flight", repeats)
	}
}

// A daemon is killed -9 with pushes in flight: the others take its jobs over
// when their time is over, and no other push is sent twice.
func TestDaemonIsKilled(t *testing.T) {
	t.Parallel()
	c := jetstreamtest.Start(t, 3)
	var silent atomic.Bool
	f := newFleet(t, c.URL(), apnstest.Options{Script: func(*apnstest.Request) apnstest.Answer {
		return apnstest.Answer{Silence: silent.Load()}
	}})
	const held, jobs = 1 + fleetFlight*2/3, 300 // one of the two workers holds nearly all of them
	victim := f.daemonProcess()
	f.put(0)
	f.wait(1)
	silent.Store(true)
	f.putMany(1, held)
	waitUntil(t, "it has sent all", func() bool { return f.apns.Count() == held })
	silent.Store(false)
	f.daemon()
	f.daemon()
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait()
	killed := time.Now()
	f.putMany(held, jobs)
	waitUntil(t, "the others' jobs are done", func() bool {
		times, _ := f.arrived(jobs)
		for _, k := range times[held:] {
			if k == 0 {
				return false
			}
		}
		return true
	})
	fresh := time.Since(killed)
	waitUntil(t, "the dead daemon's jobs are taken over", func() bool {
		times, _ := f.arrived(jobs)
		for _, k := range times[1:held] {
			if k < 2 {
				return false
			}
		}
		return true
	})
	t.Logf("daemon killed with %d pushes in flight: taken over within %v of a lease of %v; %d new jobs done after %v",
		held-1, time.Since(killed).Round(time.Millisecond), ackWait, jobs-held, fresh.Round(time.Millisecond))
	if repeats := f.wait(jobs); repeats != held-1 {
		t.Errorf("%d pushes were sent again, %d were in flight", repeats, held-1)
	}
}

func waitUntil(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}
