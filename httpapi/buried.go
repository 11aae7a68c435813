package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"

	"propeller/internal/rawjson"
	"propeller/queue"
	"propeller/worker/buried"
	"propeller/worker/job"
)

// Local works on one tube's buried jobs without the API: for the server itself, and for
// commands that reach the queue but no daemon. Client does the same over a socket.
type Local struct {
	Jobs buried.Jobs
}

// List lists the selected buried jobs. The list may be incomplete, which it says; an
// error means that there is none at all.
func (l Local) List(ctx context.Context, s Selection) (BuriedList, error) {
	if s.Limit < 0 || s.Limit > MaxJobs {
		return BuriedList{}, errLimit
	}
	known, err := l.Jobs.List(ctx, buried.Filter{Reason: s.Reason, Limit: orMax(s.Limit), Since: unixTime(s.Since)})
	list := BuriedList{Jobs: []BuriedJob{}, More: known.More, Complete: known.Complete}
	for i := range known.Items {
		list.Jobs = append(list.Jobs, buriedOf(&known.Items[i]))
	}
	list.Incomplete, err = partly(len(list.Jobs), err)
	list.Complete = list.Complete && list.Incomplete == ""
	return list, err
}

// Show returns one buried job with its body.
func (l Local) Show(ctx context.Context, id string) (BuriedJob, error) {
	it, err := l.Jobs.Show(ctx, id)
	if err != nil {
		return BuriedJob{}, err
	}
	return buriedOf(&it), nil
}

// Kick has the chosen jobs served again.
func (l Local) Kick(ctx context.Context, c Choice) (Settled, error) {
	return l.settle(ctx, c, l.Jobs.Kick)
}

// Delete removes the chosen jobs for good.
func (l Local) Delete(ctx context.Context, c Choice) (Settled, error) {
	return l.settle(ctx, c, l.Jobs.Delete)
}

func (l Local) settle(ctx context.Context, c Choice, do func(context.Context, buried.Filter) (buried.Result, error)) (Settled, error) {
	f, err := c.filter()
	if err != nil {
		return Settled{}, err
	}
	r, err := do(ctx, f)
	s := Settled{Jobs: len(r.Jobs), IDs: r.Jobs, More: r.More}
	s.Incomplete, err = partly(s.Jobs, err)
	return s, err
}

// partly turns the error of something that did n jobs into a note of the
// answer, or leaves it an error if nothing was done.
func partly(n int, err error) (incomplete string, _ error) {
	if n > 0 && err != nil {
		return err.Error(), nil
	}
	return "", err
}

// BuriedList is the answer of GET /v1/apps/{app}/buried.
type BuriedList struct {
	Jobs []BuriedJob `json:"jobs"` // those buried first in front
	More bool        `json:"more"` // the limit was reached, and there are others
	// Complete is false until all buried jobs have been read from the queue.
	Complete bool `json:"complete"`
	// Incomplete says why the rest is missing, such as a queue server that is away.
	Incomplete string `json:"incomplete,omitempty"`
}

// BuriedJob is a job that was set aside.
type BuriedJob struct {
	ID     string    `json:"id"`               // the one its producer got; the rests of one list share it
	Class  string    `json:"class,omitempty"`  // of the last outcome
	Status int       `json:"status,omitempty"` // APNs' HTTP status
	Reason string    `json:"reason"`
	Buried time.Time `json:"buried"`        // when it was buried, or put if the job does not say
	Age    int64     `json:"age,omitempty"` // seconds since it was put
	Token  string    `json:"token,omitempty"`
	Ref    string    `json:"ref,omitempty"`
	APNsID string    `json:"apns_id,omitempty"`
	// Unverified: the queue did not answer, so the job may be gone.
	Unverified bool `json:"unverified,omitempty"`

	// Body is the job as its producer put it, or its rest, with whole tokens; absent in a
	// list. A body that is not UTF-8 is in BodyBase64 instead.
	Body       string `json:"body,omitempty"`
	BodyBase64 []byte `json:"body_base64,omitempty"`
}

// Choice says which buried jobs are meant: exactly one of IDs, Reason and All
// is given.
type Choice struct {
	IDs    jobIDs `json:"ids,omitempty"`
	Reason string `json:"reason,omitempty"` // part of the reason or class
	All    bool   `json:"all,omitempty"`
	Limit  int    `json:"limit,omitempty"`  // at most so many, up to MaxJobs, which is the default
	Before int64  `json:"before,omitempty"` // only jobs buried before this second of Unix time

	group string // used by the page: only jobs whose reason belongs to this group
}

// jobIDs are ids of jobs. Of a list that is too long no more are kept than show that.
type jobIDs []string

// UnmarshalJSON reads a list of strings.
func (ids *jobIDs) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	err := rawjson.Elements(text, func(_ int, value []byte) error {
		var id string
		if len(*ids) > MaxJobs {
			return nil
		}
		if err := json.Unmarshal(value, &id); err != nil {
			return err
		}
		*ids = append(*ids, id)
		return nil
	})
	if errors.Is(err, rawjson.ErrKind) {
		return errors.New("ids: is not a list")
	}
	return err
}

// MaxJobs is the most buried jobs of one answer: with bodies of 64 KiB their
// list takes 64 MiB while it is made.
const MaxJobs = 1000

// Settled is the answer of kick and delete.
type Settled struct {
	Jobs       int      `json:"jobs"`          // kicked or deleted
	IDs        []string `json:"ids,omitempty"` // their ids
	More       bool     `json:"more"`          // the limit was reached, and there are others
	Incomplete string   `json:"incomplete,omitempty"`
}

var (
	errChoice = errors.New("give exactly one of ids, reason and all")
	errLimit  = fmt.Errorf("the limit, or the number of ids: must be 1 to %d", MaxJobs)
)

// filter checks the choice.
func (c Choice) filter() (buried.Filter, error) {
	given := 0
	for _, is := range []bool{len(c.IDs) > 0, c.Reason != "", c.All} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return buried.Filter{}, errChoice
	case c.Limit < 0 || c.Limit > MaxJobs || len(c.IDs) > MaxJobs:
		return buried.Filter{}, errLimit
	}
	f := buried.Filter{IDs: c.IDs, Reason: c.Reason, Limit: orMax(c.Limit), Before: unixTime(c.Before)}
	if c.group != "" {
		f.Only = func(e *buried.Entry) bool { return groupOf(e.Reason) == c.group }
	}
	return f, nil
}

// unixTime is a time given in Unix seconds, of which 0 means none.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// Selection says which buried jobs a list has. The zero value selects all, up to MaxJobs.
type Selection struct {
	Reason string // part of the reason or class
	Limit  int    // at most so many; 0 means MaxJobs
	Since  int64  // only jobs buried at this second of Unix time or later
}

func orMax(limit int) int {
	if limit == 0 {
		return MaxJobs
	}
	return limit
}

func buriedOf(it *buried.Item) BuriedJob {
	j := BuriedJob{
		ID: it.Job, Class: it.Class, Status: it.Status, Reason: it.Reason, Buried: it.At, Age: int64(time.Since(it.Put) / time.Second),
		Token: it.Token, Ref: it.Ref, APNsID: it.APNsID, Unverified: it.Unverified,
	}
	if body := job.AsPut(it.Body); utf8.Valid(body) {
		j.Body = string(body)
	} else {
		j.BodyBase64 = body
	}
	return j
}

// Bounds of a request about buried jobs.
const (
	// maxBody is many times a Choice of MaxJobs ids.
	maxBody = 1 << 20
	// maxTime bounds the work on one request: 1000 jobs kicked on a queue that
	// answers within 10 ms, three commands for each.
	maxTime = time.Minute
)

// errBody: the request's body is not what it should be.
var errBody = errors.New("the body")

// buried makes a handler of an operation on one app's buried jobs. done is what the log
// calls it; "" if it changes nothing.
func (a *API) buried(done string, do func(ctx context.Context, l Local, r *http.Request, c *client) (any, error)) func(http.ResponseWriter, *http.Request, *client) {
	return func(w http.ResponseWriter, r *http.Request, c *client) {
		if !c.limit.Allow() { // also for a look: of very many jobs it is work
			a.refuse(w, r, c, http.StatusTooManyRequests, c.overRate().Error())
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), maxTime)
		defer cancel()
		name, topic := named(r)
		body, free, err := a.body(ctx, w, r, c, maxBody) // first: it may be slow
		defer free()
		if err != nil {
			a.refuse(w, r, c, bodyStatus(err), "the body: "+bodyFault(err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var settled Settled
		err = a.inTurn(ctx, w, c, func() (answer, error) {
			jobs, err := a.tree.Jobs(name)
			if err != nil {
				return answer{}, err
			}
			out, err := do(ctx, Local{jobs}, r, c)
			if err != nil {
				return answer{}, err
			}
			if s, ok := out.(Settled); ok {
				settled = s
				a.audit(r, c, "buried jobs "+done, "app", name, "topic", topic, "jobs", s.Jobs)
			}
			if wantsPage(r, c) {
				return answer{}, nil
			}
			return jsonAnswer(http.StatusOK, out), nil
		})
		switch {
		case wantsPage(r, c):
			a.pages.settled(w, r, c, done, settled, err)
		case err != nil:
			writeProblem(w, statusOf(err), err.Error())
		}
	}
}

// inTurn calls do for an answer when it is the client's turn, and writes it. The answer
// counts with its size until the client has read it. One without a status is not written.
func (a *API) inTurn(ctx context.Context, w http.ResponseWriter, c *client, do func() (answer, error)) error {
	if err := a.asking.take(ctx, c.name, askCost); err != nil {
		return fmt.Errorf("too many requests about buried jobs at once: %w", err)
	}
	taken := int64(askCost)
	defer func() { a.asking.free(c.name, taken) }() // also after a panic
	out, err := do()
	if err != nil {
		return err
	}
	unread := min(taken, int64(len(out.body))+1)
	a.asking.free(c.name, taken-unread)
	taken = unread
	if out.status != 0 {
		out.write(w)
	}
	return nil
}

func list(ctx context.Context, l Local, r *http.Request, _ *client) (any, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: the query: %w", errBody, err)
	}
	s := Selection{Reason: q.Get("reason")}
	if text := q.Get("limit"); text != "" {
		if s.Limit, err = strconv.Atoi(text); err != nil || s.Limit < 1 {
			return nil, errLimit
		}
	}
	if text := q.Get("since"); text != "" {
		if s.Since, err = strconv.ParseInt(text, 10, 64); err != nil || s.Since < 1 {
			return nil, fmt.Errorf("%w: the query: since: must be seconds of Unix time", errBody)
		}
	}
	return l.List(ctx, s)
}

func show(ctx context.Context, l Local, r *http.Request, _ *client) (any, error) {
	return l.Show(ctx, r.PathValue("id"))
}

// settle makes an operation of kick or delete.
func settle(do func(Local, context.Context, Choice) (Settled, error)) func(context.Context, Local, *http.Request, *client) (any, error) {
	return func(ctx context.Context, l Local, r *http.Request, c *client) (any, error) {
		read := jsonChoice
		if c.browser {
			read = formChoice
		}
		choice, err := read(r)
		if err != nil {
			return nil, err
		}
		s, err := do(l, ctx, choice)
		if err == nil && s.Jobs == 0 && choice.group != "" {
			err = fmt.Errorf("reason %.100q: %w", choice.group, queue.ErrNotFound)
		}
		return s, err
	}
}

func jsonChoice(r *http.Request) (c Choice, err error) {
	in := json.NewDecoder(r.Body)
	in.DisallowUnknownFields()
	if err := in.Decode(&c); err != nil {
		return c, fmt.Errorf("%w: is not a JSON object that selects jobs: %w", errBody, err)
	}
	if _, err := in.Token(); err != io.EOF {
		return c, fmt.Errorf("%w: has more text after the JSON object", errBody)
	}
	return c, nil
}

// formChoice is what a form of the page chooses: one job by id, those with a reason, or
// those selected.
func formChoice(r *http.Request) (Choice, error) {
	if err := r.ParseForm(); err != nil {
		return Choice{}, fmt.Errorf("%w: %w", errBody, err)
	}
	form := r.PostForm
	switch {
	case form.Get("id") != "":
		return Choice{IDs: form["id"][:1]}, nil
	case form.Get("reason") != "": // an empty one would mean all
		return Choice{All: true, group: form.Get("reason")}, nil
	case len(form["ids"]) > 0:
		return Choice{IDs: form["ids"]}, nil
	}
	return Choice{}, fmt.Errorf("%w: no job is selected", errBody)
}

// ownReason is what in a reason is different for each job: how long it was tried, and how
// many of its tokens were affected.
var ownReason = regexp.MustCompile(` after \S+ and \d+ tr(?:y|ies)|,? after \d+ tr(?:y|ies)| \(and \d+ more of its tokens likewise\)`)

// groupOf is a job's reason without the parts that are specific to this job.
func groupOf(reason string) string {
	if r := ownReason.ReplaceAllString(reason, ""); r != "" {
		return r
	}
	return "unknown"
}
