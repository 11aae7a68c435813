package main

import (
	"strings"
	"testing"
	"time"
)

// A short run of the lanes has their figures, on each queue.
func TestLanes(t *testing.T) {
	t.Parallel()
	bin, err := buildDaemon(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range engineNames {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := &settings{queue: kind, daemon: bin, say: t.Logf}
			rows, err := s.measureLanes(t.Context(), lanesPlan{bulk: 2000, rate: 500, urgent: 50, every: 5 * time.Millisecond, rounds: 1})
			if err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			for _, row := range rows {
				all.WriteString(row[0] + ": " + row[1] + "\n")
			}
			t.Log(all.String())
			for _, row := range []string{"urgent alone", "urgent beside bulk at max_rate", "urgent beside bulk at full speed"} {
				if !strings.Contains(all.String(), row) {
					t.Errorf("no figure %q", row)
				}
			}
		})
	}
}
