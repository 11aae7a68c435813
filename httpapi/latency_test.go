package httpapi

import (
	"encoding/json"
	"testing"
	"time"

	"propeller/worker"
)

func TestLatency(t *testing.T) {
	t.Parallel()
	if l := latencyOf(new(worker.Histogram)); l != nil {
		t.Errorf("of no pushes: %+v", l)
	}
	for _, c := range []struct {
		buckets  []bucket
		p50, p99 float64
	}{
		{[]bucket{{5, 100}, {10, 0}, {0, 0}}, 2.5, 5}, // 4.95 to a tenth
		{[]bucket{{5, 0}, {10, 98}, {25, 2}, {0, 0}}, 7.6, 17.5},
		{[]bucket{{5, 1}, {10, 0}, {0, 1}}, 5, 10}, // beyond all bounds only the last is known
		{[]bucket{{5, 0}, {10, 0}, {0, 1}}, 10, 10},
	} {
		if l := newLatency(c.buckets); l.P50 != c.p50 || l.P99 != c.p99 {
			t.Errorf("%v: p50 %v, p99 %v; want %v, %v", c.buckets, l.P50, l.P99, c.p50, c.p99)
		}
	}
}

func TestLatencySince(t *testing.T) {
	t.Parallel()
	now := newLatency([]bucket{{5, 100}, {10, 20}, {0, 0}})
	for name, c := range map[string]struct {
		now, earlier *Latency
		pushes       uint64
		p50          float64
	}{
		"no push yet":    {nil, nil, 0, 0},
		"the first":      {now, nil, 120, 3},
		"some more":      {now, newLatency([]bucket{{5, 100}, {10, 10}, {0, 0}}), 10, 7.5},
		"none more":      {now, now, 0, 0},
		"a restart":      {now, newLatency([]bucket{{5, 10}, {10, 30}, {0, 0}}), 120, 3},
		"other versions": {now, newLatency([]bucket{{5, 1}, {0, 0}}), 120, 3},
	} {
		got := c.now.Since(c.earlier)
		switch {
		case c.pushes == 0 && got != nil:
			t.Errorf("%s: %+v", name, got)
		case c.pushes > 0 && (got == nil || got.Pushes != c.pushes || got.P50 != c.p50):
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// An app of which all is known, pushes too, is as the OpenAPI document says.
func TestAppInOpenAPI(t *testing.T) {
	t.Parallel()
	doc, _ := loadOpenAPI(t)
	s := fullApp()
	app := appOf(&s)
	app.Active = time.Now()
	app.Latency = newLatency([]bucket{{5, 100}, {0, 1}})
	app.Failures = []failure{{Token: "00fc13ad", Class: "token", Status: 410, Reason: "410 Unregistered", APNsID: "x", MS: 30}, {Class: "unknown"}}
	text, err := json.Marshal(app)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if err := doc.Components.Schemas["App"].Value.VisitJSON(v); err != nil {
		t.Errorf("%s: %v", text, err)
	}
}
