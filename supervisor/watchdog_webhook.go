package supervisor

import (
	"time"

	"propeller/worker/feedback"
)

// lookAtWebhook demands progress of an app's webhook as of a worker: records that
// it holds or that are ready in its tube. All that can be mended is its
// connection to the queue, by a restart; one that stalls all the same delays
// records and no push, so that the app stays ready.
func (d *watchdog) lookAtWebhook(a *app, records available) {
	h := a.webhook
	if h == nil {
		return
	}
	s := h.Status()
	if !s.Serving || s.QueueErr != nil || s.Waiting != "" {
		// It is not its turn, there is no queue, or the endpoint takes no records:
		// all of that is told elsewhere.
		return
	}
	v := view{held: s.Held, finished: s.Finished, received: s.Received}
	h.progress.period = time.Duration(d.period.Load())
	if v.held > 0 {
		h.progress.period = max(h.progress.period, 2*feedback.RequestTime) // a request may take its time
	} else {
		v.ready, v.known = records.ready, records.known
	}
	now := time.Now()
	what, why := h.progress.look(now, v)
	log := d.log.With("topic", a.cfg.Topic, "reason", why)
	switch what {
	case replace, restart:
		log.Warn("watchdog: no progress: the feedback webhook is restarted")
		a.ledger.webhookSteps.Restarted.note(why, now)
		h.Restart(why)
	case stall:
		log.Error("watchdog: no progress: the feedback webhook stalls")
		a.ledger.webhookSteps.Stalled.note(why, now)
		h.stalled.Store(&Stall{Reason: why, Since: now.Add(-h.progress.total)})
	case mended:
		log.Info("watchdog: feedback webhook recovered")
		h.stalled.Store(nil)
	}
}
