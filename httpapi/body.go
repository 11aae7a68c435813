package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// Bounds of what notifications are read from.
const (
	// smallBody is what every request may have without waiting for others.
	smallBody = 16 << 10
	// largeBody is the most of one body, or line of a stream: 240,000 tokens.
	largeBody = 16 << 20
	// chunkTime is how long chunk bytes more of a large body may be on their way: a
	// client of less than 13 kB/s holds for nothing what others wait for.
	chunk     = 64 << 10
	chunkTime = 5 * time.Second
)

// errLarge: a line is larger than largeBody.
var errLarge = &http.MaxBytesError{Limit: largeBody}

// bound limits the body of a request. One that says that it is longer is refused
// at once: nothing of it is read, also not to find the next request behind it.
func bound(w http.ResponseWriter, r *http.Request, limit int64) error {
	if r.ContentLength > limit {
		answerEarly(w)
		w.Header().Set("Connection", "close")
		return &http.MaxBytesError{Limit: limit}
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	return nil
}

// body reads the whole body of a client's request, which has at most limit bytes.
// free must be called when it is of no more use.
func (a *API) body(ctx context.Context, w http.ResponseWriter, r *http.Request, c *client, limit int) (body []byte, free func(), err error) {
	if err := bound(w, r, int64(limit)); err != nil {
		return nil, func() {}, err
	}
	body, err = readMore(nil, r.Body, smallBody)
	switch {
	case err == io.EOF:
		return body, func() {}, nil
	case err != nil:
		return nil, func() {}, err
	}
	size := limit // unless the client says
	if r.ContentLength >= 0 {
		size = int(r.ContentLength)
	}
	own := &bodyShare{budget: a.bodies, key: c.name, control: http.NewResponseController(w)}
	if err := own.take(ctx, size, readTime); err != nil {
		return nil, own.free, err
	}
	for err == nil {
		own.hurry()
		body, err = readMore(body, r.Body, chunk)
	}
	own.keep(len(body))
	if err == io.EOF {
		err = nil
	}
	return body, own.free, err
}

// readMore appends n bytes of in to b, or what there is of them before an error.
func readMore(b []byte, in io.Reader, n int) (_ []byte, err error) {
	for end := len(b) + n; len(b) < end && err == nil; {
		b = slices.Grow(b, min(end-len(b), 512)) // most bodies are short
		var got int
		got, err = in.Read(b[len(b):min(end, cap(b))])
		b = b[:len(b)+got]
	}
	return b, err
}

// bodyShare is what a client has of a budget for one large body.
type bodyShare struct {
	budget  *budget
	key     string
	control *http.ResponseController
	n       int       // bytes of the body
	until   time.Time // when the whole body must be there
}

// take waits until n bytes may come. The whole body must then arrive within that time.
func (l *bodyShare) take(ctx context.Context, n int, whole time.Duration) error {
	_ = l.control.SetReadDeadline(time.Time{}) // that it waits is no fault of the client's
	if err := l.budget.take(ctx, l.key, bodyCost*int64(n)); err != nil {
		_ = l.control.SetReadDeadline(time.Now()) // of what is not taken no more is read
		return fmt.Errorf("too many large requests at once: %w", err)
	}
	l.n, l.until = n, time.Now().Add(whole)
	return nil
}

// hurry sets the time until which the next part of the body must be there.
func (l *bodyShare) hurry() {
	next := time.Now().Add(chunkTime)
	if l.until.Before(next) {
		next = l.until
	}
	_ = l.control.SetReadDeadline(next)
}

// keep gives back all bytes but n.
func (l *bodyShare) keep(n int) {
	if n < l.n {
		l.budget.free(l.key, bodyCost*int64(l.n-n))
		l.n = n
	}
}

func (l *bodyShare) free() { l.keep(0) }

// lines reads a stream line by line.
type lines struct {
	in    *bufio.Reader
	share bodyShare // for the last line, if it is a large one
	text  []byte    // of the lines since begin
}

func newLines(in io.Reader, bodies *budget, key string, control *http.ResponseController) *lines {
	return &lines{in: bufio.NewReaderSize(in, chunk), share: bodyShare{budget: bodies, key: key, control: control}}
}

// begin says that the lines so far are of no more use.
func (l *lines) begin() { l.text = l.text[:0] }

// next returns the next line without its end. It is of use until begin. The
// error is io.EOF after the last.
func (l *lines) next(ctx context.Context) ([]byte, error) {
	l.free()
	from := len(l.text)
	part, err := l.in.ReadSlice('\n')
	l.text = append(l.text, part...)
	if errors.Is(err, bufio.ErrBufferFull) {
		if err := l.share.take(ctx, largeBody, lineTime); err != nil {
			return nil, err
		}
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		l.share.hurry()
		if ctx.Err() != nil { // after that: the time that heed sets must stay the last
			return nil, ctx.Err()
		}
		part, err = l.in.ReadSlice('\n')
		if l.text = append(l.text, part...); len(l.text)-from > largeBody {
			return nil, errLarge
		}
	}
	line := l.text[from:len(l.text):len(l.text)]
	l.share.keep(len(line))
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	return line, err
}

// large says that the last line is a large one, which holds a share of the budget.
func (l *lines) large() bool { return l.share.n > 0 }

// free gives the share of the last line back: it is of no more use.
func (l *lines) free() {
	if l.large() {
		l.text = nil
		l.share.free()
	}
}

// waiting says that another whole line may be read without waiting for the
// client.
func (l *lines) waiting() bool {
	n := l.in.Buffered()
	ahead, err := l.in.Peek(n)
	return err == nil && bytes.IndexByte(ahead, '\n') >= 0
}
