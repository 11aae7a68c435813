package feedback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
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

// Times of the end.
const (
	// settleGrace is how long after the order to stop delivered records may
	// still be deleted from the queue, and then others be given back.
	settleGrace = 2 * time.Second
	// closeTimeout bounds the close of the consumer.
	closeTimeout = 5 * time.Second
	// stuckTime is how long after the order to stop a consumer may take to notice
	// that no record is wanted any more: settling comes before.
	stuckTime = settleGrace + time.Second
)

// WebhookConfig configures NewWebhook. It never prints: it holds secrets.
type WebhookConfig struct {
	Topic string // of the app, for the log
	Tube  string // the feedback tube

	// URL is the endpoint, http or https. A user and password in it become
	// basic authentication. Only its scheme and host are ever shown.
	URL string
	// Secrets are the keys of the signatures, of which each request has one by each:
	// at least one, none of them empty.
	Secrets [][]byte

	Queue queue.Queue
	// Client makes the requests; its CheckRedirect and Timeout are not used. nil:
	// one of its own, with one connection and the proxy of the environment.
	Client *http.Client
	// Log gets a line per change of the endpoint's state and per job that is no
	// record. nil: no log.
	Log *slog.Logger
	// Counters are counted up. nil: nobody looks.
	Counters *WebhookCounters
}

// Format implements fmt.Formatter: only the topic is shown, whatever the verb.
func (c WebhookConfig) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "{webhook %s}", c.Topic) }

// Webhook is a suture service that posts the records of a feedback tube to an
// HTTP endpoint: in batches, one request at a time, each batch until it is
// taken. A record is deleted from the tube when its request was answered 2xx,
// so each arrives at least once; while the endpoint is away they stay in the
// queue.
//
// Records arrive in the order of the tube, also across failed requests, as
// long as one Webhook at a time serves the tube and the queue is one server.
// Memory holds one batch.
type Webhook struct {
	cfg      WebhookConfig
	endpoint string // scheme and host; "" when the URL cannot be one
	client   *http.Client
	pause    backoff.Backoff // between failed requests

	cur                      atomic.Pointer[feed] // nil: it does not serve
	received, finished, held atomic.Int64         // see WebhookStatus
}

// NewWebhook returns a webhook that is not served yet.
func NewWebhook(c WebhookConfig) *Webhook {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Counters == nil {
		c.Counters = new(WebhookCounters)
	}
	w := &Webhook{cfg: c, client: newClient(c.Client), pause: backoff.Backoff{Min: minPause, Max: maxPause}}
	if u, err := url.Parse(c.URL); err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
		w.endpoint = u.Scheme + "://" + u.Host
	}
	w.cfg.Log = c.Log.With("topic", c.Topic, "endpoint", w.endpoint)
	return w
}

// String names the webhook in suture's events.
func (w *Webhook) String() string { return "webhook " + w.cfg.Topic }

// ErrRestarted ends Serve by order of Restart.
var ErrRestarted = errors.New("restarted")

// Restart makes Serve give its records back and return an error that names reason
// and wraps ErrRestarted, to be served anew. It has no effect while nothing serves.
func (w *Webhook) Restart(reason string) {
	if f := w.cur.Load(); f != nil {
		f.restart(fmt.Errorf("feedback: webhook of %s: %w: %s", w.cfg.Topic, ErrRestarted, reason))
	}
}

// Serve delivers until ctx ends, and returns ctx.Err(): a request in progress is
// cut off, and what was not delivered is back in the queue. Other errors are
// Restart's, or a configuration that can never work.
func (w *Webhook) Serve(ctx context.Context) error {
	switch {
	case w.endpoint == "":
		return fmt.Errorf("feedback: webhook of %s: the URL must be http://… or https://…", w.cfg.Topic)
	case len(w.cfg.Secrets) == 0 || slices.ContainsFunc(w.cfg.Secrets, func(s []byte) bool { return len(s) == 0 }):
		return fmt.Errorf("feedback: webhook of %s: no secret", w.cfg.Topic)
	}
	c, err := w.cfg.Queue.Consume(w.cfg.Tube)
	if err != nil {
		return fmt.Errorf("feedback: webhook of %s: %w", w.cfg.Topic, err)
	}
	ctx, restart := context.WithCancelCause(ctx)
	defer restart(nil)
	f := &feed{Webhook: w, consumer: c, limit: maxBatch, pause: w.pause, restart: restart}
	w.cur.Store(f)
	defer w.cur.Store(nil)
	defer f.close()
	defer w.client.CloseIdleConnections()
	defer f.giveBack()
	err = f.runUnstuck(ctx)
	if cause := context.Cause(ctx); errors.Is(cause, ErrRestarted) {
		return cause
	}
	return err
}

// runUnstuck is run. When ctx has ended and a Receive does not, it closes the
// consumer beneath it.
func (f *feed) runUnstuck(ctx context.Context) error {
	ended, freed := make(chan struct{}), make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(freed)
		limit := time.NewTimer(stuckTime)
		defer limit.Stop()
		select {
		case <-ended:
			return
		case <-limit.C:
		}
		f.cfg.Log.Warn("feedback webhook: the queue's consumer does not stop: closing it")
		f.close()
	})
	defer func() {
		close(ended)
		if !unwatch() {
			<-freed
		}
	}()
	return f.run(ctx)
}

func (f *feed) run(ctx context.Context) error {
	for {
		if err := f.collect(ctx); err != nil {
			return err
		}
		if err := f.deliver(ctx); err != nil {
			return err
		}
	}
}

// close gives back what is not settled, once.
func (f *feed) close() {
	f.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := f.consumer.Close(ctx); err != nil {
			f.cfg.Log.Warn("feedback webhook: some records may be sent again", "err", err)
		}
	})
}

// feed is one run of a webhook. It belongs to the goroutine of Serve, but for
// restart, close and failing.
type feed struct {
	*Webhook
	consumer queue.Consumer
	batch    []queue.Job // received and not yet settled, in the order of the tube
	limit    int         // records a request may have: halved whenever the endpoint answers 413
	pause    backoff.Backoff

	restart context.CancelCauseFunc // ends Serve, as Webhook.Restart
	closing sync.Once               // of consumer
	failing atomic.Pointer[failure] // nil: the last request was taken
}

// failure is a request that was not taken.
type failure struct {
	reason string
	next   time.Time // when the next one should have ended at the latest
}

// collect waits for a record and makes a batch of it and those that come within
// linger of it. Jobs that are no records are buried.
//
// Jobs are asked for one by one: a consumer that may reserve several at a time
// need not hand them out in order. For the same reason it is not paused between
// batches: a job that went back might be overtaken by the one behind it. So one
// job beyond the batch may be reserved.
func (f *feed) collect(ctx context.Context) error {
	size := 0
	wait := ctx // for the first record: as long as it takes
	for len(f.batch) < f.limit && size < maxBatchBytes {
		jobs, err := f.consumer.Receive(wait, 1)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case len(f.batch) > 0 && wait.Err() != nil:
			return nil
		default:
			return err // a closed consumer
		}
		f.received.Add(int64(len(jobs)))
		for _, j := range jobs {
			if _, err := parse(j.Body()); err != nil {
				f.bury(ctx, j, err)
				continue
			}
			f.batch = append(f.batch, j)
			f.held.Store(int64(len(f.batch)))
			size += len(j.Body())
			if len(f.batch) == 1 {
				short, cancel := context.WithTimeout(ctx, linger)
				defer cancel() // once: there is one first record
				wait = short
			}
		}
	}
	return nil
}

// bury sets a job aside that is not ours to delete.
func (f *feed) bury(ctx context.Context, j queue.Job, why error) {
	f.cfg.Counters.Buried.Add(1)
	f.finished.Add(1)
	f.cfg.Log.Warn("job on the feedback tube is no record: buried", "tube", f.cfg.Tube, "job", j.ID(), "reason", why)
	if err := j.Bury(ctx, nil); err != nil && !errors.Is(err, queue.ErrLost) && ctx.Err() == nil {
		f.cfg.Log.Warn("job could not be buried", "tube", f.cfg.Tube, "job", j.ID(), "err", err)
		_ = j.Retry(ctx, unburied) // the queue refuses burials now, so the job is still held
	}
}

// unburied is when a job comes again that could not be buried.
const unburied = time.Minute

// deliver posts the batch until the endpoint has taken all of it, or ctx ends.
func (f *feed) deliver(ctx context.Context) error {
	for len(f.batch) > 0 {
		part := f.batch[:min(len(f.batch), f.limit)]
		a := f.post(ctx, requestBody(part))
		switch {
		case a.ok:
			f.up(len(part))
			f.batch = f.batch[len(part):]
			f.settle(ctx, part)
			f.held.Store(int64(len(f.batch)))
			f.finished.Add(int64(len(part)))
		case ctx.Err() != nil:
			return ctx.Err()
		case a.tooLarge && len(part) > 1:
			f.cfg.Counters.Failed.Add(1)
			f.limit = len(part) / 2
			f.cfg.Log.Info("feedback webhook: the endpoint answered 413, requests become smaller", "records", f.limit)
		default:
			wait := max(f.pause.Next(), a.retryAfter)
			f.down(a.reason, wait)
			if err := backoff.Sleep(ctx, wait); err != nil {
				return err
			}
		}
	}
	f.batch = nil // let the array go
	return ctx.Err()
}

// giveBack returns what is not delivered to the tube. Closing the consumer
// would, too, but beanstalkd notices the end of a connection in its own time: a
// successor could get what is behind these records first.
func (f *feed) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), settleGrace)
	defer cancel()
	f.held.Store(0)
	for _, j := range f.batch {
		_ = j.Retry(ctx, 0) // if that fails, the close gives it back
	}
}

// up notes that n records were taken.
func (f *feed) up(n int) {
	f.pause.Reset()
	f.failing.Store(nil)
	if since, wasDown := f.cfg.Counters.succeed(n); wasDown {
		f.cfg.Log.Info("feedback webhook takes records again", "after", time.Since(since).Round(time.Millisecond))
	}
}

// down notes a failed request.
func (f *feed) down(reason string, wait time.Duration) {
	f.failing.Store(&failure{reason, time.Now().Add(wait + RequestTime + settleGrace)})
	if f.cfg.Counters.fail(time.Now(), reason) {
		f.cfg.Log.Warn("feedback webhook takes no records; they stay in the queue", "reason", reason, "next_try", wait.Round(time.Millisecond))
		return
	}
	f.cfg.Log.Debug("feedback webhook still takes no records", "reason", reason, "next_try", wait.Round(time.Millisecond))
}

// settle deletes delivered records, first to last: what a crash leaves over is
// the end of the batch, in order. During an outage of the queue it waits for
// it, so that nothing is sent twice because of that; when ctx ends, not for
// much longer.
func (f *feed) settle(ctx context.Context, part []queue.Job) {
	ctx, cancel := outlive(ctx, settleGrace)
	defer cancel()
	var failed error
	left := 0
	for _, j := range part {
		err := j.Done(ctx)
		if err == nil {
			continue
		}
		f.cfg.Counters.Undeleted.Add(1)
		if !errors.Is(err, queue.ErrLost) { // lost: somebody else's now, or deleted
			failed = err
			left++
		}
	}
	if failed != nil {
		f.cfg.Log.Warn("feedback webhook: delivered records could not be deleted and will be sent again", "records", left, "err", failed)
	}
}

// outlive returns a context that ends d after ctx does.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return longer, func() { stop(); cancel() }
}
