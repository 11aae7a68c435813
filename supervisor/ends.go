package supervisor

import (
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/worker"
)

// ends is a worker.Sink that counts how the pushes of the last five minutes ended. Many
// goroutines report to it, so it has no lock: when a bucket is reused, a few pushes may
// go uncounted. The zero value is ready for use.
type ends struct {
	buckets [30]endsBucket
	last    atomic.Pointer[string] // why the last push failed, to about a second
	lastAt  atomic.Int64           // when it failed, in Unix seconds
}

// endsBucket counts the pushes of one bucketTime.
type endsBucket struct {
	turn       atomic.Int64 // Unix time / bucketTime
	ended, bad atomic.Int32
}

const bucketTime = 10 // seconds

// tally is how many of the latest pushes ended, and how many of them failed.
type tally struct {
	ended, bad int
	within     time.Duration // when they ended; at most five minutes ago
	last       string        // why the last bad one failed
}

// Pushed counts a push that was answered, or had no answer in time. A push that a
// connection gave back unsent has not ended.
func (e *ends) Pushed(ev *worker.Event) {
	if !ev.Sent || ev.Action == worker.Tried || ev.Class == apnsconn.NotSent {
		return
	}
	now := ev.At.Unix()
	b := e.bucket(now / bucketTime)
	if b == nil {
		return
	}
	b.ended.Add(int32(ev.N))
	switch ev.Class {
	case apnsconn.Delivered, apnsconn.Token, apnsconn.Throttled:
		return
	}
	b.bad.Add(int32(ev.N))
	if at := e.lastAt.Load(); now > at && e.lastAt.CompareAndSwap(at, now) {
		why := ev.Detail()
		e.last.Store(&why)
	}
}

// bucket returns the bucket of a turn; nil if that turn is over.
func (e *ends) bucket(turn int64) *endsBucket {
	b := &e.buckets[turn%int64(len(e.buckets))]
	if was := b.turn.Load(); was != turn {
		if was > turn {
			return nil
		}
		if b.turn.CompareAndSwap(was, turn) {
			b.ended.Store(0)
			b.bad.Store(0)
		}
	}
	return b
}

// tally adds up the latest buckets: as many as it takes for fewEnded pushes, two at
// least, and all five minutes if an app sends little. So an app that sends much begins
// and ends to fail within half a minute.
func (e *ends) tally(now time.Time) (t tally) {
	turn := now.Unix() / bucketTime
	for i := range int64(len(e.buckets)) {
		if b := &e.buckets[(turn-i)%int64(len(e.buckets))]; b.turn.Load() == turn-i {
			t.ended += int(b.ended.Load())
			t.bad += int(b.bad.Load())
		}
		t.within = time.Duration(i+1) * bucketTime * time.Second
		if i > 0 && t.ended >= fewEnded {
			break
		}
	}
	if last := e.last.Load(); last != nil && t.bad > 0 {
		t.last = *last
	}
	return t
}

// forget empties e, for an app that has changed.
func (e *ends) forget() {
	for i := range e.buckets {
		e.buckets[i].turn.Store(0)
	}
}
