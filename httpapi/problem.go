package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker"
)

// Problem is an error as JSON (RFC 9457), of type about:blank: the status says
// what kind it is and the detail what to do.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Key    string `json:"key,omitempty"` // of the request's body, that is at fault
}

// Error is the detail.
func (p *Problem) Error() string { return p.Detail }

const problemType = "application/problem+json"

// statusOf is the HTTP status for an error of the queue or of a request.
func statusOf(err error) int {
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large:
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errChoice), errors.Is(err, errLimit), errors.Is(err, queue.ErrRejected), errors.Is(err, errBody), isJobError(err):
		return http.StatusBadRequest
	case errors.Is(err, errTopic):
		return http.StatusForbidden
	case errors.Is(err, queue.ErrNotFound), errors.Is(err, supervisor.ErrNoApp):
		return http.StatusNotFound
	case errors.Is(err, queue.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	case errors.Is(err, supervisor.ErrNoAdmin):
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

func isJobError(err error) bool {
	_, ok := errors.AsType[*worker.JobError](err)
	return ok
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	problemOf(status, "", detail).write(w)
}

func writeJSON(w http.ResponseWriter, status int, v any) { jsonAnswer(status, v).write(w) }

func writeRaw(w http.ResponseWriter, status int, contentType string, body []byte) {
	answer{status: status, contentType: contentType, body: append(body, '\n')}.write(w)
}

// answer is a whole answer.
type answer struct {
	status      int
	contentType string
	location    string // header Location; "" for none
	body        []byte
}

func problemOf(status int, key, detail string) answer {
	a := jsonAnswer(status, Problem{http.StatusText(status), status, detail, key})
	a.contentType = problemType
	return a
}

func jsonAnswer(status int, v any) answer {
	text, err := json.Marshal(v)
	if err != nil { // of our own types: cannot be
		return answer{status: http.StatusInternalServerError, contentType: "text/plain", body: []byte(err.Error())}
	}
	return answer{status: status, contentType: "application/json", body: append(text, '\n')}
}

func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "no-store")
	if a.location != "" {
		h.Set("Location", a.location)
	}
	if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // whoever has gone needs no answer
}
