package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker/job"
)

// maxJob is the largest job that a notification is split into, in bytes: what
// beanstalkd takes unless it is told otherwise (beanstalkd(1), -z).
const maxJob = 65535

// maxMalformed bounds how many malformed tokens an answer names: the feedback
// names all.
const maxMalformed = 20

// Result says what became of one notification: there is either an ID or an
// Error.
type Result struct {
	ID string `json:"id,omitempty"` // of the job, as the queue calls it
	// IDs are all jobs that a notification with very many tokens was split into,
	// the first being ID; absent for one. With an Error, those that were put.
	IDs []string `json:"ids,omitempty"`
	// Malformed are elements of tokens that are none, at most 20. They keep the
	// others from nothing.
	Malformed []ResultError `json:"malformed,omitempty"`
	Error     *ResultError  `json:"error,omitempty"`

	topic string // for the log
}

// ResultError says why a notification, or a token of it, was not taken.
type ResultError struct {
	Status int    `json:"status,omitempty"` // as a request for it alone would be answered
	Key    string `json:"key,omitempty"`    // at fault
	Detail string `json:"detail"`
	// Uncertain: it may have been taken all the same; taken again, it may be sent
	// twice.
	Uncertain bool `json:"uncertain,omitempty"`
}

// accept puts one notification into the queue. topic is the app for those that
// name none.
func (a *API) accept(ctx context.Context, c *client, body []byte) Result {
	e, err := job.ParseEnvelope(body, time.Now())
	if err != nil {
		return Result{Error: errorOf(err)}
	}
	return a.enqueue(ctx, c, e)
}

// enqueue checks the job of an envelope and puts it into the queue.
func (a *API) enqueue(ctx context.Context, c *client, e job.Envelope) Result {
	jobs, r := a.prepare(c, e, c.pay)
	if r.topic = e.Topic; r.Error != nil {
		return r
	}
	return a.putJobs(ctx, e, jobs, r)
}

// prepare returns the jobs that a notification is, for which the client's limit
// is charged, and what there is to say of it already: an Error, or malformed
// tokens.
func (a *API) prepare(c *client, e job.Envelope, charge func(jobs int) error) (jobs []job.Part, r Result) {
	jobs, job, _, err := a.check(c, e)
	if err != nil {
		return nil, Result{Error: errorOf(err)}
	}
	if err := charge(len(jobs) - 1); err != nil {
		return nil, Result{Error: errorOf(err)}
	}
	for _, bad := range job.Malformed[:min(len(job.Malformed), maxMalformed)] {
		r.Malformed = append(r.Malformed, ResultError{Key: bad.Err.Key, Detail: bad.Err.Why})
	}
	return jobs, r
}

// putJobs puts the jobs of a notification, one after the other, until one cannot
// be put.
func (a *API) putJobs(ctx context.Context, e job.Envelope, jobs []job.Part, r Result) Result {
	for _, one := range jobs {
		id, err := a.remember(donePut{topic: e.Topic, body: one.Body, delay: e.Delay, tokens: one.Tokens}, func() (string, error) { return a.tree.Put(ctx, e.Topic, one.Body, e.Delay) })
		if err != nil {
			r.ID, r.Error = "", errorOf(err)
			return r
		}
		if r.ID == "" {
			r.ID = id
		}
		if len(jobs) > 1 {
			r.IDs = append(r.IDs, id)
		}
	}
	return r
}

// errTopic: the client's key is for other apps.
var errTopic = errors.New("this key is for other apps")

// check returns the jobs that a notification is, what they are decoded, and their app.
func (a *API) check(c *client, e job.Envelope) (jobs []job.Part, j job.Job, app job.Rules, err error) {
	switch {
	case e.Topic == "":
		return nil, j, app, &job.Error{Key: "topic", Why: "missing"}
	case !c.may(e.Topic):
		return nil, j, app, fmt.Errorf("topic %.60q: %w", e.Topic, errTopic)
	}
	if app, err = a.tree.App(e.Topic); err != nil {
		return nil, j, app, err
	}
	if j, err = e.Parse(&app, time.Now()); err != nil {
		return nil, j, app, err
	}
	jobs, err = job.Split(e.Job, &j, maxJob)
	return jobs, j, app, err
}

// errorOf says for a client what err is about.
func errorOf(err error) *ResultError {
	r := &ResultError{Status: statusOf(err), Detail: err.Error(), Uncertain: errors.Is(err, queue.ErrUncertain)}
	fault, ok := errors.AsType[*job.Error](err)
	switch {
	case ok:
		r.Key, r.Detail = fault.Key, fault.Why
	case errors.Is(err, supervisor.ErrNoApp), errors.Is(err, errTopic):
		r.Key = "topic"
	}
	// What names no key of the request is 404 for requests about an app only.
	if errors.Is(err, supervisor.ErrNoApp) {
		r.Status = http.StatusBadRequest
	}
	return r
}

// mayBePut says that something was put, or that nobody knows: 4xx and what is in
// passing trouble has certainly put nothing.
func (r *Result) mayBePut() bool {
	e := r.Error
	if e == nil || e.Uncertain || len(r.IDs) > 0 {
		return true
	}
	return e.Status >= 500 && e.Status != http.StatusServiceUnavailable && e.Status != http.StatusInsufficientStorage
}

// problem is the answer to a request that is only for what e is about.
func (e *ResultError) problem() answer {
	return Problem{Status: e.Status, Key: e.Key, Detail: e.Detail, Uncertain: e.Uncertain}.answer()
}
