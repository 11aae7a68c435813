package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// Bounds of streams.
const (
	// batchLines and batchBytes bound what of a stream is worked on at once.
	batchLines = 256
	batchBytes = 1 << 20
	// maxUnread is how many bytes of answers wait for a client that sends and
	// does not read: of 100,000 notifications and more. Then it is read from no
	// further.
	maxUnread = 4 << 20
	// lineTime is how long the next line may be on its way, and an answer
	// unread.
	lineTime = 30 * time.Second
	// lastTime is how long what a client sends is still read, and ignored, when its stream
	// is cut short: closed while the client sends, the connection may lose the last line
	// of the answer.
	lastTime = time.Second
)

// stream takes notifications, one a line, and answers each with a line, in
// their order, while more come.
func (a *API) stream(w http.ResponseWriter, r *http.Request, c *client) {
	control := answerEarly(w)
	if !a.lasting.try(c.name, streamCost) {
		writeProblem(w, http.StatusServiceUnavailable, errLasting.Error())
		return
	}
	defer a.lasting.free(c.name, streamCost)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusAccepted)
	if err := control.Flush(); err != nil { // some clients wait for the head before they send
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := newOutbox(w, control, cancel)
	s := &streamed{api: a, request: r, client: c, control: control, in: newLines(r.Body, a.bodies, c.name, control), out: out}
	var working sync.WaitGroup
	over := make(chan struct{})
	reading, stop := context.WithCancelCause(ctx)
	working.Go(out.write)
	working.Go(func() { s.heed(stop, over) })
	defer func() { // also after a panic
		s.in.free()
		out.close()
		close(over)
		working.Wait()
		stop(nil)
		_ = control.SetReadDeadline(time.Now().Add(lastTime)) // the server reads what comes, up to a bound
	}()
	if err := s.run(ctx, reading); err != nil {
		out.add(result{Error: lastWord(reading, err)})
	}
}

// Why a stream is cut short, besides what its client does.
var (
	errStopping = errors.New("the daemon is stopping")
	errKeyGone  = errors.New("its key was removed from the configuration")
	errKeyRole  = errors.New("its key no longer has the role send")
)

// lastWord tells the client why its stream was cut short by err.
func lastWord(reading context.Context, err error) *resultError {
	if errors.Is(context.Cause(reading), errStopping) { // whatever error that caused in reading
		return &resultError{Status: http.StatusServiceUnavailable, Detail: errStopping.Error()}
	}
	status := bodyStatus(err)
	switch {
	case errors.Is(err, errKeyGone):
		status = http.StatusUnauthorized
	case errors.Is(err, errKeyRole):
		status = http.StatusForbidden
	}
	return &resultError{Status: status, Detail: "the stream: " + bodyFault(err)}
}

// answerEarly lets an answer out before the request's body has been read, for
// which a server of HTTP/1 else waits.
func answerEarly(w http.ResponseWriter) *http.ResponseController {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // where there is none, in tests, there is nothing to wait for
	return control
}

// streamed is a stream at work.
type streamed struct {
	api     *API
	request *http.Request
	client  *client // as of the last batch
	control *http.ResponseController
	in      *lines
	out     *outbox

	batch   [][]byte
	results []result
}

// heed has no more lines be taken once the server is to end, until over: the line
// that is on its way is left, the batch at hand is finished. Reading is given an end,
// and does not fail at once: what has failed can be read no further.
func (s *streamed) heed(stop context.CancelCauseFunc, over <-chan struct{}) {
	select {
	case <-ending(s.request).Done():
		stop(errStopping)
		_ = s.control.SetReadDeadline(time.Now().Add(lastTime))
	case <-over:
	}
}

// run works until the stream ends; the error is what cut it short. What is read
// is put under ctx; reading, which ends earlier, is for all that may take long.
func (s *streamed) run(ctx, reading context.Context) error {
	for {
		end, err := s.gather(reading)
		if perr := s.put(ctx, reading); perr != nil {
			return perr
		}
		if end || err != nil {
			return err
		}
	}
}

// gather reads the next batch: what is there, and at least one line.
func (s *streamed) gather(reading context.Context) (end bool, err error) {
	s.batch = s.batch[:0]
	s.in.begin()
	size := 0
	for len(s.batch) < batchLines && size < batchBytes && (len(s.batch) == 0 || s.in.waiting()) {
		if len(s.batch) == 0 {
			// The server's own limit is for whole requests. Where there is none
			// to set, that one holds.
			_ = s.control.SetReadDeadline(time.Now().Add(lineTime))
			if err := reading.Err(); err != nil { // after that: heed's deadline must stay the last
				return false, err
			}
		}
		line, err := s.in.next(reading)
		switch {
		case err == io.EOF:
			return true, nil
		case err != nil:
			return false, err
		case reading.Err() != nil:
			return false, reading.Err()
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			s.batch = append(s.batch, line)
			size += len(line)
		}
		if s.in.large() {
			break
		}
	}
	return false, nil
}

// put puts the batch and answers it.
func (s *streamed) put(ctx, reading context.Context) error {
	n := len(s.batch)
	if n == 0 {
		return nil
	}
	if err := s.admit(reading, n); err != nil {
		return err
	}
	s.results = append(s.results[:0], make([]result, n)...)
	putting, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	s.api.acceptAll(putting, s.client, s.client.owe, n, func(i int) []byte { return s.batch[i] }, s.results)
	for i := range s.results {
		s.out.add(s.results[i])
	}
	return ctx.Err()
}

// admit waits until the client may send n notifications, and checks again what it
// may do: a stream may be open for days, and a reload change its key.
func (s *streamed) admit(reading context.Context, n int) error {
	if err := s.renew(); err != nil {
		return err
	}
	if err := s.client.limit.WaitN(reading, n); err != nil {
		return err
	}
	return s.renew() // that may have taken minutes
}

func (s *streamed) renew() error {
	c := s.api.still(s.request, s.client)
	switch {
	case c == nil:
		return errKeyGone
	case c.role < RoleSend:
		return errKeyRole
	}
	s.client = c
	return nil
}

// outbox holds answers until the client reads them.
type outbox struct {
	w       io.Writer
	control *http.ResponseController
	gone    func() // called when the client reads no more

	mu      sync.Mutex
	changed sync.Cond
	waiting []byte
	closed  bool
	failed  bool
}

func newOutbox(w io.Writer, control *http.ResponseController, gone func()) *outbox {
	o := &outbox{w: w, control: control, gone: gone}
	o.changed.L = &o.mu
	return o
}

// add queues an answer. It waits while too many are unread; what write does is
// bounded in time, so that this is, too.
func (o *outbox) add(r result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.waiting) > maxUnread && !o.failed {
		o.changed.Wait()
	}
	if o.failed {
		return
	}
	o.waiting = append(appendResult(o.waiting, r), '\n')
	o.changed.Broadcast()
}

// appendResult appends the JSON of a result. That of most needs no reflection.
func appendResult(b []byte, r result) []byte {
	if r.Error == nil && r.IDs == nil && r.Malformed == nil && plain(r.ID) {
		b = append(b, `{"id":"`...)
		b = append(b, r.ID...)
		return append(b, `"}`...)
	}
	text, err := json.Marshal(r)
	if err != nil { // of our own type: cannot be
		return append(b, `{}`...)
	}
	return append(b, text...)
}

func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// close says that no more answers come.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.changed.Broadcast()
}

// write sends answers until close, or until the client is gone.
func (o *outbox) write() {
	var sending []byte
	for {
		o.mu.Lock()
		for len(o.waiting) == 0 && !o.closed {
			o.changed.Wait()
		}
		sending, o.waiting = o.waiting, sending[:0]
		done := o.closed && len(sending) == 0
		o.changed.Broadcast()
		o.mu.Unlock()
		if done {
			return
		}
		if err := o.send(sending); err != nil {
			o.mu.Lock()
			o.failed = true
			o.changed.Broadcast()
			o.mu.Unlock()
			o.gone()
			return
		}
	}
}

func (o *outbox) send(b []byte) error {
	if err := o.control.SetWriteDeadline(time.Now().Add(lineTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.control.Flush()
}
