package bench

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"propeller/internal/apnslean"
	"propeller/worker"
)

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
		f := SoakFigures{}
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
	if err := (&SoakFigures{Samples: make([]soakSample, 3)}).grown(); err == nil {
		t.Error("3 samples are enough")
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
			d, err := worker.ParseJob(body, "com.example.app", "")
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
