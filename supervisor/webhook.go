package supervisor

import (
	"context"
	"sync/atomic"

	"github.com/thejerf/suture/v4"

	"propeller/worker/feedback"
)

// turns let one webhook at a time serve a feedback tube: two at once would not
// keep the order of the records, and reloads make a successor while the webhook
// before still finishes. By tube; they are as few as the tubes that
// configurations have named.
type turns map[string]turn

// turn is held by sending to it.
type turn chan struct{}

func (t turns) of(tube string) turn {
	if t[tube] == nil {
		t[tube] = make(turn, 1)
	}
	return t[tube]
}

// addWebhook adds the app's webhook to its tree, if it has one: under a
// supervisor of its own, so that failures of the one are not counted against
// the workers.
func (a *app) addWebhook(t turns) {
	c := a.cfg.Feedback
	if c.Webhook.IsZero() {
		return
	}
	a.webhook = &webhook{turn: t.of(c.Tube), Webhook: feedback.NewWebhook(feedback.WebhookConfig{
		Topic: a.cfg.Topic, Tube: c.Tube, URL: c.Webhook.Reveal(), Secrets: c.Keys(),
		Queue: a.common.Queue, Log: a.common.Log, Counters: &a.ledger.webhook,
	})}
	sup := suture.New("feedback "+a.cfg.Topic, suture.Spec{
		EventHook: eventHook(a.common.Log), Timeout: stopLimit, DontPropagateTermination: true,
	})
	sup.Add(&ordered{a.webhook, feedback.ErrRestarted})
	a.sup.Add(sup)
}

// webhook is a webhook that serves when it is its turn.
type webhook struct {
	*feedback.Webhook
	turn turn

	progress progress              // the watchdog's
	stalled  atomic.Pointer[Stall] // set by the watchdog; nil: it does not stall
}

// Serve waits until no other webhook serves the tube, then serves.
func (w *webhook) Serve(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.turn }()
	return w.Webhook.Serve(ctx)
}
