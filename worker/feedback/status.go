package feedback

import "time"

// WebhookStatus is a webhook at one moment.
type WebhookStatus struct {
	Serving  bool
	Held     int   // records received and not yet settled
	QueueErr error // why no record can be received; nil when one can
	// Received counts jobs received, Finished those delivered or buried; both
	// since NewWebhook, over all restarts of Serve.
	Received, Finished int64
	// Waiting says why the endpoint takes no records, while it is tried again at
	// the times that are due; "" when it takes them, or nobody tries.
	Waiting string
}

// Status may be called at any time.
func (w *Webhook) Status() WebhookStatus {
	s := WebhookStatus{Received: w.received.Load(), Finished: w.finished.Load()}
	f := w.cur.Load()
	if f == nil {
		return s
	}
	s.Serving, s.Held, s.QueueErr = true, int(w.held.Load()), f.consumer.Err()
	if failed := f.failing.Load(); failed != nil && time.Now().Before(failed.next) {
		s.Waiting = failed.reason
	}
	return s
}
