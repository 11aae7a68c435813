package main

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/internal/bench"
	"propeller/queue/beanstalk/beanstalktest"
)

// benchJSON runs bench with --json and decodes what it prints.
func benchJSON(t *testing.T, args ...string) (f bench.Figures) {
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
	for _, test := range []struct{ name, args string }{
		{"beanstalkd", "--queue beanstalkd --jobs 2000"},
		{"embedded", "--jobs 2000 --workers 2"},
		{"fan-out", "--queue beanstalkd --jobs 20 --fan-out 100"},
		{"far away", "--queue embedded --jobs 2000 --rtt 5ms"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			args, queue := test.args, "embedded, in a temporary folder"
			if strings.Contains(args, "beanstalkd") {
				queue = beanstalktest.Start(t).URL()
				args = strings.Replace(args, "beanstalkd", queue, 1)
			}
			f := benchJSON(t, append(strings.Fields(args), "--rate", "5000")...)
			if f.Pushes != 2000 || f.Rate <= 0 || f.CPU <= 0 || f.APNsCPU <= 0 || f.PutRate <= 0 || f.PeakMiB <= 0 || !strings.HasPrefix(f.Queue, queue) {
				t.Errorf("%+v", f)
			}
			if f.Limit == "" || f.Why == "" {
				t.Errorf("limit %q: %q", f.Limit, f.Why)
			}
			// Payload that the window cuts in two is not timed.
			l := f.Latency
			if l == nil || l.Jobs < 900 || l.Jobs > 1000 || l.P50 <= 0 || l.P99 < l.P50 || l.Max < l.P99 {
				t.Errorf("latency %+v", l)
			}
		})
	}
}

func TestBenchText(t *testing.T) {
	t.Parallel()
	r := runProgram(t, t.TempDir(), "", "bench", "--jobs", "1000", "--rate", "5000")
	if r.status != exitOK {
		t.Fatalf("status %d\n%s", r.status, r.err)
	}
	for _, want := range []string{
		"queue          embedded, in a temporary folder", "load           1000 jobs of 1 token, 1 worker × 1000 in flight",
		" pushes/s: 1000 in ", " µs here, stand-in ", " MiB at most", "limited by   ", "latency        p50 ",
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
	f := benchJSON(t, "--queue", bs.URL(), "--jobs", "1000", "--rate", "0")
	if f.Queue != bs.URL() || f.Latency != nil {
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

func TestBenchUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, says string }{
		{"--workers 0", "--workers 0: must be from 1 to"},
		{"--in-flight 9999", "--in-flight 9999: must be"},
		{"--fan-out 901", "--fan-out 901: must be"},
		{"--payload 10", "--payload 10: must be"},
		{"--jobs -1", "--jobs -1: must be"},
		{"--rtt 11s", "--rtt 11s: must be"},
	} {
		r := runProgram(t, t.TempDir(), "", append([]string{"bench"}, strings.Fields(test.args)...)...)
		if r.status != exitUsage || !strings.Contains(r.err, test.says) {
			t.Errorf("%s: status %d: %s", test.args, r.status, r.err)
		}
	}
}
