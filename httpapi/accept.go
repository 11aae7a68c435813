package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"propeller/apnsconn"
	"propeller/internal/parallel"
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

// result says what became of one notification: there is either an ID or an
// Error.
type result struct {
	ID string `json:"id,omitempty"` // of the job, as the queue calls it
	// IDs are all jobs that a notification with very many tokens was split into,
	// the first being ID; absent for one. With an Error, those that were put.
	IDs []string `json:"ids,omitempty"`
	// Malformed are elements of tokens that are not device tokens, at most 20. The others
	// are sent anyway.
	Malformed []resultError `json:"malformed,omitempty"`
	Error     *resultError  `json:"error,omitempty"`

	app, topic string // for the log
}

// resultError says why a notification, or a token of it, was not taken.
type resultError struct {
	Status int    `json:"status,omitempty"` // of the answer to a request with this one alone
	Key    string `json:"key,omitempty"`    // at fault
	Detail string `json:"detail"`
	// Uncertain: it may have been accepted anyway. If it is sent again, it may arrive twice.
	Uncertain bool `json:"uncertain,omitempty"`
}

// accept puts one notification into the queue.
func (a *API) accept(ctx context.Context, c *client, body []byte) result {
	e, err := job.ParseEnvelope(body, time.Now())
	if err != nil {
		return result{Error: errorOf(err)}
	}
	return a.enqueue(ctx, c, e)
}

// enqueue checks the job of an envelope and puts it into the queue.
func (a *API) enqueue(ctx context.Context, c *client, e job.Envelope) result {
	jobs, r := a.prepare(c, &e, c.pay)
	if r.Error != nil {
		return r
	}
	return a.putJobs(ctx, e, jobs, r)
}

// prepare returns the jobs that a notification is, for which the client's limit
// is charged, and what there is to say of it already: its app, an Error, or malformed
// tokens.
func (a *API) prepare(c *client, e *job.Envelope, charge func(jobs int) error) (jobs []job.Part, r result) {
	jobs, job, name, app, err := a.check(c, e)
	if err != nil {
		return nil, result{Error: errorOf(err)}
	}
	r.app, r.topic = name, app.Topic
	if err := charge(len(jobs) - 1); err != nil {
		return nil, result{Error: errorOf(err)}
	}
	for _, bad := range job.Malformed[:min(len(job.Malformed), maxMalformed)] {
		r.Malformed = append(r.Malformed, resultError{Key: bad.Err.Key, Detail: bad.Err.Why})
	}
	return jobs, r
}

// putJobs puts the jobs of a notification, one after the other, until one cannot
// be put.
func (a *API) putJobs(ctx context.Context, e job.Envelope, jobs []job.Part, r result) result {
	for _, one := range jobs {
		id, err := a.remember(donePut{app: r.app, topic: r.topic, body: one.Body, delay: e.Delay, tokens: one.Tokens}, func() (string, error) { return a.tree.Put(ctx, r.app, one.Body, e.Delay) })
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

// check returns the jobs that a notification is, what they are decoded, and their app's name
// and rules.
func (a *API) check(c *client, e *job.Envelope) (jobs []job.Part, j job.Job, name string, app job.Rules, err error) {
	if name, app, err = a.chosen(c, e); err != nil {
		return nil, j, "", app, err
	}
	if j, err = e.Parse(&app, time.Now()); err != nil {
		return nil, j, "", app, err
	}
	jobs, err = job.Split(e.Job, &j, maxJob)
	return jobs, j, name, app, err
}

// errorOf says for a client what err is about.
func errorOf(err error) *resultError {
	r := &resultError{Status: statusOf(err), Detail: err.Error(), Uncertain: errors.Is(err, queue.ErrUncertain)}
	fault, ok := errors.AsType[*job.Error](err)
	switch {
	case ok:
		r.Key, r.Detail = fault.Key, fault.Why
	case errors.Is(err, supervisor.ErrNoApp): // it has gone since
		r.Key = "app"
	}
	if which, ok := errors.AsType[*chosenError](err); ok {
		r.Key = which.key
	}
	// What names no key of the request is 404 for requests about an app only.
	if errors.Is(err, supervisor.ErrNoApp) {
		r.Status = http.StatusBadRequest
	}
	return r
}

// mayBePut reports whether something was put, or may have been: 4xx and a temporary
// failure have certainly put nothing.
func (r *result) mayBePut() bool {
	e := r.Error
	if e == nil || e.Uncertain || len(r.IDs) > 0 {
		return true
	}
	return e.Status >= 500 && e.Status != http.StatusServiceUnavailable && e.Status != http.StatusInsufficientStorage
}

// problem is the answer to a request that is only for what e is about.
func (e *resultError) problem() answer {
	return Problem{Status: e.Status, Key: e.Key, Detail: e.Detail, Uncertain: e.Uncertain}.answer()
}

const (
	// partSize is how many notifications of a request are put together.
	partSize = 64
	// partsAtOnce is how many such parts are worked on at the same time: some
	// are decoded while others wait for the queue.
	partsAtOnce = 4
)

// acceptAll takes n notifications. Each stands for itself: its result is in its
// place in out. charge is for the jobs that one is besides its first.
func (a *API) acceptAll(ctx context.Context, c *client, charge func(jobs int) error, n int, item func(i int) []byte, out []result) {
	parallel.Do(partsAtOnce, (n+partSize-1)/partSize, func(i int) bool {
		from := i * partSize
		p := part{api: a, client: c, charge: charge, first: from, out: out[from:min(from+partSize, n)]}
		p.accept(ctx, item)
		return true
	})
}

// part is some notifications of a request.
type part struct {
	api    *API
	client *client
	charge func(jobs int) error
	first  int // number of the first
	out    []result

	// Those that are to be put: one job each.
	jobs []supervisor.NewJob
	puts []donePut // what becomes of them
	at   []int     // their places in out
}

// accept decodes the notifications and puts them.
func (p *part) accept(ctx context.Context, item func(i int) []byte) {
	p.jobs, p.puts, p.at = make([]supervisor.NewJob, 0, len(p.out)), make([]donePut, 0, len(p.out)), make([]int, 0, len(p.out))
	now := time.Now()
	for i := range p.out {
		p.guarded(p.out[i:i+1], func() { p.add(ctx, i, item(p.first+i), now) })
	}
	p.guarded(p.out, func() { p.putAll(ctx) })
}

// guarded runs f. If it panics, that is the end only of those of the
// notifications that have no result yet.
func (p *part) guarded(out []result, f func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		p.api.panicked("POST /v1/notifications", v)
		for i := range out {
			if r := &out[i]; r.ID == "" && r.Error == nil {
				r.Error = &resultError{Status: http.StatusInternalServerError, Detail: errPanic.Error(), Uncertain: true}
			}
		}
	}()
	f()
}

// add decodes a notification, to be put with the others of its part. One that is
// split into several jobs, which are large, is put alone.
func (p *part) add(ctx context.Context, i int, body []byte, now time.Time) {
	e, err := job.ParseEnvelope(body, now)
	if err != nil {
		p.out[i].Error = errorOf(err)
		return
	}
	jobs, r := p.api.prepare(p.client, &e, p.charge)
	if r.Error == nil && len(jobs) > 1 {
		r = p.api.putJobs(ctx, e, jobs, r)
	} else if r.Error == nil {
		p.jobs = append(p.jobs, supervisor.NewJob{App: r.app, Body: jobs[0].Body, Delay: e.Delay})
		p.puts = append(p.puts, donePut{app: r.app, topic: r.topic, body: jobs[0].Body, delay: e.Delay, tokens: jobs[0].Tokens, err: errPanic})
		p.at = append(p.at, i)
	}
	p.out[i] = r
}

// putAll puts what has been decoded.
func (p *part) putAll(ctx context.Context) {
	if len(p.jobs) == 0 {
		return
	}
	p.api.o.Outcomes.begin()
	defer func() { p.api.o.Outcomes.end(p.puts...) }() // also after a panic
	for k, stored := range p.api.tree.PutAll(ctx, p.jobs) {
		p.puts[k].id, p.puts[k].err = stored.ID, stored.Err
		r := &p.out[p.at[k]]
		if r.ID = stored.ID; stored.Err != nil {
			r.ID, r.Error = "", errorOf(stored.Err)
		}
	}
}

// lintResult says what would become of a notification.
type lintResult struct {
	OK    bool         `json:"ok"`
	Error *resultError `json:"error,omitempty"` // why it would be refused

	Jobs         int               `json:"jobs,omitempty"`    // that it would be
	Pushes       int               `json:"pushes,omitempty"`  // that those would be
	Delay        int64             `json:"delay,omitempty"`   // seconds before they may be sent
	Headers      map[string]string `json:"headers,omitempty"` // of the first push, but for its path and id
	Payload      json.RawMessage   `json:"payload,omitempty"` // as it would be sent
	PayloadBytes int               `json:"payload_bytes,omitempty"`
	Malformed    []resultError     `json:"malformed,omitempty"` // elements that are not device tokens, at most 20
	Warnings     []string          `json:"warnings,omitempty"`  // of what works, and is perhaps not what was meant
}

// lint looks at a notification without putting it.
func (a *API) lint(w http.ResponseWriter, r *http.Request, c *client) {
	if !c.limit.Allow() {
		tooMany(c).write(w)
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
	writeJSON(w, http.StatusOK, a.lintOf(c, body))
}

func (a *API) lintOf(c *client, body []byte) lintResult {
	e, err := job.ParseEnvelope(body, time.Now())
	if err != nil {
		return lintResult{Error: errorOf(err)}
	}
	return a.lintEnvelope(c, e)
}

func (a *API) lintEnvelope(c *client, e job.Envelope) lintResult {
	jobs, job, _, app, err := a.check(c, &e)
	if err != nil {
		return lintResult{Error: errorOf(err)}
	}
	n := &job.Notification
	out := lintResult{
		OK: true, Jobs: len(jobs), Pushes: max(1, len(job.Tokens)), Delay: int64(e.Delay / time.Second),
		Headers: headersOf(n), Payload: n.Payload, PayloadBytes: len(n.Payload), Warnings: app.Warnings(&job),
	}
	for _, bad := range job.Malformed[:min(len(job.Malformed), maxMalformed)] {
		out.Malformed = append(out.Malformed, resultError{Key: bad.Err.Key, Detail: bad.Err.Why})
	}
	return out
}

// headersOf are the headers of a push that are sent.
func headersOf(n *apnsconn.Notification) map[string]string {
	h := map[string]string{"apns-topic": n.Topic, "apns-push-type": n.PushType}
	if n.Priority != 0 {
		h["apns-priority"] = strconv.Itoa(n.Priority)
	}
	if n.Expiration != nil {
		h["apns-expiration"] = strconv.FormatInt(*n.Expiration, 10)
	}
	if n.CollapseID != "" {
		h["apns-collapse-id"] = n.CollapseID
	}
	if n.ChannelID != "" {
		h["apns-channel-id"] = n.ChannelID
	}
	return h
}
