package httpapi

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"
)

// idempotencyKey is the header of a request that is carried out once.
const idempotencyKey = "Idempotency-Key"

// maxKeyLen bounds it in bytes.
const maxKeyLen = 255

// onlyOnce has do carry out a request whose body is body. If it has an
// Idempotency-Key, only the first with that key is carried out, and to its end if
// the client goes; repeats get its answer. do says whether that is to be kept.
func (a *API) onlyOnce(ctx context.Context, r *http.Request, c *client, body []byte, do func(context.Context) (out answer, keep bool)) (answer, *ResultError) {
	key := r.Header.Get(idempotencyKey)
	refuse := func(status int, why string) (answer, *ResultError) {
		return answer{}, &ResultError{Status: status, Detail: idempotencyKey + ": " + why}
	}
	switch {
	case key == "":
		out, _ := do(ctx)
		return out, nil
	case len(key) > maxKeyLen:
		return refuse(http.StatusBadRequest, fmt.Sprintf("more than %d bytes", maxKeyLen))
	}
	ctx, cancel := withoutClient(ctx, r)
	defer cancel()
	e, found := a.answers.begin(c.name, key, sumOf(r, body), time.Now())
	switch found {
	case answerOther:
		return refuse(http.StatusUnprocessableEntity, "has been used for another request")
	case answerPending:
		return refuse(http.StatusConflict, "the first request with it is not answered yet")
	case answerKept:
		out := e.answer
		out.replayed = true
		return out, nil
	}
	if !a.once.try(c.name, onceCost) {
		a.answers.finish(e, answer{}, false)
		return refuse(http.StatusServiceUnavailable, "too many requests at once, of all clients or with this key")
	}
	defer a.once.free(c.name, onceCost)
	// After a panic nobody knows what has been put.
	out, keep := Problem{Status: http.StatusInternalServerError, Detail: errPanic.Error(), Uncertain: true}.answer(), true
	defer func() { a.answers.finish(e, out, keep) }()
	out, keep = do(ctx)
	return out, nil
}

// sumOf tells a request from others: by what it asks for, and its body.
func sumOf(r *http.Request, body []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "%s?%s\n", r.URL.Path, r.URL.RawQuery)
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}
