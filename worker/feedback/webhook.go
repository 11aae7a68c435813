package feedback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"propeller/internal/backoff"
	"propeller/queue"
)

// Bounds of a batch.
const (
	// maxBatch is the most records in one request: enough that the round trip
	// to the endpoint does not set the pace, few enough to be handled in 10 s.
	maxBatch = 100
	// maxBatchBytes ends a batch early, so that strangers' large jobs cost no
	// memory. It is many times what 100 records have.
	maxBatchBytes = 256 << 10
	// linger is how long a batch waits for more after its first record.
	linger = time.Second
)

// Pauses between failed requests. An endpoint that is away for the night is tried 12 times
// an hour.
const (
	minPause = time.Second
	maxPause = 5 * time.Minute
)

// Bounds of a stop.
const (
	// settleGrace is how long delivered records may still be deleted from the queue, and how
	// long the others may then be released.
	settleGrace = 2 * time.Second
	// closeTimeout bounds the close of the consumer.
	closeTimeout = 5 * time.Second
)

// WebhookConfig configures NewWebhook. It never prints: it holds secrets.
type WebhookConfig struct {
	App   string // its name, for the log
	Topic string // of the app, for the log
	Tube  string // the feedback tube

	// URL is the endpoint, http or https. A user and password in it become
	// basic authentication. Only its scheme and host are ever shown.
	URL string
	// Secrets are the signing keys: at least one, none of them empty. Each request has a
	// signature by each key.
	Secrets [][]byte

	Queue queue.Queue
	// Log gets a line when the endpoint fails or recovers, and one for each job that is not a
	// record. nil: no log.
	Log      *slog.Logger
	Counters *WebhookCounters // nil: not counted
}

// Format implements fmt.Formatter: only the topic is shown, whatever the verb.
func (c WebhookConfig) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "{webhook %s}", c.App) }

// Webhook is a suture service that consumes a feedback tube and posts its records to an HTTP
// endpoint. It sends them in batches, one request at a time, and repeats a batch until the
// endpoint takes it. A record is deleted from the tube when its request was answered 2xx, so
// each arrives at least once; while the endpoint is down, records stay in the queue.
//
// Records arrive in the order of the tube, also across failed requests, as long as one Webhook
// at a time serves the tube and the queue is one server. Memory holds one batch.
type Webhook struct {
	cfg      WebhookConfig
	endpoint string // scheme and host; "" when the URL cannot be one
	client   *http.Client
	pause    backoff.Backoff // between failed requests

	cur atomic.Pointer[run] // nil while nothing serves
	// See WebhookStatus.
	received, finished, reserved atomic.Int64
}

// NewWebhook returns a webhook that is not served yet.
func NewWebhook(c WebhookConfig) *Webhook {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Counters == nil {
		c.Counters = new(WebhookCounters)
	}
	w := &Webhook{cfg: c, client: newClient(), pause: backoff.Backoff{Min: minPause, Max: maxPause}}
	if u, err := url.Parse(c.URL); err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
		w.endpoint = u.Scheme + "://" + u.Host
	}
	w.cfg.Log = c.Log.With("app", c.App, "topic", c.Topic, "endpoint", w.endpoint)
	return w
}

// String names the webhook in suture's events.
func (w *Webhook) String() string { return "webhook " + w.cfg.App }

// Serve delivers until ctx ends, and returns ctx.Err(). The request in progress is cut off
// then, and the records that were not delivered go back to the tube. Any other error means
// that the configuration cannot work.
func (w *Webhook) Serve(ctx context.Context) error {
	switch {
	case w.endpoint == "":
		return fmt.Errorf("feedback: webhook of %s: the URL must be http://… or https://…", w.cfg.App)
	case len(w.cfg.Secrets) == 0 || slices.ContainsFunc(w.cfg.Secrets, func(s []byte) bool { return len(s) == 0 }):
		return fmt.Errorf("feedback: webhook of %s: no secret", w.cfg.App)
	}
	c, err := w.cfg.Queue.Consume(w.cfg.Tube)
	if err != nil {
		return fmt.Errorf("feedback: webhook of %s: %w", w.cfg.App, err)
	}
	r := &run{Webhook: w, consumer: c, limit: maxBatch, pause: w.pause}
	w.cur.Store(r)
	defer w.cur.Store(nil)
	defer w.client.CloseIdleConnections()
	defer r.stop()
	for {
		if err := r.collect(ctx); err != nil {
			return err
		}
		if err := r.deliver(ctx); err != nil {
			return err
		}
	}
}

// run is one Serve of a webhook. It belongs to Serve's goroutine.
type run struct {
	*Webhook
	consumer queue.Consumer
	batch    []queue.Job // received and not yet settled, in the order of the tube
	limit    int         // most records in a request: halved whenever the endpoint answers 413
	pause    backoff.Backoff
}

// collect waits for a record and makes a batch of it and of those that arrive within linger.
// Jobs that are not records are buried.
//
// It asks for one job at a time, because a consumer that reserves several need not hand them
// out in order. For the same reason it does not pause the consumer between batches: the next
// job could overtake one that went back. So one job beyond the batch may be reserved.
func (r *run) collect(ctx context.Context) error {
	size := 0
	wait := ctx // for the first record: as long as it takes
	for len(r.batch) < r.limit && size < maxBatchBytes {
		jobs, err := r.consumer.Receive(wait, 1)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case len(r.batch) > 0 && wait.Err() != nil:
			return nil
		default:
			return err // a closed consumer
		}
		r.received.Add(int64(len(jobs)))
		for _, j := range jobs {
			if _, err := parse(j.Body()); err != nil {
				r.bury(ctx, j, err)
				continue
			}
			r.batch = append(r.batch, j)
			r.reserved.Store(int64(len(r.batch)))
			size += len(j.Body())
			if len(r.batch) == 1 {
				short, cancel := context.WithTimeout(ctx, linger)
				defer cancel() // once: there is one first record
				wait = short
			}
		}
	}
	return nil
}

// bury buries a job that somebody else put into the tube.
func (r *run) bury(ctx context.Context, j queue.Job, why error) {
	r.cfg.Counters.Buried.Add(1)
	r.finished.Add(1)
	r.cfg.Log.Warn("job in the feedback tube is not a record: buried", "tube", r.cfg.Tube, "job", j.ID(), "reason", why)
	if err := j.Bury(ctx, nil); err != nil && !errors.Is(err, queue.ErrLost) && ctx.Err() == nil {
		r.cfg.Log.Warn("job could not be buried", "tube", r.cfg.Tube, "job", j.ID(), "err", err)
		_ = j.Retry(ctx, unburied) // after a refused burial the job is still reserved
	}
}

// unburied is the delay of a job that could not be buried.
const unburied = time.Minute

// deliver posts the batch until the endpoint has taken all of it, or ctx ends.
func (r *run) deliver(ctx context.Context) error {
	for len(r.batch) > 0 {
		part := r.batch[:min(len(r.batch), r.limit)]
		a := r.post(ctx, requestBody(part))
		switch {
		case a.ok:
			r.up(len(part))
			r.batch = r.batch[len(part):]
			r.settle(ctx, part)
			r.reserved.Store(int64(len(r.batch)))
			r.finished.Add(int64(len(part)))
		case ctx.Err() != nil:
			return ctx.Err()
		case a.tooLarge && len(part) > 1:
			r.cfg.Counters.Failed.Add(1)
			r.limit = len(part) / 2
			r.cfg.Log.Info("feedback webhook: the endpoint answered 413, requests become smaller", "records", r.limit)
		default:
			wait := max(r.pause.Next(), a.retryAfter)
			r.down(a.reason, wait)
			if err := backoff.Sleep(ctx, wait); err != nil {
				return err
			}
		}
	}
	r.batch = nil // let the array go
	return ctx.Err()
}

// stop releases what is not delivered and closes the consumer. The close would release it as
// well, but beanstalkd notices the end of a connection in its own time: a successor could get
// the records behind these first.
func (r *run) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), settleGrace)
	defer cancel()
	r.reserved.Store(0)
	for _, j := range r.batch {
		_ = j.Retry(ctx, 0) // if that fails, the close releases it
	}
	ctx, cancel = context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := r.consumer.Close(ctx); err != nil {
		r.cfg.Log.Warn("feedback webhook: some records may be sent again", "err", err)
	}
}

// up notes that n records were taken.
func (r *run) up(n int) {
	r.pause.Reset()
	if since, wasDown := r.cfg.Counters.succeed(n); wasDown {
		r.cfg.Log.Info("feedback webhook takes records again", "after", time.Since(since).Round(time.Millisecond))
	}
}

// down notes a failed request.
func (r *run) down(reason string, wait time.Duration) {
	now := time.Now()
	level, msg := slog.LevelDebug, "feedback webhook still takes no records"
	if r.cfg.Counters.fail(now, now.Add(wait+RequestTime+settleGrace), reason) {
		level, msg = slog.LevelWarn, "feedback webhook takes no records; they stay in the queue"
	}
	r.cfg.Log.Log(context.Background(), level, msg, "reason", reason, "next_try", wait.Round(time.Millisecond))
}

// settle deletes delivered records, first to last, so that what a crash leaves is the end of
// the batch, in order. It waits for a queue that is down, so that nothing is sent twice, but
// only for settleGrace after ctx has ended.
func (r *run) settle(ctx context.Context, part []queue.Job) {
	ctx, cancel := outlive(ctx, settleGrace)
	defer cancel()
	var failed error
	left := 0
	for _, j := range part {
		err := j.Done(ctx)
		if err == nil {
			continue
		}
		r.cfg.Counters.Undeleted.Add(1)
		if !errors.Is(err, queue.ErrLost) { // a lost one is reserved by somebody else, or gone
			failed = err
			left++
		}
	}
	if failed != nil {
		r.cfg.Log.Warn("feedback webhook: delivered records could not be deleted and will be sent again", "records", left, "err", failed)
	}
}

// outlive returns a context that ends d after ctx does.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() { stop(); cancel() }
}
