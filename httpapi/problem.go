package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"propeller/queue"
	"propeller/supervisor"
)

// Problem is an error as JSON (RFC 9457), of type about:blank: the status says
// what kind it is and the detail what to do.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// Error is the detail.
func (p *Problem) Error() string { return p.Detail }

const problemType = "application/problem+json"

// statusOf is the HTTP status for an error of the queue or of a request.
func statusOf(err error) int {
	switch {
	case errors.Is(err, errChoice), errors.Is(err, errLimit), errors.Is(err, queue.ErrRejected), errors.Is(err, errBody):
		return http.StatusBadRequest
	case errors.Is(err, queue.ErrNotFound), errors.Is(err, supervisor.ErrNoApp):
		return http.StatusNotFound
	case errors.Is(err, queue.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	case errors.Is(err, supervisor.ErrNoAdmin):
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	write(w, status, problemType, Problem{http.StatusText(status), status, detail})
}

func writeJSON(w http.ResponseWriter, status int, v any) { write(w, status, "application/json", v) }

func write(w http.ResponseWriter, status int, contentType string, v any) {
	text, err := json.Marshal(v)
	if err != nil { // of our own types: cannot be
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // whoever has gone needs no answer
}
