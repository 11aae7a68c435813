package feedback

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"propeller/internal/backoff"
	"propeller/queue"
)

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
