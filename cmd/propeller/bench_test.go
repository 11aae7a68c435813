package main

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/apnsconn/apnstest"
	"propeller/internal/bench"
	"propeller/queue/beanstalk/beanstalktest"
)

// benchJSON runs bench with --json and decodes what it prints.
func benchJSON[T any](t *testing.T, args ...string) (f T) {
	t.Helper()
	r := runProgram(t, t.TempDir(), "", append([]string{"bench", "--json"}, args...)...)
	if r.status != exitOK {
		t.Fatalf("status %d\n%s", r.status, r.err)
	}
	if err := json.Unmarshal([]byte(r.out), &f); err != nil {
		t.Fatalf("%v\n%s", err, r.out)
	}
	return f
}

func TestBench(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		args   []string
		pushes int64
	}{
		{"beanstalkd", []string{"--queue", "beanstalkd", "--jobs", "2000"}, 2000},
		{"embedded", []string{"--queue", "embedded", "--jobs", "2000", "--workers", "2"}, 2000},
		{"fan-out", []string{"--queue", "beanstalkd", "--jobs", "20", "--fan-out", "100"}, 2000},
		{"far away", []string{"--queue", "embedded", "--jobs", "2000", "--rtt", "5ms"}, 2000},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := benchJSON[bench.Figures](t, append(test.args, "--time", "200ms", "--rate", "500")...)
			if f.Pushes != test.pushes || f.Rate <= 0 || f.CPU <= 0 || f.APNsCPU <= 0 || f.PutRate <= 0 {
				t.Errorf("%+v", f)
			}
			if inside := strings.Contains(f.Queue, "embedded"); inside == (f.QueueCPU > 0) {
				t.Errorf("queue %s took %v µs", f.Queue, f.QueueCPU)
			}
			if f.Limit == "" || f.Why == "" {
				t.Errorf("limit %q: %q", f.Limit, f.Why)
			}
			l := f.Latency
			if l == nil || l.Jobs != 100 || l.P50 <= 0 || l.P99 < l.P50 || l.Max < l.P99 {
				t.Errorf("latency %+v", l)
			}
		})
	}
}

func TestBenchText(t *testing.T) {
	t.Parallel()
	r := runProgram(t, t.TempDir(), "", "bench", "--queue", "beanstalkd", "--jobs", "1000", "--time", "100ms")
	if r.status != exitOK {
		t.Fatalf("status %d\n%s", r.status, r.err)
	}
	for _, want := range []string{
		"queue          beanstalkd, started for this run", "load           1,000 jobs of 1 token, 1 worker × 1000 in flight",
		" pushes/s: 1,000 in ", " µs here, beanstalkd ", " MiB at most", "limited by   ", "latency        p50 ",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
}

// A queue that exists is left as it was.
func TestBenchLeavesQueueClean(t *testing.T) {
	t.Parallel()
	bs := beanstalktest.Start(t)
	c := bs.Dial()
	if _, err := gobeanstalk.NewTube(c, topic).Put([]byte("mine"), 0, 0, time.Minute); err != nil {
		t.Fatal(err)
	}
	f := benchJSON[bench.Figures](t, "--queue", bs.URL(), "--jobs", "1000", "--rate", "0")
	if f.Queue != bs.URL() || f.Latency != nil || f.QueueCPU <= 0 {
		t.Errorf("%+v", f)
	}
	leftAlone(t, c)
}

// leftAlone fails unless the one job of topic is all there is.
func leftAlone(t *testing.T, c *gobeanstalk.Conn) {
	t.Helper()
	tubes, err := c.ListTubes()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(tubes, func(name string) bool { return strings.Contains(name, "bench") }) {
		t.Errorf("tubes %v", tubes)
	}
	stats, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"current-jobs-reserved", "current-jobs-delayed", "current-jobs-buried"} {
		if stats[key] != "0" {
			t.Errorf("%s %s", key, stats[key])
		}
	}
	if stats["current-jobs-ready"] != "1" {
		t.Errorf("%s jobs are ready, want the one of %s", stats["current-jobs-ready"], topic)
	}
}

// An interrupted run removes what it has put.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	bs := beanstalktest.Start(t)
	c := bs.Dial()
	if _, err := gobeanstalk.NewTube(c, topic).Put([]byte("mine"), 0, 0, time.Minute); err != nil {
		t.Fatal(err)
	}
	// At 10 s a push and one at a time, this ends by the signal or not at all.
	d := startDaemon(t, t.TempDir(), "bench", "--queue", bs.URL(), "--jobs", "500", "--rtt", "10s", "--in-flight", "1")
	d.says("working them off")
	d.signal(syscall.SIGINT)
	if status := d.exit(); status != exitFailed {
		t.Errorf("status %d", status)
	}
	if !strings.Contains(d.log(), "interrupted") {
		t.Errorf("it says\n%s", d.log())
	}
	leftAlone(t, c)
}

// With another server for an APNs side, jobs are timed to their end.
func TestBenchOtherServer(t *testing.T) {
	t.Parallel()
	apns := apnstest.NewServer(apnstest.Options{AllowAnonymous: true, Record: -1})
	t.Cleanup(apns.Close)
	s := &site{t: t, dir: t.TempDir()}
	s.write("ca.pem", string(apns.CACertPEM()))
	f := benchJSON[bench.Figures](t, "--queue", "beanstalkd", "--jobs", "500", "--time", "200ms", "--apns", apns.URL, "--ca-file", s.dir+"/ca.pem")
	if f.APNsCPU != 0 || f.Latency.Jobs != 40 || f.Latency.From != "from put to the job's end" {
		t.Errorf("%+v, latency %+v", f, f.Latency)
	}
	if got := apns.Count(); got != 540 {
		t.Errorf("%d requests", got)
	}
}

func TestBenchSoak(t *testing.T) {
	t.Parallel()
	f := benchJSON[bench.SoakFigures](t, "--soak", "--queue", "beanstalkd", "--jobs", "20000")
	if want := int64(20000 + 400*(bench.SoakFanOut-1)); f.Pushes != want || f.Dead == 0 || f.Again == 0 {
		t.Errorf("%d pushes, want %d; %d dead, %d tried again", f.Pushes, want, f.Dead, f.Again)
	}
	if f.First.HeapMiB <= 0 || f.First.Goroutines <= 0 || f.Last.HeapMiB <= 0 {
		t.Errorf("first %+v, last %+v", f.First, f.Last)
	}
}

func TestBenchIdle(t *testing.T) {
	t.Parallel()
	f := benchJSON[bench.IdleFigures](t, "--idle", "20", "--queue", "beanstalkd", "--time", "200ms")
	if f.Apps != 20 || f.MemoryMiB <= 0 || f.Goroutines < 20 {
		t.Errorf("%+v", f)
	}
}

func TestBenchUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, says string }{
		{"--workers 0", "--workers 0: must be from 1 to"},
		{"--in-flight 9999", "--in-flight 9999: must be"},
		{"--fan-out 901", "--fan-out 901: must be"},
		{"--payload 10", "--payload 10: must be"},
		{"--jobs -1", "--jobs -1: must be"},
		{"--rtt 11s", "--rtt 11s: must be"},
		{"--time 0", "--time 0s: must be"},
		{"--soak --idle 3", "do not go together"},
		{"--http --soak", "do not go together"},
		{"--apns https://127.0.0.1:1 --rtt 1ms", "--rtt is the stand-in's"},
		{"--ca-file x.pem", "--ca-file is for --apns URL"},
		{"--apns http://127.0.0.1:1", "must be sim or https://"},
		{"--apns https://api.push.apple.com", "not for Apple's servers"},
		{"--apns https://api.push.apple.com.:2197", "not for Apple's servers"},
	} {
		r := runProgram(t, t.TempDir(), "", append([]string{"bench"}, strings.Fields(test.args)...)...)
		if r.status != exitUsage || !strings.Contains(r.err, test.says) {
			t.Errorf("%s: status %d: %s", test.args, r.status, r.err)
		}
	}
}
