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
	"strconv"
	"time"
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

// buried makes a handler of an operation on one app's buried jobs. action is
// what the log calls it; "" if it changes nothing.
func (a *API) buried(action string, do func(ctx context.Context, l Local, r *http.Request) (any, error)) func(http.ResponseWriter, *http.Request, *client) {
	return func(w http.ResponseWriter, r *http.Request, c *client) {
		if !c.limit.Allow() { // also for a look: of very many jobs it is work
			tooMany(c).write(w)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), maxTime)
		defer cancel()
		topic := r.PathValue("topic")
		body, free, err := a.body(ctx, w, r, c, maxBody) // first: it may be slow
		defer free()
		if err != nil {
			problemOf(bodyStatus(err), "", "the body: "+bodyFault(err)).write(w)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		err = a.inTurn(ctx, w, c, func() (answer, error) {
			jobs, err := a.tree.Jobs(topic)
			if err != nil {
				return answer{}, err
			}
			done, err := do(ctx, Local{jobs}, r)
			if err != nil {
				return answer{}, err
			}
			if s, ok := done.(Settled); ok {
				a.audit(r, c, action, "topic", topic, "jobs", s.Jobs)
			}
			return jsonAnswer(http.StatusOK, done), nil
		})
		if err != nil {
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

func list(ctx context.Context, l Local, r *http.Request) (any, error) {
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

func show(ctx context.Context, l Local, r *http.Request) (any, error) {
	return l.Show(ctx, r.PathValue("id"))
}

// settle makes an operation of kick or delete.
func settle(do func(Local, context.Context, Choice) (Settled, error)) func(context.Context, Local, *http.Request) (any, error) {
	return func(ctx context.Context, l Local, r *http.Request) (any, error) {
		var c Choice
		in := json.NewDecoder(r.Body)
		in.DisallowUnknownFields()
		if err := in.Decode(&c); err != nil {
			return nil, fmt.Errorf("%w: is not a choice of jobs as JSON: %w", errBody, err)
		}
		if _, err := in.Token(); err != io.EOF {
			return nil, fmt.Errorf("%w: has more after the choice of jobs", errBody)
		}
		return do(l, ctx, c)
	}
}
