package httpapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"time"

	"propeller/internal/rawjson"
)

const (
	// maxItems is how many notifications one list may hold.
	maxItems = 1000
	// maxKeyLen bounds an Idempotency-Key in bytes.
	maxKeyLen = 255
)

// Results is the answer to a list of notifications.
type Results struct {
	Results  []Result `json:"results"` // in the order of the list
	Accepted int      `json:"accepted"`
	Refused  int      `json:"refused"`
}

// notifications takes one notification, a list of them, or a stream.
func (a *API) notifications(w http.ResponseWriter, r *http.Request, c *client) {
	key := r.Header.Get("Idempotency-Key")
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		if key != "" {
			writeProblem(w, http.StatusBadRequest, "Idempotency-Key: is not for streams, whose answers are not kept")
			return
		}
		a.stream(w, r, c)
		return
	}
	if len(key) > maxKeyLen {
		writeProblem(w, http.StatusBadRequest, fmt.Sprintf("Idempotency-Key: more than %d bytes", maxKeyLen))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxTime)
	defer cancel()
	body, free, err := a.body(ctx, w, r, c)
	defer free()
	if err != nil {
		problemOf(bodyStatus(err), "", "the body: "+bodyFault(err)).write(w)
		return
	}
	if key == "" {
		out, _ := a.acceptBody(ctx, c, body)
		out.write(w)
		return
	}
	ctx, cancel = withoutClient(ctx, r)
	defer cancel()
	a.onlyOnce(w, c, key, body, func() (answer, bool) { return a.acceptBody(ctx, c, body) })
}

// bodyStatus is the status for a body that cannot be read.
func bodyStatus(err error) int {
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large, errors.Is(err, errLarge):
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
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "did not arrive in time"
	}
	return err.Error()
}

// acceptBody takes one notification or a list. keep is false if it has certainly
// done nothing: the same request is then judged anew.
func (a *API) acceptBody(ctx context.Context, c *client, body []byte) (out answer, keep bool) {
	if rawjson.Begin(body) == '[' {
		return a.acceptList(ctx, c, body)
	}
	if !c.limit.Allow() {
		return tooMany(c), false
	}
	r := a.accept(ctx, c, body)
	if r.Error != nil {
		return r.Error.problem(), r.mayBePut()
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
	all := Results{Results: make([]Result, len(items))}
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

// onlyOnce answers a request with an Idempotency-Key: by do for the first with that
// key, else as the first was answered.
func (a *API) onlyOnce(w http.ResponseWriter, c *client, key string, body []byte, do func() (out answer, keep bool)) {
	e, found := a.answers.begin(c.name, key, sha256.Sum256(body), time.Now())
	switch found {
	case answerOther:
		writeProblem(w, http.StatusUnprocessableEntity, "Idempotency-Key: has been used for another body")
		return
	case answerPending:
		w.Header().Set("Retry-After", "1")
		writeProblem(w, http.StatusConflict, "Idempotency-Key: the first request with it is not answered yet")
		return
	case answerKept:
		w.Header().Set("Idempotency-Replayed", "true")
		e.answer.write(w)
		return
	}
	if !a.once.try(c.name, onceCost) {
		a.answers.finish(e, answer{}, false)
		writeProblem(w, http.StatusServiceUnavailable, "Idempotency-Key: too many requests at once, of all clients or with this key")
		return
	}
	defer a.once.free(c.name, onceCost)
	// After a panic nobody knows what has been put.
	out, keep := Problem{Status: http.StatusInternalServerError, Detail: errPanic.Error(), Uncertain: true}.answer(), true
	defer func() { a.answers.finish(e, out, keep) }()
	out, keep = do()
	out.write(w)
}
