package supervisor

import (
	"context"

	"github.com/thejerf/suture/v4"

	"propeller/worker/feedback"
)

// addWebhook adds the app's webhook to its tree, if it has one: under a
// supervisor of its own, so that failures of the one are not counted against
// the workers. old is the app's predecessor, or nil.
func (a *app) addWebhook(old *app) {
	c := a.cfg.Feedback
	if c.Webhook.IsZero() {
		return
	}
	service := &successor{service: feedback.NewWebhook(feedback.WebhookConfig{
		Topic: a.cfg.Topic, Tube: c.Tube, URL: c.Webhook.Reveal(), Secret: []byte(c.Secret.Reveal()),
		Queue: a.common.Queue, Log: a.common.Log, Counters: &a.ledger.webhook,
	})}
	if old != nil {
		service.before = old.webhook
	}
	a.webhook = &member{service: service}
	sup := suture.New("feedback "+a.cfg.Topic, suture.Spec{
		EventHook: eventHook(a.common.Log), Timeout: stopLimit, DontPropagateTermination: true,
	})
	sup.Add(a.webhook)
	a.sup.Add(sup)
}

// successor is a webhook that begins when the one before it has stopped: two
// at once would not keep the order of the records.
type successor struct {
	service *feedback.Webhook
	before  *member // nil: none, or it has stopped
}

// String names the webhook in suture's events.
func (s *successor) String() string { return s.service.String() }

// Serve waits for the webhook before, then serves.
func (s *successor) Serve(ctx context.Context) error {
	if s.before != nil {
		select {
		case <-s.before.stopped():
		case <-ctx.Done():
			return ctx.Err()
		}
		s.before = nil
	}
	return s.service.Serve(ctx)
}
