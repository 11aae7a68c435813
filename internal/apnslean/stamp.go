package apnslean

import (
	"strconv"
	"time"
)

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
