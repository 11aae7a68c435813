package main

import (
	"flag"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"propeller/internal/bench"
	"propeller/queue/beanstalk/beanstalktest"
)

// testSettings are of an embedded queue, unless there is a URL.
func testSettings(t *testing.T, url ...string) (*settings, bench.Engine) {
	t.Helper()
	s := &settings{queue: append(url, "embedded")[0], time: 200 * time.Millisecond, log: slog.New(slog.DiscardHandler), say: t.Logf}
	q, closeQueue, err := s.openQueue()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeQueue(); err != nil {
			t.Error(err)
		}
	})
	return s, q
}

func TestSoak(t *testing.T) {
	s, q := testSettings(t, beanstalktest.Start(t).URL())
	s.jobs = 20_000
	f, err := s.measureSoak(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(20_000 + 400*(soakFanOut-1)); f.pushes != want || f.dead == 0 || f.again == 0 {
		t.Errorf("%d pushes, want %d; %d dead, %d tried again", f.pushes, want, f.dead, f.again)
	}
	if f.first.heapMiB <= 0 || f.first.memoryMiB <= 0 || f.first.goroutines <= 0 || f.first.files <= 0 || f.last.heapMiB <= 0 {
		t.Errorf("first %+v, last %+v", f.first, f.last)
	}
}

func TestSoakFindsGrowth(t *testing.T) {
	t.Parallel()
	flat := soakSample{heapMiB: 20, memoryMiB: 60, goroutines: 100, files: 20}
	for _, test := range []struct {
		name  string
		grow  func(s *soakSample, i int)
		fails string
	}{
		{"nothing", func(*soakSample, int) {}, ""},
		{"up and down", func(s *soakSample, i int) { s.heapMiB += float64(i % 4 * 10) }, ""},
		{"heap", func(s *soakSample, i int) { s.heapMiB += float64(i) / 2 }, "live heap"},
		{"memory", func(s *soakSample, i int) { s.memoryMiB += float64(i) }, "resident"},
		{"goroutines", func(s *soakSample, i int) { s.goroutines += float64(i) }, "goroutines"},
		{"files", func(s *soakSample, i int) { s.files += float64(i) / 5 }, "open files"},
	} {
		f := soakFigures{}
		for i := range 80 {
			s := flat
			test.grow(&s, i)
			f.samples = append(f.samples, s)
		}
		f.quarters()
		switch err := f.grown(); {
		case test.fails == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)):
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if err := (&soakFigures{samples: make([]soakSample, 3)}).grown(); err == nil {
		t.Error("3 samples are enough")
	}
}

func TestIdle(t *testing.T) {
	s, q := testSettings(t)
	s.apps = 20
	f, err := s.measureIdle(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if f.memoryMiB <= 0 || f.goroutines < 20 || f.files == 0 || f.core <= 0 {
		t.Errorf("%+v", f)
	}
}

func TestUnknownRig(t *testing.T) {
	s := new(settings)
	if err := s.run(t.Context(), "sock"); err == nil || err.Error() != `"sock": must be soak, idle, http, apps or lanes` {
		t.Error(err)
	}
}

func TestFlagsAfterTheName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args, name string
		apps       int
		fails      bool
	}{
		{"-apps 7 idle", "idle", 7, false},
		{"idle -apps 7", "idle", 7, false},
		{"idle", "idle", 0, false},
		{"", "", 0, false},
		{"idle soak", "", 0, true},
		{"idle -what", "", 0, true},
	} {
		flags := flag.NewFlagSet("rigs", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		apps := flags.Int("apps", 0, "")
		name, err := parseArgs(flags, strings.Fields(c.args))
		if name != c.name || *apps != c.apps || (err != nil) != c.fails {
			t.Errorf("%q: %q, %d apps, %v", c.args, name, *apps, err)
		}
	}
}
