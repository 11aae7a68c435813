package apnslean

import (
	"math/bits"
	"strconv"
	"time"
)

const (
	subBits = 5            // 32 steps for each doubling: 3 % of the value
	octaves = 36           // up to 12 days
	steps   = 1 << subBits // the first so many are exact microseconds
	buckets = octaves * steps
)

// Histogram counts times to 3 % of their value, from 1 µs to days. The zero
// value is empty.
type Histogram struct {
	Count   int64
	Max     time.Duration
	buckets [buckets]int64
}

// Add counts d; a negative one, of clocks that were set, as zero.
func (h *Histogram) Add(d time.Duration) {
	h.Count++
	h.Max = max(h.Max, d)
	h.buckets[bucket(max(0, d.Microseconds()))]++
}

// Merge adds what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	h.Count += other.Count
	h.Max = max(h.Max, other.Max)
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
}

// Quantile is the least time that a share q (0 to 1) of those counted do not
// exceed; 0 when none was.
func (h *Histogram) Quantile(q float64) time.Duration {
	left := int64(q * float64(h.Count))
	for i, n := range h.buckets {
		if left -= n; left < 0 {
			return min(top(i), h.Max)
		}
	}
	return h.Max
}

// bucket is the index of a value in microseconds.
func bucket(v int64) int {
	if v < steps {
		return int(v)
	}
	shift := bits.Len64(uint64(v)) - subBits - 1
	return min(buckets-1, shift*steps+int(v>>shift))
}

// top is the largest value of bucket i.
func top(i int) time.Duration {
	if i < steps {
		return time.Duration(i) * time.Microsecond
	}
	shift := i/steps - 1
	return time.Duration(int64(i-shift*steps+1)<<shift-1) * time.Microsecond
}

// stampName is how a payload that carries a time ends: this, 16 digits and a
// closing brace.
const stampName = `"put":`

const stampDigits = 16 // microseconds since 1970, from 2001 to 2286

// Stamp is the last member of a payload's outermost object, by which the
// stand-in tells how long the push took to come: "put", and t in microseconds.
// A payload that ends with it and "}" is timed.
func Stamp(t time.Time) string { return stampName + strconv.FormatInt(t.UnixMicro(), 10) }

// Stamped is the time in a payload that ends with a Stamp; false for any other.
func Stamped(payload []byte) (time.Time, bool) {
	micros, ok := stamp(payload)
	return time.UnixMicro(micros), ok
}

// stamp is Stamped in microseconds since 1970.
func stamp(payload []byte) (micros int64, ok bool) {
	const length = len(stampName) + stampDigits + 1
	start := len(payload) - length
	if start < 0 || payload[len(payload)-1] != '}' || string(payload[start:start+len(stampName)]) != stampName {
		return 0, false
	}
	for _, d := range payload[start+len(stampName) : len(payload)-1] {
		if d < '0' || d > '9' {
			return 0, false
		}
		micros = micros*10 + int64(d-'0')
	}
	return micros, true
}
