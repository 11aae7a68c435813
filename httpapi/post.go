package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"propeller/worker"
)

// maxForm bounds the form of POST /post in bytes: a payload has 4096, of which
// each may be written as three.
const maxForm = 64 << 10

// FormJob is the job that POST /post puts, and answers.
type FormJob struct {
	Token string  `json:"token"`
	Title *string `json:"title"`
	Body  *string `json:"body"`
	Badge *int64  `json:"badge"`
}

// post is the form API of propeller's predecessor in Python: the parameters
// auth_token, topic, token, title, body, badge, delay, of which those that are
// empty count as absent.
func (a *API) post(w http.ResponseWriter, r *http.Request, c *client) {
	read := func() error { return a.strangersForm(w, r, maxForm) }
	if c != nil {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		read = func() error { return parseForm(r) }
	}
	if err := read(); err != nil {
		http.Error(w, "form: "+bodyFault(err), formStatus(err))
		return
	}
	if token := r.PostForm.Get("auth_token"); c == nil && token != "" { // the header shows no key
		if c = a.access.Load().find(token); c == nil {
			a.wrongKey(r)
		} else {
			known(r)
		}
	}
	if c == nil || c.role < RoleSend {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	if !c.limit.Allow() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too Many Requests", http.StatusTooManyRequests)
		return
	}
	e, err := formEnvelope(r)
	if err != nil {
		http.Error(w, formFault(errorOf(err)), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), putTime)
	defer cancel()
	if result := a.enqueue(ctx, c, e); result.Error != nil {
		http.Error(w, formFault(result.Error), result.Error.Status)
		return
	}
	writeRaw(w, http.StatusOK, "application/json", e.Job)
}

// formStatus is the status for a form that cannot be read.
func formStatus(err error) int {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return http.StatusRequestEntityTooLarge
	}
	return bodyStatus(err)
}

func parseForm(r *http.Request) error {
	if err := r.ParseForm(); err != nil { // ParseMultipartForm forgets this error
		return err
	}
	if err := r.ParseMultipartForm(maxForm); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return err
	}
	return nil
}

// formFault begins with the parameter at fault, if it is one.
func formFault(e *ResultError) string {
	if e.Key == "" {
		return e.Detail
	}
	return e.Key + ": " + e.Detail
}

// formEnvelope makes the notification that a form describes.
func formEnvelope(r *http.Request) (e worker.Envelope, err error) {
	text := func(name string) *string {
		if v := r.PostForm.Get(name); v != "" {
			return &v
		}
		return nil
	}
	e.Topic = r.PostForm.Get("topic")
	job := FormJob{Token: r.PostForm.Get("token"), Title: text("title"), Body: text("body")}
	if badge := text("badge"); badge != nil {
		n, err := strconv.ParseInt(strings.TrimSpace(*badge), 10, 64)
		if err != nil || n < 0 {
			return e, &worker.JobError{Key: "badge", Why: "must be a whole number, 0 or more"}
		}
		job.Badge = &n
	}
	if delay := text("delay"); delay != nil {
		s, err := strconv.ParseInt(strings.TrimSpace(*delay), 10, 64)
		if err != nil || s < 0 || s > int64(worker.MaxDelay/time.Second) {
			return e, &worker.JobError{Key: "delay", Why: "must be a whole number of seconds, 0 or more"}
		}
		e.Delay = time.Duration(s) * time.Second
	}
	if job.Token == "" {
		return e, &worker.JobError{Key: "token", Why: "missing"}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // a payload's bytes are few
	err = enc.Encode(job)
	e.Job = bytes.TrimSpace(out.Bytes())
	return e, err
}
