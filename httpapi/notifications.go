package httpapi

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"time"

	"propeller/internal/rawjson"
	"propeller/queue"
	"propeller/worker/job"
)

// maxItems is how many notifications one list may hold.
const maxItems = 1000

// errOnePush: a session of the page may send only single pushes, each of which is logged.
var errOnePush = errors.New("the body: a session of the page sends one push at a time; lists and streams need an API key")

// resultList is the answer to a list of notifications.
type resultList struct {
	Results  []result `json:"results"` // in the order of the list
	Accepted int      `json:"accepted"`
	Refused  int      `json:"refused"`
}

// notifications takes one notification, a list of them, or a stream.
func (a *API) notifications(w http.ResponseWriter, r *http.Request, c *client) {
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		if c.browser {
			writeProblem(w, http.StatusUnsupportedMediaType, errOnePush.Error())
			return
		}
		if r.Header.Get(idempotencyKey) != "" {
			writeProblem(w, http.StatusBadRequest, "Idempotency-Key: streams cannot have one; their answers are not kept")
			return
		}
		a.stream(w, r, c)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxTime)
	defer cancel()
	body, free, err := a.body(ctx, w, r, c, largeBody)
	defer free()
	if err != nil {
		problemOf(bodyStatus(err), "", "the body: "+bodyFault(err)).write(w)
		return
	}
	out, refused := a.onlyOnce(ctx, r, c, body, func(ctx context.Context) (answer, bool) { return a.acceptBody(ctx, r, c, body) })
	if refused != nil {
		out = refused.problem()
	}
	out.write(w)
}

// bodyStatus is the status for a body that cannot be read.
func bodyStatus(err error) int {
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large:
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// bodyFault says what is wrong with a body that cannot be read.
func bodyFault(err error) string {
	large, is := errors.AsType[*http.MaxBytesError](err)
	switch {
	case is:
		return fmt.Sprintf("is larger than %d KiB", large.Limit>>10)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "did not arrive in time"
	}
	return err.Error()
}

// acceptBody takes one notification or a list. keep is false if it has certainly
// done nothing: the same request is then handled as a new one.
func (a *API) acceptBody(ctx context.Context, req *http.Request, c *client, body []byte) (out answer, keep bool) {
	if rawjson.Begin(body) == '[' {
		if c.browser {
			return problemOf(http.StatusBadRequest, "", errOnePush.Error()), false
		}
		return a.acceptList(ctx, c, body)
	}
	if !c.limit.Allow() {
		return tooMany(c), false
	}
	r := a.accept(ctx, c, body)
	if r.Error != nil {
		return r.Error.problem(), r.mayBePut()
	}
	if c.browser {
		a.audit(req, c, "push sent from the page", "app", r.app, "topic", r.topic, "job", shortID(r.ID))
	}
	out = jsonAnswer(http.StatusAccepted, r)
	out.location = a.access.Load().BasePath + "/v1/notifications/" + url.PathEscape(r.ID)
	return out, true
}

func tooMany(c *client) answer {
	return errorOf(c.overRate()).problem()
}

func (a *API) acceptList(ctx context.Context, c *client, body []byte) (out answer, keep bool) {
	var items [][]byte // the first maxItems
	n := 0
	err := rawjson.Elements(body, func(_ int, item []byte) error {
		if n++; n <= maxItems {
			items = append(items, item)
		}
		return nil
	})
	switch {
	case errors.Is(err, rawjson.ErrDepth):
		return problemOf(http.StatusBadRequest, "", "the body: is "+err.Error()), false
	case err != nil:
		return problemOf(http.StatusBadRequest, "", "the body: is not JSON: "+err.Error()), false
	case n == 0:
		return problemOf(http.StatusBadRequest, "", "the body: is an empty list"), false
	case n > maxItems:
		return problemOf(http.StatusRequestEntityTooLarge, "", fmt.Sprintf("the body: a list of %d, at most %d: send more as a stream, application/x-ndjson", n, maxItems)), false
	case !c.limit.AllowN(time.Now(), len(items)):
		return tooMany(c), false
	}
	all := resultList{Results: make([]result, len(items))}
	a.acceptAll(ctx, c, c.pay, len(items), func(i int) []byte { return items[i] }, all.Results)
	for i := range all.Results {
		if all.Results[i].Error == nil {
			all.Accepted++
		} else {
			all.Refused++
		}
		keep = keep || all.Results[i].mayBePut()
	}
	return jsonAnswer(http.StatusAccepted, all), keep
}

// shortID is a job's id for the log; a queue's own are short.
func shortID(id string) string { return id[:min(len(id), 100)] }

// putTime bounds one put: the queue answers in milliseconds or not at all.
const putTime = 10 * time.Second

// putAnswer is the answer of POST /v1/apps/{app}/jobs.
type putAnswer struct {
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
		id, err := a.putJob(ctx, c, r.PathValue("app"), body, delay)
		if err != nil {
			r := result{Error: errorOf(err)}
			return putProblem(err), r.mayBePut()
		}
		return jsonAnswer(http.StatusOK, putAnswer{id}), true
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
	if _, err := a.tree.App(r.PathValue("app")); err != nil {
		return 0, err
	}
	if wait := r.URL.Query().Get("delay"); wait != "" {
		if delay, err = time.ParseDuration(wait); err != nil || delay < 0 || delay > job.MaxDelay {
			return 0, fmt.Errorf("%w: delay %q: must be a duration such as 10s, of a year at most", errBody, wait)
		}
	}
	return delay, nil
}

func (a *API) putJob(ctx context.Context, c *client, name string, body []byte, delay time.Duration) (id string, err error) {
	if !c.limit.Allow() {
		return "", c.overRate()
	}
	app, err := a.tree.App(name)
	if err != nil {
		return "", err
	}
	job, err := app.ParseProduced(body, time.Now(), delay)
	if err != nil {
		return "", fmt.Errorf("%w: the job would be buried or dropped: %w", errBody, err)
	}
	return a.remember(donePut{app: name, topic: app.Topic, body: body, delay: delay, tokens: max(1, len(job.Tokens))}, func() (string, error) { return a.tree.Put(ctx, name, body, delay) })
}

// remember calls put, and has Outcomes follow the job that it puts.
func (a *API) remember(p donePut, put func() (id string, err error)) (id string, err error) {
	p.err = errPanic
	a.o.Outcomes.begin()
	defer func() { a.o.Outcomes.end(p) }() // also after a panic
	p.id, p.err = put()
	return p.id, p.err
}
