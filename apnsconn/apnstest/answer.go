package apnstest

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http2"
)

// Answer is what a request is told. The zero Answer is APNs' success: status
// 200, the request's apns-id, no body. An answer with a Reason and no Status
// takes the status Apple documents for the reason; one with an error Status
// and nothing else takes the usual reason of that status.
type Answer struct {
	Status    int
	Reason    string
	Timestamp time.Time         // "timestamp" of the JSON body, in milliseconds; zero: none
	Body      []byte            // verbatim, instead of the JSON body
	NoBody    bool              // no body whatever the status
	Header    map[string]string // further fields, or others in place of apns-id

	Delay   time.Duration  // to wait, beside the server's delay
	Silence bool           // never answer: the stream stays open
	Reset   *http2.ErrCode // RST_STREAM with this code instead of an answer

	// What is legal but rare.
	Informational []int             // 1xx statuses to send first
	Trailer       map[string]string // fields after the body
	Pad           uint8             // bytes of padding in HEADERS and DATA
	SplitHeaders  int               // at most so many bytes of header block a frame: HEADERS, CONTINUATION …
	SplitBody     int               // at most so many bytes of body a DATA frame
	// NoEnd leaves the answer without END_STREAM: a body without end.
	NoEnd bool
	// Raw, if set, writes any frames it likes in place of the answer. The
	// server takes the stream for ended. It must not call methods of Conn.
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
	case "ServiceUnavailable", "Shutdown":
		return 503
	}
	return 400
}

// usualReason is the reason of an answer that was given only a status, "" for
// statuses that APNs does not send.
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
