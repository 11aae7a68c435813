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
	"slices"
	"strconv"
	"time"

	"propeller/queue"
)

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
		topic := r.PathValue("topic")
		body, free, err := a.body(ctx, w, r, c, maxBody) // first: it may be slow
		defer free()
		if err != nil {
			a.refuse(w, r, c, bodyStatus(err), "the body: "+bodyFault(err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var settled Settled
		err = a.inTurn(ctx, w, c, func() (answer, error) {
			jobs, err := a.tree.Jobs(topic)
			if err != nil {
				return answer{}, err
			}
			out, err := do(ctx, Local{jobs}, r, c)
			if err != nil {
				return answer{}, err
			}
			if s, ok := out.(Settled); ok {
				settled = s
				a.audit(r, c, "buried jobs "+done, "topic", topic, "jobs", s.Jobs)
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

// inTurn has do make an answer when the client's turn has come, and writes it. As long
// as the client does not read it, it counts with its size. An answer without a status is
// none.
func (a *API) inTurn(ctx context.Context, w http.ResponseWriter, c *client, do func() (answer, error)) error {
	if err := a.asking.take(ctx, c.name, askCost); err != nil {
		return fmt.Errorf("too much at once: %w", err)
	}
	held := int64(askCost)
	defer func() { a.asking.free(c.name, held) }() // also after a panic
	out, err := do()
	if err != nil {
		return err
	}
	rest := min(held, int64(len(out.body))+1)
	a.asking.free(c.name, held-rest)
	held = rest
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
		return c, fmt.Errorf("%w: is not a choice of jobs as JSON: %w", errBody, err)
	}
	if _, err := in.Token(); err != io.EOF {
		return c, fmt.Errorf("%w: has more after the choice of jobs", errBody)
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

// buriedGroup are the jobs that were buried for one reason.
type buriedGroup struct {
	Reason string
	Jobs   []BuriedJob
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

func grouped(jobs []BuriedJob) []*buriedGroup {
	var out []*buriedGroup
	byReason := make(map[string]*buriedGroup)
	for _, j := range jobs {
		reason := groupOf(j.Reason)
		g := byReason[reason]
		if g == nil {
			g = &buriedGroup{Reason: reason}
			byReason[reason] = g
			out = append(out, g)
		}
		g.Jobs = append(g.Jobs, j)
	}
	slices.SortStableFunc(out, func(a, b *buriedGroup) int { return len(b.Jobs) - len(a.Jobs) })
	return out
}
