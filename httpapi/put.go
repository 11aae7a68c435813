package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"propeller/queue"
	"propeller/worker/job"
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
	ctx, cancel := context.WithTimeout(r.Context(), putTime)
	defer cancel()
	delay, err := a.putLater(r)
	if err != nil {
		putProblem(err).write(w)
		return
	}
	body, free, err := a.body(ctx, w, r, c, maxBody)
	defer free()
	if err != nil {
		problemOf(bodyStatus(err), "", "the body: "+bodyFault(err)).write(w)
		return
	}
	out, refused := a.onlyOnce(ctx, r, c, body, func(ctx context.Context) (answer, bool) {
		id, err := a.putJob(ctx, c, r.PathValue("topic"), body, delay)
		if err != nil {
			r := Result{Error: errorOf(err)}
			return putProblem(err), r.mayBePut()
		}
		return jsonAnswer(http.StatusOK, Put{id}), true
	})
	if refused != nil {
		out = refused.problem()
	}
	out.write(w)
}

func putProblem(err error) answer {
	p := Problem{Status: statusOf(err), Detail: err.Error(), Uncertain: errors.Is(err, queue.ErrUncertain)}
	if fault, ok := errors.AsType[*job.Error](err); ok {
		p.Key = fault.Key
	}
	return p.answer()
}

// putLater is the delay that a request asks for.
func (a *API) putLater(r *http.Request) (delay time.Duration, err error) {
	// First: of an app that is not there nothing else is to be said.
	if _, err := a.tree.App(r.PathValue("topic")); err != nil {
		return 0, err
	}
	if wait := r.URL.Query().Get("delay"); wait != "" {
		if delay, err = time.ParseDuration(wait); err != nil || delay < 0 || delay > job.MaxDelay {
			return 0, fmt.Errorf("%w: delay %q: must be a duration such as 10s, of a year at most", errBody, wait)
		}
	}
	return delay, nil
}

func (a *API) putJob(ctx context.Context, c *client, topic string, body []byte, delay time.Duration) (id string, err error) {
	if !c.limit.Allow() {
		return "", c.overRate()
	}
	app, err := a.tree.App(topic)
	if err != nil {
		return "", err
	}
	job, err := app.ParseProduced(body, time.Now(), delay)
	if err != nil {
		return "", fmt.Errorf("%w: the job would be buried or dropped: %w", errBody, err)
	}
	return a.remember(donePut{topic: topic, body: body, delay: delay, tokens: max(1, len(job.Tokens))}, func() (string, error) { return a.tree.Put(ctx, topic, body, delay) })
}

// remember has what becomes of the job that put puts be told to who asks.
func (a *API) remember(p donePut, put func() (id string, err error)) (id string, err error) {
	p.err = errPanic
	a.o.Outcomes.begin()
	defer func() { a.o.Outcomes.end(p) }() // also after a panic
	p.id, p.err = put()
	return p.id, p.err
}
