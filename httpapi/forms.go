package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Bounds of the forms that are read before it is known whose they are: a key may
// be in the form itself.
const (
	// smallForm is what a stranger may send without waiting for others, in bytes: a
	// right key, with a push of the usual size, always gets in.
	smallForm = 4 << 10
	// maxFields bounds the parameters: there are seven.
	maxFields = 100
	// maxSignIn bounds the form to sign in, in bytes: a key has 1024 at most, of
	// which each may be written as three, and a path of the page is beside it.
	maxSignIn = 8 << 10
)

var errFields = fmt.Errorf("more than %d parameters", maxFields)

// strangersForm reads the form of a stranger, of so many bytes at most.
func (a *API) strangersForm(w http.ResponseWriter, r *http.Request, most int64) error {
	until := time.Now().Add(strangerTime)
	if err := bound(w, r, most); err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetReadDeadline(until) // where there is none, in tests, nobody is slow
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
