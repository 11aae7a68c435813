package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/apnsconn/apnstest"
	"propeller/internal/apnslean"
	"propeller/queue/beanstalk/beanstalktest"
	"propeller/worker"
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
			f := benchJSON[benchFigures](t, append(test.args, "--time", "200ms", "--rate", "500")...)
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
	f := benchJSON[benchFigures](t, "--queue", bs.URL(), "--jobs", "1000", "--rate", "0")
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
	f := benchJSON[benchFigures](t, "--queue", "beanstalkd", "--jobs", "500", "--time", "200ms", "--apns", apns.URL, "--ca-file", s.dir+"/ca.pem")
	if f.APNsCPU != 0 || f.Latency.Jobs != 40 || f.Latency.From != "from put to the job's end" {
		t.Errorf("%+v, latency %+v", f, f.Latency)
	}
	if got := apns.Count(); got != 540 {
		t.Errorf("%d requests", got)
	}
}

func TestBenchSoak(t *testing.T) {
	t.Parallel()
	f := benchJSON[soakFigures](t, "--soak", "--queue", "beanstalkd", "--jobs", "20000")
	if want := int64(20000 + 400*(soakFanOut-1)); f.Pushes != want || f.Dead == 0 || f.Again == 0 {
		t.Errorf("%d pushes, want %d; %d dead, %d tried again", f.Pushes, want, f.Dead, f.Again)
	}
	if f.First.HeapMiB <= 0 || f.First.Goroutines <= 0 || f.Last.HeapMiB <= 0 {
		t.Errorf("first %+v, last %+v", f.First, f.Last)
	}
}

func TestSoakFindsGrowth(t *testing.T) {
	t.Parallel()
	flat := soakSample{HeapMiB: 20, MemoryMiB: 60, Goroutines: 100, Files: 20}
	for _, test := range []struct {
		name  string
		grow  func(s *soakSample, i int)
		fails string
	}{
		{"nothing", func(*soakSample, int) {}, ""},
		{"up and down", func(s *soakSample, i int) { s.HeapMiB += float64(i % 4 * 10) }, ""},
		{"heap", func(s *soakSample, i int) { s.HeapMiB += float64(i) / 2 }, "live heap"},
		{"memory", func(s *soakSample, i int) { s.MemoryMiB += float64(i) }, "resident"},
		{"goroutines", func(s *soakSample, i int) { s.Goroutines += float64(i) }, "goroutines"},
		{"files", func(s *soakSample, i int) { s.Files += float64(i) / 5 }, "open files"},
	} {
		f := soakFigures{}
		for i := range 80 {
			s := flat
			test.grow(&s, i)
			f.Samples = append(f.Samples, s)
		}
		f.quarters()
		switch err := f.grown(); {
		case test.fails == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)):
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if err := (&soakFigures{Samples: make([]soakSample, 3)}).grown(); err == nil {
		t.Error("3 samples are enough")
	}
}

func TestBenchIdle(t *testing.T) {
	t.Parallel()
	f := benchJSON[idleFigures](t, "--idle", "20", "--queue", "beanstalkd", "--time", "200ms")
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

// The jobs are what a worker makes pushes of, with payloads of the size wanted.
func TestBenchJobs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tokens := make(map[string]bool)
	for _, payload := range []int{leastPayload, defaultPayload, 4096} {
		for _, n := range []int{1, 2, maxFanOut} {
			body := newJobMaker(payload, randomHex(8)).job(7, n, now)
			d, err := worker.ParseJob(body, topic, "")
			if err != nil {
				t.Fatal(err)
			}
			got := d.Notification
			if len(got.Payload) != payload {
				t.Errorf("payload of %d bytes, want %d: %s", len(got.Payload), payload, got.Payload)
			}
			if put, ok := apnslean.Stamped(got.Payload); !ok || put.UnixMicro() != now.UnixMicro() {
				t.Errorf("stamp %v of %s", put, got.Payload)
			}
			maps.Insert(tokens, maps.All(map[string]bool{fmt.Sprint(d.Tokens, got.Token): true}))
			if beanstalkdMost := 65535; payload == defaultPayload && len(body) > beanstalkdMost {
				t.Errorf("%d tokens: a job of %d bytes", n, len(body))
			}
		}
	}
	if len(tokens) != 9 {
		t.Errorf("tokens come twice: %d different lists, want 9", len(tokens))
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	quiet := shares{
		cores: 4, own: 0.5, apns: 0.1, queue: 0.2, idle: 3.2, queueOK: true, idleOK: true, queueServers: 1,
		standIn: true, conns: 1, inFlight: 500, oneToken: true, held: 450, mayBeHeld: 500,
	}
	for _, test := range []struct {
		want   string
		change func(s *shares)
	}{
		{limitUnclear, func(*shares) {}},
		{limitWindow, func(s *shares) { s.delayed, s.blocked = true, 0.8 }},
		{limitInFlight, func(s *shares) { s.delayed, s.open = true, 480 }},
		{limitStreams, func(s *shares) { s.delayed, s.open, s.inFlight = true, 990, 2000 }},
		{limitQueue, func(s *shares) { s.queue, s.idle = 0.97, 2.4 }},
		{limitQueue, func(s *shares) { s.held = 20 }},
		{limitUnclear, func(s *shares) { s.held, s.oneToken = 20, false }},
		{limitCPU, func(s *shares) { s.own, s.idle = 3.6, 0.1 }},
		{limitOthers, func(s *shares) { s.own, s.idle = 2, 0.1 }},
		{limitCPU, func(s *shares) { s.own, s.queue, s.idle, s.queueInside = 3.8, 0, 0.1, true }},
		{limitStandIn, func(s *shares) { s.apns, s.idle = 0.96, 2 }},
		{limitUnclear, func(s *shares) { s.idleOK, s.standIn, s.queueOK = false, false, false }},
	} {
		s := quiet
		test.change(&s)
		if got, why := s.limit(); got != test.want || why == "" {
			t.Errorf("%+v\nlimit %q (%s), want %q", s, got, why, test.want)
		}
	}
}
