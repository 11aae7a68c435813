package apnstest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Answer is the answer to a request. The zero Answer is APNs' success: status
// 200, the request's apns-id, no body. An answer with a Reason and no Status
// takes the status Apple documents for the reason; one with an error Status
// and nothing else takes the usual reason of that status.
type Answer struct {
	Status    int
	Reason    string
	Timestamp time.Time         // "timestamp" of the JSON body, in milliseconds; zero: none
	Body      []byte            // verbatim, instead of the JSON body
	NoBody    bool              // no body, for any status
	Header    map[string]string // more fields; an apns-id here replaces the usual one

	Delay   time.Duration  // added to the server's delay
	Silence bool           // never answer: the stream stays open
	Reset   *http2.ErrCode // RST_STREAM with this code instead of an answer

	// What is legal but rare.
	Informational []int             // 1xx statuses to send first
	Trailer       map[string]string // fields after the body
	Pad           uint8             // bytes of padding in HEADERS and DATA
	SplitHeaders  int               // most bytes of header block in a frame: HEADERS, CONTINUATION …
	SplitBody     int               // most bytes of body in a DATA frame
	// NoEnd leaves the answer without END_STREAM: a body without end.
	NoEnd bool
	// Raw, if set, writes any frames instead of the answer. The server takes the stream for
	// ended. It must not call methods of Conn.
	Raw func(fr *http2.Framer, stream uint32)

	// Then, if set, is called once the answer has been written to the
	// socket, before anything queued after it is. It is called from a
	// goroutine of the connection, and may call methods of Conn, but not
	// Server.Close.
	Then func(*Conn)
}

// IsZero reports whether a is the zero Answer.
func (a *Answer) IsZero() bool {
	return a.Status == 0 && a.plain() && a.Reason == "" && a.Timestamp.IsZero() && a.Body == nil &&
		!a.NoBody && a.Delay == 0 && !a.Silence && a.Reset == nil && a.Then == nil
}

// plain reports whether a uses none of the rare fields.
func (a *Answer) plain() bool {
	return len(a.Header) == 0 && len(a.Informational) == 0 && len(a.Trailer) == 0 && a.Pad == 0 &&
		a.SplitHeaders == 0 && a.SplitBody == 0 && !a.NoEnd && a.Raw == nil
}

// complete fills in status and reason where one follows from the other.
func (a *Answer) complete() {
	if a.Status == 0 {
		a.Status = 200
		if a.Reason != "" {
			a.Status = statusOf(a.Reason)
		}
	}
	if a.Status >= 400 && a.Reason == "" && a.Body == nil && !a.NoBody {
		a.Reason = usualReason(a.Status)
	}
}

// body returns what goes in DATA frames.
func (a *Answer) body() []byte {
	switch {
	case a.NoBody:
		return nil
	case a.Body != nil:
		return a.Body
	case a.Reason == "" && a.Timestamp.IsZero():
		return nil
	}
	doc := struct {
		Reason    string `json:"reason"`
		Timestamp int64  `json:"timestamp,omitempty"`
	}{Reason: a.Reason}
	if !a.Timestamp.IsZero() {
		doc.Timestamp = a.Timestamp.UnixMilli()
	}
	out, err := json.Marshal(doc)
	if err != nil { // a string and an integer cannot fail
		panic("apnstest: " + err.Error())
	}
	return out
}

// statusOf returns the status Apple documents for reason
// (Apple: handling-notification-responses-from-apns), 400 for others.
func statusOf(reason string) int {
	switch reason {
	case "BadCertificate", "BadCertificateEnvironment", "ExpiredProviderToken", "Forbidden",
		"InvalidProviderToken", "MissingProviderToken", "UnrelatedKeyIdInToken",
		"BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken", "TopicMismatch":
		return 403
	case "BadPath":
		return 404
	case "MethodNotAllowed":
		return 405
	case "ExpiredToken", "Unregistered":
		return 410
	case "PayloadTooLarge":
		return 413
	case "TooManyProviderTokenUpdates", "TooManyRequests":
		return 429
	case "InternalServerError":
		return 500
	case "ServiceUnavailable", "Service Unavailable", "Shutdown": // the second is so printed on the broadcast page
		return 503
	}
	return 400
}

// usualReason is the reason of an answer with only a status; "" for statuses that APNs does not
// send.
func usualReason(status int) string {
	switch status {
	case 400:
		return "BadDeviceToken"
	case 403:
		return "InvalidProviderToken"
	case 404:
		return "BadPath"
	case 405:
		return "MethodNotAllowed"
	case 410:
		return "Unregistered"
	case 413:
		return "PayloadTooLarge"
	case 429:
		return "TooManyRequests"
	case 500:
		return "InternalServerError"
	case 503:
		return "ServiceUnavailable"
	}
	return ""
}

// statusText returns the value of :status.
func statusText(status int) string {
	if status == 200 {
		return "200"
	}
	return strconv.Itoa(status)
}

// sortedKeys makes the order of a map's fields on the wire predictable.
func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// decide finds the answer to a request that has ended.
func (c *conn) decide(st *stream) Answer {
	var a Answer
	switch reason := c.refusal(st); {
	case st.head.tooLong:
		a = Answer{Status: 431, NoBody: true} // RFC 6585 §5
	case reason != "":
		a = Answer{Reason: reason}
	default:
		if script := c.srv.script.Load(); script != nil {
			a = (*script)(st.req)
		}
	}
	a.complete()
	return a
}

func (c *conn) refusal(st *stream) string {
	if c.srv.opt.NoValidation || st.head.tooLong {
		return ""
	}
	return c.validate(&st.head, st.req)
}

// decided records a request whose answer is known, and answers it.
func (c *conn) decided(st *stream, a Answer) {
	s, req := c.srv, st.req
	req.Answer = a
	if s.record.limit > 0 {
		s.record.add(req)
	}
	s.requests.add()
	if f := s.opt.OnRequest; f != nil {
		f(req)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.delay() + a.Delay; d > 0 {
		c.timers.push(timed{due: c.in.now.Add(d), st: st})
		return
	}
	c.answer(st)
}

func (c *conn) delay() time.Duration { return time.Duration(c.srv.delay.Load()) }

// writable reports whether frames may be queued. It needs c.mu.
func (c *conn) writable() bool { return !c.muted && c.ending == endNot && !c.aborted }

// answer queues the answer to st. It needs c.mu.
func (c *conn) answer(st *stream) {
	st.pendingAnswer = false
	a := &st.req.Answer
	if st.closed || a.Silence || st.id > c.goneID || !c.writable() {
		return // an open stream stays open, for the client to give up on
	}
	switch {
	case a.Reset != nil:
		c.writeReset(st.id, *a.Reset)
		c.finish(st)
	case a.Raw != nil:
		a.Raw(c.fr, st.id)
		c.finish(st)
	default:
		c.srv.stats.answer(a.Status, a.Reason)
		c.respond(st, a)
	}
}

// respond queues HEADERS, DATA and trailers. It needs c.mu.
func (c *conn) respond(st *stream, a *Answer) {
	for _, status := range a.Informational {
		c.hbuf.Reset()
		c.enc.WriteField(hpack.HeaderField{Name: ":status", Value: statusText(status)})
		c.writeHeaders(st.id, false, a)
	}
	body := a.body()
	c.encodeHead(st, a)
	bare := len(body) == 0 && len(a.Trailer) == 0
	c.writeHeaders(st.id, bare && !a.NoEnd, a)
	if bare {
		c.finish(st)
		return
	}
	c.sendBody(st, body)
}

// encodeHead writes the answer's header block to c.hbuf.
func (c *conn) encodeHead(st *stream, a *Answer) {
	c.hbuf.Reset()
	c.enc.WriteField(hpack.HeaderField{Name: ":status", Value: statusText(a.Status)})
	literal := !c.srv.opt.IndexAnswers
	if _, ok := a.Header["apns-id"]; !ok {
		id := st.head.id
		if id == "" {
			id = c.newID()
		}
		c.enc.WriteField(hpack.HeaderField{Name: "apns-id", Value: id, Sensitive: literal})
	}
	if st.head.requestID != "" {
		c.enc.WriteField(hpack.HeaderField{Name: "apns-request-id", Value: st.head.requestID, Sensitive: literal})
	}
	if len(a.Header) == 0 {
		return
	}
	for _, name := range sortedKeys(a.Header) {
		if v := a.Header[name]; v != "" {
			c.enc.WriteField(hpack.HeaderField{Name: name, Value: v})
		}
	}
}

// newID makes the apns-id for a request without one. APNs' are in upper case
// (jchambers/pushy#184).
func (c *conn) newID() string {
	hi, lo := c.rng.Uint64(), c.rng.Uint64()
	return fmt.Sprintf("%08X-%04X-4%03X-%04X-%012X",
		uint32(hi>>32), uint16(hi>>16), hi&0xfff, lo>>48&0x3fff|0x8000, lo&0xffffffffffff)
}

// writeHeaders queues c.hbuf as HEADERS and as many CONTINUATION frames as needed.
func (c *conn) writeHeaders(id uint32, end bool, a *Answer) {
	block := c.hbuf.Bytes()
	limit := c.flow.peerMaxFrame - 1 - int(a.Pad)
	if a.SplitHeaders > 0 {
		limit = min(limit, a.SplitHeaders)
	}
	n := min(len(block), limit)
	c.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: block[:n], EndStream: end, EndHeaders: n == len(block), PadLength: a.Pad,
	})
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n = min(len(block), limit)
		c.fr.WriteContinuation(id, n == len(block), block[:n])
	}
}

// sendBody queues as much of body as the client's windows allow, and keeps
// the rest. It needs c.mu.
func (c *conn) sendBody(st *stream, body []byte) {
	a := &st.req.Answer
	padding := 0
	if a.Pad > 0 {
		padding = 1 + int(a.Pad)
	}
	end := len(a.Trailer) == 0 && !a.NoEnd
	for len(body) > 0 && c.writable() {
		window := min(c.flow.send, c.flow.peerInitial+st.credit, int64(c.flow.peerMaxFrame)) - int64(padding)
		n := min(int64(len(body)), window)
		if a.SplitBody > 0 {
			n = min(n, int64(a.SplitBody))
		}
		if n <= 0 {
			st.rest = body
			c.blocked = append(c.blocked, st)
			return
		}
		var pad []byte
		if a.Pad > 0 {
			pad = make([]byte, a.Pad)
		}
		c.fr.WriteDataPadded(st.id, end && n == int64(len(body)), body[:n], pad)
		body = body[n:]
		c.flow.send -= n + int64(padding)
		st.credit -= n + int64(padding)
	}
	if len(a.Trailer) > 0 {
		c.hbuf.Reset()
		for _, name := range sortedKeys(a.Trailer) {
			c.enc.WriteField(hpack.HeaderField{Name: name, Value: a.Trailer[name]})
		}
		c.writeHeaders(st.id, !a.NoEnd, a)
	}
	c.finish(st)
}

// finish is called when the last frame of an answer is queued. It needs c.mu.
func (c *conn) finish(st *stream) {
	c.srv.answered.add()
	a := &st.req.Answer
	if a.Then != nil {
		c.out.marks = append(c.out.marks, mark{at: len(c.out.buf), f: a.Then})
	}
	if a.Reset == nil && a.Raw == nil {
		c.adapt(a.Status)
	}
	if !a.NoEnd {
		c.close(st)
	}
}

// writeReset queues RST_STREAM. It needs c.mu.
func (c *conn) writeReset(id uint32, code http2.ErrCode) {
	if c.writable() {
		c.fr.WriteRSTStream(id, code)
	}
}

// goAway queues GOAWAY and stops taking streams above last. It needs c.mu.
func (c *conn) goAway(last uint32, code http2.ErrCode, debug []byte) {
	if c.writable() {
		c.srv.stats.goAways.Add(1)
		c.goneID = min(c.goneID, last)
		c.fr.WriteGoAway(last, code, debug)
	}
}
