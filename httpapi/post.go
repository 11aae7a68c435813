package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"propeller/worker/job"
)

// maxForm bounds the form of POST /post in bytes: a payload has 4096, of which
// each may be written as three.
const maxForm = 64 << 10

// formJob is the job that POST /post puts, and answers.
type formJob struct {
	Token string  `json:"token"`
	Title *string `json:"title"`
	Body  *string `json:"body"`
	Badge *int64  `json:"badge"`
}

// post is the form API of propeller's predecessor in Python: the parameters
// auth_token, topic, token, title, body, badge, delay, and also app. Those that are
// empty count as absent.
func (a *API) post(w http.ResponseWriter, r *http.Request, c *client) {
	read := func() error { return a.unauthenticatedForm(w, r, maxForm) }
	if c != nil {
		read = func() error { return parseBounded(w, r, maxForm) }
	}
	if err := read(); err != nil {
		textAnswer(formStatus(err), "form: "+bodyFault(err)).write(w)
		return
	}
	if token := r.PostForm.Get("auth_token"); c == nil && token != "" { // the header shows no key
		if k := a.access.Load().find(token); k == nil {
			a.wrongKey(r)
		} else {
			c = &k.client
			markAuthenticated(r)
		}
	}
	if c == nil || c.role < RoleSend {
		text := "Unauthorized"
		if c == nil && !r.PostForm.Has("auth_token") && r.Header.Get("Authorization") == "" {
			text += ": auth_token must be in the body, as a form"
		}
		textAnswer(http.StatusUnauthorized, text).write(w)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), putTime)
	defer cancel()
	asked := maps.Clone(r.PostForm)
	asked.Del("auth_token") // the client's name stands for it
	out, refused := a.onlyOnce(ctx, r, c, []byte(asked.Encode()), func(ctx context.Context) (answer, bool) { return a.postForm(ctx, c, r) })
	if refused != nil {
		out = textAnswer(refused.Status, refused.Detail)
	}
	out.write(w)
}

func (a *API) postForm(ctx context.Context, c *client, r *http.Request) (out answer, keep bool) {
	if !c.limit.Allow() {
		return textAnswer(http.StatusTooManyRequests, "Too Many Requests"), false
	}
	e, err := formEnvelope(r)
	if err != nil {
		return textAnswer(http.StatusBadRequest, formFault(errorOf(err))), false
	}
	result := a.enqueue(ctx, c, e)
	if result.Error != nil {
		out = textAnswer(result.Error.Status, formFault(result.Error))
		out.uncertain = result.Error.Uncertain
		return out, result.mayBePut()
	}
	return answer{status: http.StatusOK, contentType: "application/json", body: append(e.Job, '\n')}, true
}

// textAnswer is an answer for clients that expect text.
func textAnswer(status int, text string) answer {
	return answer{status: status, contentType: "text/plain; charset=utf-8", body: []byte(text + "\n")}
}

// formStatus is the status for a form that cannot be read.
func formStatus(err error) int {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return http.StatusRequestEntityTooLarge
	}
	return bodyStatus(err)
}

// parseBounded reads the form of a client.
func parseBounded(w http.ResponseWriter, r *http.Request, most int64) error {
	if err := bound(w, r, most); err != nil {
		return err
	}
	return parseForm(r)
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
func formFault(e *resultError) string {
	if e.Key == "" {
		return e.Detail
	}
	return e.Key + ": " + e.Detail
}

// formEnvelope makes the notification that a form describes.
func formEnvelope(r *http.Request) (e job.Envelope, err error) {
	text := func(name string) *string {
		if v := r.PostForm.Get(name); v != "" {
			return &v
		}
		return nil
	}
	e.App, e.Topic = r.PostForm.Get("app"), r.PostForm.Get("topic")
	form := formJob{Token: r.PostForm.Get("token"), Title: text("title"), Body: text("body")}
	if badge := text("badge"); badge != nil {
		n, err := strconv.ParseInt(strings.TrimSpace(*badge), 10, 64)
		if err != nil || n < 0 {
			return e, &job.Error{Key: "badge", Why: "must be a whole number, 0 or more"}
		}
		form.Badge = &n
	}
	if delay := text("delay"); delay != nil {
		s, err := strconv.ParseInt(strings.TrimSpace(*delay), 10, 64)
		if err != nil || s < 0 || s > int64(job.MaxDelay/time.Second) {
			return e, &job.Error{Key: "delay", Why: "must be a whole number of seconds, 0 or more"}
		}
		e.Delay = time.Duration(s) * time.Second
	}
	if form.Token == "" {
		return e, &job.Error{Key: "token", Why: "missing"}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // a payload's bytes are few
	err = enc.Encode(form)
	e.Job = bytes.TrimSpace(out.Bytes())
	return e, err
}

// Bounds of the forms that are read before it is known whose they are: a key may
// be in the form itself.
const (
	// smallForm is what a client may send unauthenticated without waiting for others, in bytes: a
	// right key, with a push of the usual size, always gets in.
	smallForm = 4 << 10
	// maxFields bounds the parameters: there are eight.
	maxFields = 100
	// maxSignIn bounds the form to sign in, in bytes: a key has 1024 at most, of
	// which each may be written as three, and a path of the page is beside it.
	maxSignIn = 8 << 10
)

var errFields = fmt.Errorf("more than %d parameters", maxFields)

// unauthenticatedForm reads the form of an unauthenticated request, of at most that many bytes.
func (a *API) unauthenticatedForm(w http.ResponseWriter, r *http.Request, most int64) error {
	until := time.Now().Add(unauthenticatedTime)
	if err := bound(w, r, most); err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetReadDeadline(until) // tests have none
	size := r.ContentLength
	if size < 0 {
		size = most
	}
	if size > smallForm {
		ctx, cancel := context.WithDeadline(r.Context(), until)
		defer cancel()
		from := network(a.access.Load().remote(r))
		if err := a.forms.take(ctx, from, formCost*size); err != nil {
			return fmt.Errorf("too many large forms at once: %w", err)
		}
		defer a.forms.free(from, formCost*size)
	}
	askBody(r, int(most)+1)
	r.Body = &fewFields{r.Body, maxFields}
	return parseForm(r)
}

// fewFields is the body of a form that ends with an error if there are more.
type fewFields struct {
	io.ReadCloser
	left int
}

func (f *fewFields) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.left -= bytes.Count(p[:n], []byte("&")); f.left < 0 {
		return n, errors.Join(errFields, err)
	}
	return n, err
}
