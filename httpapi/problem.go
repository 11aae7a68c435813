package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker/job"
)

// Problem is an error as JSON (RFC 9457), of type about:blank: the status says
// what kind it is and the detail what to do.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Key    string `json:"key,omitempty"` // of the request's body, that is at fault
	// Uncertain: what was asked for may have been done all the same, or may be yet.
	Uncertain bool `json:"uncertain,omitempty"`
}

// Error is the detail.
func (p *Problem) Error() string { return p.Detail }

// Is makes an uncertain problem a queue.ErrUncertain.
func (p *Problem) Is(target error) bool { return p.Uncertain && target == queue.ErrUncertain }

// answer is the problem as an answer, with the title that its status has.
func (p Problem) answer() answer {
	p.Title = http.StatusText(p.Status)
	a := jsonAnswer(p.Status, p)
	a.contentType, a.uncertain = problemType, p.Uncertain
	return a
}

const problemType = "application/problem+json"

// statusOf is the HTTP status for an error of the queue or of a request.
func statusOf(err error) int {
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large:
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errChoice), errors.Is(err, errLimit), errors.Is(err, queue.ErrRejected), errors.Is(err, errBody), isJobError(err), isAmbiguous(err):
		return http.StatusBadRequest
	case errors.Is(err, errRate):
		return http.StatusTooManyRequests
	case errors.Is(err, errOther):
		return http.StatusForbidden
	case errors.Is(err, queue.ErrNotFound), errors.Is(err, supervisor.ErrNoApp):
		return http.StatusNotFound
	case errors.Is(err, queue.ErrFull):
		return http.StatusInsufficientStorage
	case errors.Is(err, queue.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	case errors.Is(err, supervisor.ErrNoAdmin):
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

func isAmbiguous(err error) bool {
	_, ok := errors.AsType[*supervisor.AmbiguousError](err)
	return ok
}

func isJobError(err error) bool {
	_, ok := errors.AsType[*job.Error](err)
	return ok
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	problemOf(status, "", detail).write(w)
}

func writeJSON(w http.ResponseWriter, status int, v any) { jsonAnswer(status, v).write(w) }

// answer is a whole answer.
type answer struct {
	status      int
	contentType string
	location    string // header Location; "" for none
	uncertain   bool   // repeated, the request may be carried out twice
	replayed    bool   // it is that of an earlier request
	body        []byte
}

func problemOf(status int, key, detail string) answer {
	return Problem{Status: status, Detail: detail, Key: key}.answer()
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
	if a.location != "" {
		h.Set("Location", a.location)
	}
	switch a.status {
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if !a.uncertain {
			h.Set("Retry-After", "1")
		}
	}
	if a.replayed {
		h.Set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // a client that has left needs no answer
}
