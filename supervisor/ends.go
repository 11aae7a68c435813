package supervisor

import (
	"sync/atomic"
	"time"

	"propeller/apnsconn"
	"propeller/worker"
)

// ends is a worker.Sink that knows how the pushes of the last five minutes have
// ended. It is told of each push, by many goroutines, so that it has no lock: at
// the turn of a bucket a few may go uncounted. The zero value is ready for use.
type ends struct {
	buckets [30]endsBucket
	last    atomic.Pointer[string] // why the last one failed, to about a second
	lastAt  atomic.Int64           // Unix seconds of it
}

// endsBucket is what one stretch of bucketTime has seen.
type endsBucket struct {
	turn       atomic.Int64 // the stretch's number since 1970
	ended, bad atomic.Int32
}

const bucketTime = 10 // seconds

// tally is how many pushes have ended, and how many of them badly.
type tally struct {
	ended, bad int
	last       string // why the last bad one did
}

// Pushed counts a push that has ended by an answer, or by none. What a connection
// gave back unsent has not ended.
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

// bucket is the one of a turn; nil if that is over.
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

// tally adds up what is not older than five minutes.
func (e *ends) tally(now time.Time) (t tally) {
	turn := now.Unix() / bucketTime
	for i := range e.buckets {
		b := &e.buckets[i]
		if is := b.turn.Load(); is > turn-int64(len(e.buckets)) && is <= turn {
			t.ended += int(b.ended.Load())
			t.bad += int(b.bad.Load())
		}
	}
	if last := e.last.Load(); last != nil && t.bad > 0 {
		t.last = *last
	}
	return t
}

// forget begins anew, for an app that has changed.
func (e *ends) forget() {
	for i := range e.buckets {
		e.buckets[i].turn.Store(0)
	}
}
