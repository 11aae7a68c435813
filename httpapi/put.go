package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
)

// putTime bounds one put: the queue answers in milliseconds or not at all.
const putTime = 10 * time.Second

// Put is the answer of POST /v1/apps/{topic}/jobs.
type Put struct {
	ID string `json:"id"` // as the queue calls the job
}

// put puts the job that the request's body is: the way to a queue that only the
// daemon can reach, because it is inside its process.
func (a *API) put(w http.ResponseWriter, r *http.Request, c *client) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	id, err := a.putBody(w, r, c)
	if err != nil {
		p := Problem{Status: statusOf(err), Detail: err.Error(), Uncertain: errors.Is(err, queue.ErrUncertain)}
		if fault, ok := errors.AsType[*worker.JobError](err); ok {
			p.Key = fault.Key
		}
		p.answer().write(w)
		return
	}
	writeJSON(w, http.StatusOK, Put{id})
}

func (a *API) putBody(w http.ResponseWriter, r *http.Request, c *client) (id string, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), putTime)
	defer cancel()
	topic := r.PathValue("topic")
	// First: of an app that is not there nothing else is to be said.
	if _, _, err := a.tree.Jobs(topic); errors.Is(err, supervisor.ErrNoApp) {
		return "", err
	}
	var delay time.Duration
	if wait := r.URL.Query().Get("delay"); wait != "" {
		if delay, err = time.ParseDuration(wait); err != nil || delay < 0 || delay > worker.MaxDelay {
			return "", fmt.Errorf("%w: delay %q: must be a duration such as 10s, of a year at most", errBody, wait)
		}
	}
	body, free, err := a.body(ctx, w, r, c)
	defer free()
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled): // no fault of the body's
		return "", err
	case err != nil:
		return "", fmt.Errorf("%w: %w", errBody, err)
	}
	if !c.limit.Allow() {
		return "", c.overRate()
	}
	job, err := worker.ParseProduced(body, topic)
	if err != nil {
		return "", fmt.Errorf("%w: the job would be buried: %w", errBody, err)
	}
	return a.remember(topic, delay, max(1, len(job.Tokens)), func() (string, error) { return a.tree.Put(ctx, topic, body, delay) })
}

// remember has what becomes of the job that put puts be told to who asks.
func (a *API) remember(topic string, delay time.Duration, tokens int, put func() (id string, err error)) (id string, err error) {
	err = errPanic
	a.o.Outcomes.begin()
	defer func() { a.o.Outcomes.end(donePut{id, topic, delay, tokens, err}) }() // also after a panic
	return put()
}
