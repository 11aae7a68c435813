package main

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"propeller/apnsconn/apnstest"
	"propeller/queue"
	"propeller/queue/jetstream/jetstreamtest"
)

// Three daemons as they are shipped share a tube on a cluster; one is stopped
// in the middle: each job is pushed once.
func TestThreeDaemonsOnACluster(t *testing.T) {
	t.Parallel()
	c := jetstreamtest.Start(t, 3)
	s := &site{t: t, dir: t.TempDir(), apns: apnstest.NewServer(apnstest.Options{Delay: 50 * time.Millisecond})}
	t.Cleanup(s.apns.Close)
	s.write("ca.pem", string(s.apns.CACertPEM()))
	s.cert(topic)
	s.write("propeller.yaml", "queue: "+c.URL()+"\nlog: {pushes: all}\ndefaults: {server: "+s.apns.URL+", ca_file: ca.pem}\n"+
		"apps:\n  - {topic: "+topic+", cert: "+topic+".pem, workers: 2, in_flight: 20}\n")
	var daemons []*daemonProcess
	for range 3 {
		daemons = append(daemons, startDaemon(t, s.dir))
	}
	q := openForTest(t, c.URL())
	defer q.Close()
	jobs := 0
	putMore := func(n int) {
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := jobs + g; i < jobs+n; i += 8 {
					if _, err := q.Put(t.Context(), topic, []byte(`{"token":"`+token(i)+`","title":"x"}`), queue.PutOptions{}); err != nil {
						t.Errorf("put: %v", err)
					}
				}
			})
		}
		wg.Wait()
		jobs += n
	}
	until(t, "all three push", func() bool {
		putMore(200)
		for _, d := range daemons {
			if !strings.Contains(d.log(), "class=delivered") {
				return false
			}
		}
		return true
	})
	putMore(500)
	daemons[0].signal(syscall.SIGTERM)
	putMore(500)
	if status := daemons[0].exit(); status != 0 {
		t.Errorf("status %d", status)
	}
	until(t, "all have arrived", func() bool { return s.apns.Count() >= int64(jobs) })
	until(t, "nothing is left", func() bool {
		st, err := q.TubeStats(t.Context(), topic)
		return err == nil && st == (queue.TubeStats{})
	})
	times := make(map[string]int)
	for _, token := range s.apns.Tokens() {
		times[token]++
	}
	for i := range jobs {
		if times[token(i)] != 1 {
			t.Errorf("push %d was sent %d times", i, times[token(i)])
		}
	}
	if r := runProgram(t, s.dir, "", "send", "--topic", topic, "--token", token(jobs), "--title", "x"); r.status != 0 {
		t.Errorf("send: %+v", r)
	}
	until(t, "the push of send arrives", func() bool { return s.apns.Count() == int64(jobs)+1 })
}
