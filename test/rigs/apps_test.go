package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"propeller/queue/jetstream/jetstreamtest"
)

func TestMain(m *testing.M) {
	if jetstreamtest.Main() {
		return
	}
	os.Exit(m.Run())
}

// A short run of the rig has a figure in each row, on each queue.
func TestApps(t *testing.T) {
	t.Parallel()
	bin, err := buildDaemon(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range engineNames {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := &settings{queue: kind, daemon: bin, say: t.Logf}
			rows, err := s.measureApps(t.Context(), appsPlan{
				apps: 50, certs: 10, settle: time.Minute, idle: 200 * time.Millisecond, singles: 5, burst: 5,
				spread: time.Second, rest: 100 * time.Millisecond, busy: 500, rounds: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				t.Logf("%s: %s", row[0], row[1])
				if strings.Contains(row[1], "cannot be measured") {
					t.Errorf("%s: %s", row[0], row[1])
				}
			}
		})
	}
}
