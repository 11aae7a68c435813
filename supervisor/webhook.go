package supervisor

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"

	"propeller/queue"
	"propeller/worker/feedback"
)

// tubeLocks let one webhook at a time serve a feedback tube: two at once would not keep the
// order of the records, and a reload starts a successor while the old webhook still finishes.
// They are by tube, and as few as the tubes that configurations have named.
type tubeLocks map[string]tubeLock

// tubeLock is locked by sending to it.
type tubeLock chan struct{}

func (t tubeLocks) of(tube string) tubeLock {
	if t[tube] == nil {
		t[tube] = make(tubeLock, 1)
	}
	return t[tube]
}

// webhook is an app's webhook: a consumer of its feedback tube. It serves while it has the
// tube's lock.
type webhook struct {
	*feedback.Webhook
	lock        tubeLock
	restartable *restartable // serves the webhook

	// The watchdog's.
	progress progress
	stalled  atomic.Pointer[Stall] // nil: it does not stall
}

// addWebhook adds the app's webhook to its tree, if it has one: under a supervisor of its own,
// so that its failures are not counted against the workers.
func (t *appTree) addWebhook(q queue.Queue, locks tubeLocks) {
	a := t.app
	c := a.cfg.Feedback
	if c.Webhook.IsZero() {
		return
	}
	h := &webhook{lock: locks.of(c.Tube), Webhook: feedback.NewWebhook(feedback.WebhookConfig{
		App: a.cfg.Name, Topic: a.cfg.Topic, Tube: c.Tube, URL: c.Webhook.Reveal(), Secrets: c.Keys(),
		Queue: q, Log: a.log, Counters: &a.totals.webhook,
	})}
	h.restartable = &restartable{service: h}
	sup := suture.New("feedback "+a.cfg.Name, suture.Spec{
		EventHook: eventHook(a.log), Timeout: stopLimit, DontPropagateTermination: true,
	})
	sup.Add(h.restartable)
	t.sup.Add(sup)
	t.webhook = h
}

// Serve waits for the tube's lock, then serves.
func (h *webhook) Serve(ctx context.Context) error {
	select {
	case h.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.lock }()
	return h.Webhook.Serve(ctx)
}

// lookAtWebhook demands progress of an app's webhook as of a worker, if it has reserved records
// or its tube has ready ones. A restart, which makes a new connection to the queue, is all that
// can help it. A webhook that stalls nevertheless delays records and no push, so the app stays
// ready.
func (d *watchdog) lookAtWebhook(a watched, records available) {
	h := a.tree.webhook
	if h == nil {
		return
	}
	s := h.Status()
	if !s.Serving || s.QueueErr != nil || s.Waiting != "" {
		// It waits for the lock, the queue or the endpoint, which is shown elsewhere.
		return
	}
	v := view{reserved: s.Reserved, finished: s.Finished, received: s.Received}
	h.progress.period = time.Duration(d.period.Load())
	if v.reserved > 0 {
		h.progress.period = max(h.progress.period, 2*feedback.RequestTime) // a request may take its time
	} else {
		v.ready, v.known = records.ready, records.known
	}
	now := time.Now()
	what, why := h.progress.look(now, v)
	log, steps := d.log.With("app", a.cfg.Name, "topic", a.cfg.Topic, "reason", why), &a.totals.webhookSteps
	switch what {
	case replace, restart:
		log.Warn("watchdog: no progress: the feedback webhook is restarted")
		steps.Restarted.note(why, now)
		h.restartable.Restart()
	case stall:
		log.Error("watchdog: no progress: the feedback webhook stalls")
		steps.Stalled.note(why, now)
		h.stalled.Store(&Stall{Reason: why, Since: now.Add(-h.progress.total)})
	case recovered:
		log.Info("watchdog: feedback webhook recovered")
		h.stalled.Store(nil)
	}
}
