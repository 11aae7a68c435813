package apnsconn

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// streamWindow is what the peer may send on a stream, HTTP/2's default. It is never renewed,
	// so it bounds the bodies that are read and not kept.
	streamWindow = 65535

	// maxHeaderList bounds an answer's header list, decoded, and is announced to the peer. APNs'
	// have less than 300 bytes.
	maxHeaderList = 8 << 10

	// maxHeaderBlock bounds an encoded header list, and maxContinuations the frames it comes in:
	// enough for any list of maxHeaderList bytes.
	maxHeaderBlock   = 2 * maxHeaderList
	maxContinuations = 16

	maxRetryAfter = 24 * time.Hour
)

// answerHead collects one header block of the peer while it is decoded.
type answerHead struct {
	stream    uint32
	endStream bool
	encoded   int // bytes seen of the block
	frames    int

	status     int
	apnsID     string
	requestID  bool // apnsID is the apns-request-id
	retryAfter time.Duration
	length     int64  // content-length; -1 if absent
	date       string // of an answer with status 403

	size    int    // of the list
	regular bool   // a field without colon has been seen
	fault   string // what is malformed
}

func (h *answerHead) start(f *http2.HeadersFrame) {
	*h = answerHead{stream: f.StreamID, endStream: f.StreamEnded(), length: -1}
}

// field takes one decoded field.
func (h *answerHead) field(f hpack.HeaderField) {
	h.size += len(f.Name) + len(f.Value) + fieldOverhead
	if h.size > maxHeaderList {
		h.fault = "header list too long"
	}
	if h.fault != "" {
		return
	}
	if strings.HasPrefix(f.Name, ":") {
		h.pseudo(f)
		return
	}
	h.regular = true
	switch f.Name {
	case "apns-id":
		if len(f.Value) <= 64 && !h.requestID { // a UUID has 36 characters
			h.apnsID = f.Value
		}
	case "apns-request-id":
		// The answer to a broadcast may also have an apns-id, which is APNs' own and not the
		// notification's.
		if len(f.Value) <= 64 {
			h.apnsID, h.requestID = f.Value, true
		}
	case "retry-after":
		h.retryAfter = parseRetryAfter(f.Value)
	case "date":
		if h.status == http.StatusForbidden {
			h.date = f.Value
		}
	case "content-length":
		h.contentLength(f.Value)
	default:
		if f.Name == "" || strings.ToLower(f.Name) != f.Name {
			h.fault = "header name not in lower case"
		}
	}
}

func (h *answerHead) pseudo(f hpack.HeaderField) {
	status, err := strconv.Atoi(f.Value)
	switch {
	case h.regular:
		h.fault = "pseudo-header after header"
	case f.Name != ":status":
		h.fault = "unknown pseudo-header"
	case h.status != 0:
		h.fault = "two statuses"
	case err != nil || len(f.Value) != 3 || status < 100:
		h.fault = "status is not three digits"
	case status == http.StatusSwitchingProtocols:
		h.fault = "status 101" // RFC 9113 §8.6
	}
	h.status = status
}

func (h *answerHead) contentLength(v string) {
	n, err := strconv.ParseUint(v, 10, 63)
	switch {
	case err != nil:
		h.fault = "content-length is not a number"
	case h.length >= 0 && h.length != int64(n):
		h.fault = "two content-lengths"
	}
	h.length = int64(n)
}

// parseRetryAfter reads seconds or a date; anything else counts as absent.
func parseRetryAfter(v string) time.Duration {
	var d time.Duration
	if s, err := strconv.Atoi(v); err == nil {
		d = time.Duration(min(s, int(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = time.Until(t)
	}
	return max(0, min(d, maxRetryAfter))
}

// head handles a complete header block. mu is held.
func (c *Conn) head(h *answerHead, frame http2.FrameHeader) (answered *push, err error) {
	p, err := c.streamOf(frame)
	if p == nil {
		return nil, err
	}
	trailers := p.status != 0
	switch {
	case h.fault != "":
	case trailers && h.status != 0:
		h.fault = "pseudo-header in trailers"
	case trailers && !h.endStream:
		h.fault = "trailers that do not end the stream"
	case !trailers && h.status == 0:
		h.fault = "no status"
	case h.status/100 == 1 && h.endStream:
		h.fault = "stream ended by an interim answer"
	}
	if h.fault != "" {
		c.fail(p, http2.ErrCodeProtocol, h.fault)
		return nil, nil
	}
	if h.status/100 == 1 {
		return nil, nil // RFC 9110 §15.2: the answer is still to come
	}
	if !trailers {
		p.status, p.apnsID, p.retryAfter = h.status, h.apnsID, h.retryAfter
		p.length = h.length
		if h.date != "" {
			p.skew = skewOf(h.date)
		}
		if h.status == http.StatusNotModified {
			p.length = -1 // of a body that is not sent
		}
	}
	return c.bodyRead(p, h.endStream), nil
}

// bodyRead checks p's body after each part of it: if its length differs from content-length,
// the answer is malformed (RFC 9113 §8.1.1). It returns p when the answer is complete. mu is
// held.
func (c *Conn) bodyRead(p *push, last bool) (answered *push) {
	switch {
	case p.length >= 0 && (p.content > p.length || last && p.content < p.length):
		c.fail(p, http2.ErrCodeProtocol, "the body's length is not its content-length")
	case last:
		return p
	case p.received == streamWindow:
		c.fail(p, http2.ErrCodeCancel, "body too long")
	}
	return nil
}

// data handles a DATA frame. mu is held.
func (c *Conn) data(f *http2.DataFrame) (answered *push, err error) {
	if err := c.consumed(int(f.Length)); err != nil {
		return nil, err
	}
	p, err := c.streamOf(f.Header())
	if p == nil {
		return nil, err
	}
	p.received += int(f.Length)
	switch {
	case p.status == 0:
		c.fail(p, http2.ErrCodeProtocol, "body before the status")
		return nil, nil
	case p.received > streamWindow:
		c.fail(p, http2.ErrCodeFlowControl, "body beyond the window")
		return nil, nil
	}
	body := f.Data()
	p.content += int64(len(body))
	p.body = append(p.body, body[:min(len(body), maxBody-len(p.body))]...)
	return c.bodyRead(p, f.StreamEnded()), nil
}

// connWindow is what the peer may send on the connection before it gets a WINDOW_UPDATE: room
// for a thousand short bodies at once. Bodies are consumed as they arrive, so this costs no memory.
const connWindow = 1 << 20

// consumed takes n bytes off the connection's receive window, and renews it when half is used.
// mu is held.
func (c *Conn) consumed(n int) error {
	c.received += n
	if c.received > connWindow {
		return breach(http2.ErrCodeFlowControl, "sends beyond the connection's window")
	}
	if c.received >= connWindow/2 {
		c.control(c.frames.WriteWindowUpdate(0, uint32(c.received)))
		c.received = 0
	}
	return nil
}

// answered ends p by the peer's complete answer, and decides what that means for the
// connection. The caller calls p.done. mu is held.
func (c *Conn) answered(p *push) Outcome {
	o := p.outcome()
	if len(p.unwritten()) > 0 {
		c.reset(p, http2.ErrCodeCancel) // answered without waiting for all of the request
	}
	c.tokenAnswer(p, &o)
	c.fresh = c.fresh && o.Reason == "ExpiredProviderToken"
	c.heardOf()
	if p.status == http.StatusInternalServerError {
		c.faults++
	} else {
		c.faults = 0
	}
	c.remove(p)
	switch {
	case o.Reconnect():
		c.retire(&suspectError{Status: o.Status, Reason: o.Reason, Err: o.Err})
	case c.faults >= maxFaults:
		c.retire(errServerFault)
	}
	return o
}

// heardOf notes that the peer has ended a stream, so it is not dead. mu is held.
func (c *Conn) heardOf() {
	c.timeouts = 0
	c.heard = time.Duration(c.lastRead.Load())
}

// maxFaults answers with status 500 in a row make a connection suspect: a connection that has
// gone stale at APNs gives that answer for ever.
const maxFaults = 3
