package apnsconn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Class says how a push ended, and so what may be done with it next.
type Class uint8

// The classes. Every push ends in exactly one of them.
const (
	// Delivered: APNs answered 200.
	Delivered Class = iota + 1
	// Token: this device token must not be used again for this topic.
	Token
	// Rejected: this request can never succeed.
	Rejected
	// Throttled: too many pushes for this device token; later it may work.
	Throttled
	// Unavailable: trouble on APNs' side; later it may work.
	Unavailable
	// Credential: the certificate or key is refused; no push of this app works.
	Credential
	// NotSent: provably not processed; sending it again cannot duplicate it.
	NotSent
	// Unknown: it may have been processed; sending it again may duplicate it.
	Unknown
)

// String is the class as logs and metrics write it: delivered, token, rejected, throttled,
// unavailable, credential, not_sent or unknown. Any other value prints as class(n).
func (c Class) String() string {
	switch c {
	case Delivered:
		return "delivered"
	case Token:
		return "token"
	case Rejected:
		return "rejected"
	case Throttled:
		return "throttled"
	case Unavailable:
		return "unavailable"
	case Credential:
		return "credential"
	case NotSent:
		return "not_sent"
	case Unknown:
		return "unknown"
	}
	return "class(" + strconv.Itoa(int(c)) + ")"
}

// Outcome is how one push ended.
type Outcome struct {
	Class      Class
	Status     int           // HTTP status; 0 when there was no answer
	Reason     string        // APNs' reason: any text of at most 64 printable bytes; "" without a reason
	APNsID     string        // the answer's apns-id, or apns-request-id for a broadcast
	Since      time.Time     // 410: when APNs last found the token dead; zero if not said
	RetryAfter time.Duration // the answer's retry-after; 0 when absent (Apple documents none)

	// Err is the reason for NotSent and Unknown; for Rejected with Status 0, the *FieldError of
	// a value that Send refused itself; for Unavailable, how the answer broke off before its
	// reason was complete (Status is set, but not 200); and a *ClockError if APNs refuses a
	// provider token because this machine's clock is wrong. Otherwise it is nil.
	Err error
}

// Reconnect reports whether the answer blames the connection, not the push: the connection must
// take no new pushes, and be replaced once its open ones have ended. It is true for 400
// IdleTimeout, 403 UnrelatedKeyIdInToken, 403 ExpiredProviderToken (after which APNs keeps
// refusing on that connection: jchambers/pushy#408) and 503 Shutdown.
func (o Outcome) Reconnect() bool {
	if o.Status == 200 || o.Status == 0 {
		return false
	}
	return reasons[reasonKey{o.Status, o.Reason}].reconnect
}

// ErrCredential is wrapped by errors of Dial and Conn.Err when APNs refused the certificate or
// key, by a TLS alert or a GOAWAY.
var ErrCredential = errors.New("credential refused")

const (
	// maxBody is how much of an answer's body is read. APNs' own have less than 100 bytes, so a
	// longer one is not from APNs.
	maxBody = 4 << 10

	// maxReason bounds Outcome.Reason, in bytes. The longest that Apple documents has 27. Reasons
	// go into logs and metrics, so one from a broken or hostile peer must stay small.
	maxReason = 64
)

// outcomeOf classifies an answer by its HTTP status and body. It sets Class, Status, Reason,
// Since (410 only) and, for Unknown, Err.
//
// The body should be APNs' JSON, {"reason": "…", "timestamp": milliseconds}, but everything in
// it is optional and nothing in it is an error: what cannot be read of an empty body, of other
// text, of wrong types or of more than 4 KiB stays empty, and the status decides. Unprintable
// characters are removed from the reason, which is cut to 64 bytes. outcomeOf does not keep
// body, and allocates nothing for a 200.
func outcomeOf(status int, body []byte) Outcome {
	if status == 200 {
		return Outcome{Class: Delivered, Status: 200}
	}
	a := parseAnswer(body)
	v := classify(status, a.reason)
	o := Outcome{Class: v.class, Status: status, Reason: a.reason}
	if status == 410 {
		o.Since = a.since
	}
	if v.class == Unknown {
		o.Err = fmt.Errorf("apnsconn: status %d: %s", status, v.text)
	}
	return o
}

// answer is the content of an answer's body, or of a GOAWAY frame's debug data, which has the
// same form.
type answer struct {
	reason string
	since  time.Time
}

func parseAnswer(body []byte) answer {
	var a answer
	if len(body) == 0 || len(body) > maxBody {
		return a
	}
	var fields struct{ Reason, Timestamp json.RawMessage }
	if json.Unmarshal(body, &fields) != nil {
		return a
	}
	var reason string
	if json.Unmarshal(fields.Reason, &reason) == nil {
		a.reason = cleanReason(reason)
	}
	a.since = parseMillis(fields.Timestamp)
	return a
}

// cleanReason removes unprintable characters, so that a reason cannot forge log lines or move a
// terminal's cursor, and cuts the rest to maxReason bytes.
func cleanReason(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) <= maxReason {
		return s
	}
	n := maxReason
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}

// maxMillis is the last millisecond of the year 9999: time.Time cannot write a later one as
// JSON.
const maxMillis = 253402300799999

// parseMillis reads milliseconds since 1970 from a JSON number, whole or fractional, or from a
// string with one. It returns the zero time for anything else.
func parseMillis(raw []byte) time.Time {
	s := string(bytes.Trim(raw, `"`))
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(s, 64)
		if ferr != nil || !(f >= 1 && f <= maxMillis) { // also refuses NaN
			return time.Time{}
		}
		ms = int64(f)
	}
	if ms < 1 || ms > maxMillis {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
