package feedback

import (
	"sync/atomic"
	"time"
)

// WebhookCounters count what a webhook did. They outlive it: its successor goes on with them.
// The zero value is ready for use, from any goroutine.
type WebhookCounters struct {
	Delivered atomic.Int64 // records in requests answered 2xx
	Batches   atomic.Int64 // requests answered 2xx
	Failed    atomic.Int64 // requests answered otherwise, or not at all
	Undeleted atomic.Int64 // records delivered whose reservation was lost or that could not be deleted: they may come again
	Buried    atomic.Int64 // jobs in the tube that were not records

	failing atomic.Pointer[failure] // nil: the last request was taken
}

// failure says that requests fail.
type failure struct {
	since  time.Time // when the first of them failed
	reason string    // of the last
	next   time.Time // the next one should have ended by then
}

// Down reports whether the last request failed, why, and since when all requests have failed.
// reason holds no secret, token or part of the URL.
func (c *WebhookCounters) Down() (since time.Time, reason string, down bool) {
	if f := c.failing.Load(); f != nil {
		return f.since, f.reason, true
	}
	return time.Time{}, "", false
}

// fail notes a failed request and reports whether it is the first. next is when the next one
// should have ended.
func (c *WebhookCounters) fail(now, next time.Time, reason string) (first bool) {
	c.Failed.Add(1)
	was := c.failing.Load()
	if was != nil {
		now = was.since
	}
	c.failing.Store(&failure{now, reason, next})
	return was == nil
}

// succeed notes n delivered records and reports whether the request before had failed, and since
// when.
func (c *WebhookCounters) succeed(n int) (since time.Time, wasDown bool) {
	c.Delivered.Add(int64(n))
	c.Batches.Add(1)
	if f := c.failing.Swap(nil); f != nil {
		return f.since, true
	}
	return time.Time{}, false
}

// WebhookStatus is a webhook at one moment.
type WebhookStatus struct {
	Serving  bool
	Reserved int   // records received and not yet settled
	QueueErr error // why no record can be received; nil when one can
	// Received counts the jobs received since NewWebhook, Finished those delivered or buried.
	Received, Finished int64
	// Waiting says why the endpoint takes no records, while it is retried on time; "" when it
	// takes them, or is not tried.
	Waiting string
}

// Status may be called at any time.
func (w *Webhook) Status() WebhookStatus {
	s := WebhookStatus{Received: w.received.Load(), Finished: w.finished.Load()}
	r := w.cur.Load()
	if r == nil {
		return s
	}
	s.Serving, s.Reserved, s.QueueErr = true, int(w.reserved.Load()), r.consumer.Err()
	if f := w.cfg.Counters.failing.Load(); f != nil && time.Now().Before(f.next) {
		s.Waiting = f.reason
	}
	return s
}
