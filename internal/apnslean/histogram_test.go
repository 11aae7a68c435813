package apnslean

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h, other Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("empty: %v", got)
	}
	for i := 1; i <= 1000; i++ {
		into := &h
		if i%2 == 0 {
			into = &other
		}
		into.Add(time.Duration(i) * 10 * time.Microsecond)
	}
	h.Merge(&other)
	if h.Count != 1000 || h.Max != 10*time.Millisecond {
		t.Errorf("%d counted, at most %v", h.Count, h.Max)
	}
	for _, test := range []struct {
		q    float64
		want time.Duration
	}{{0, 10 * time.Microsecond}, {0.5, 5 * time.Millisecond}, {0.99, 9910 * time.Microsecond}, {1, 10 * time.Millisecond}} {
		got := h.Quantile(test.q)
		if diff := (got - test.want).Abs(); diff > test.want/30+time.Microsecond {
			t.Errorf("quantile %v: %v, want about %v", test.q, got, test.want)
		}
	}
}

// Every value lies in its bucket, and buckets follow each other without gaps.
func TestBuckets(t *testing.T) {
	t.Parallel()
	for i := range 900 {
		last := top(i).Microseconds()
		if bucket(last) != i || bucket(last+1) != i+1 {
			t.Fatalf("bucket %d ends at %d µs, but %d is in %d and %d in %d", i, last, last, bucket(last), last+1, bucket(last+1))
		}
	}
	var h Histogram
	h.Add(-time.Second)
	h.Add(1 << 62)
	if h.buckets[0] != 1 || h.buckets[buckets-1] != 1 {
		t.Error("what is out of range is not counted")
	}
}

func TestStamp(t *testing.T) {
	t.Parallel()
	now := time.Now()
	if got, ok := stamp([]byte(`{"aps":{},` + Stamp(now) + "}")); !ok || got != now.UnixMicro() {
		t.Errorf("%d, %v; want %d", got, ok, now.UnixMicro())
	}
	for _, text := range []string{"", "}", `{"aps":{}}`, `{` + Stamp(now), `{"put":17000000000000x0}`, `{"pat":1700000000000000}`} {
		if got, ok := stamp([]byte(text)); ok {
			t.Errorf("%q: %d", text, got)
		}
	}
}
