package apnsconn

import (
	"errors"
	"strconv"
	"time"
)

// Class says what became of a push, and so what may be done with it next.
type Class uint8

// The classes of DESIGN: every push ends in exactly one of them.
const (
	// Delivered: APNs answered 200.
	Delivered Class = iota + 1
	// Token: this device token must not be used again for this topic.
	Token
	// Rejected: this request can never succeed as it is.
	Rejected
	// Throttled: too many pushes for this device token; later it may work.
	Throttled
	// Unavailable: trouble on APNs' side; later it may work.
	Unavailable
	// Credential: the certificate or key is refused; nothing of this app works.
	Credential
	// NotSent: provably not processed; sending it again cannot duplicate it.
	NotSent
	// Unknown: it may have been processed; sending it again may duplicate it.
	Unknown
)

// String is the class as logs and metrics write it: delivered, token,
// rejected, throttled, unavailable, credential, not_sent or unknown. A value
// that is no class prints as class(n).
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
	Reason     string        // APNs' reason, a free string of at most 64 printable bytes; "" when there was none
	APNsID     string        // the apns-id of the answer; of a broadcast's, the apns-request-id
	Since      time.Time     // 410: when APNs last knew the token as dead; zero when not said
	RetryAfter time.Duration // the answer's retry-after; 0 when absent (Apple documents none)

	// Err says more, where there is more to say: for NotSent and Unknown why;
	// for Rejected with Status 0, the *FieldError of a value that Send refused
	// itself; for Unavailable, how the answer broke off before its reason was
	// complete (Status is set, but not 200); for a provider token that APNs
	// refuses because this machine's clock is wrong, a *ClockError. It is nil in
	// all other cases.
	Err error
}

// Reconnect reports whether this one answer says that the connection, not
// the push, is at fault: it must take no new pushes, and be replaced once its
// open ones have ended. It is true for 400 IdleTimeout, 403
// UnrelatedKeyIdInToken, 403 ExpiredProviderToken (after it, APNs keeps
// refusing on that connection: jchambers/pushy#408) and 503 Shutdown.
func (o Outcome) Reconnect() bool {
	if o.Status == 200 || o.Status == 0 {
		return false
	}
	return reasons[reasonKey{o.Status, o.Reason}].reconnect
}

// ErrCredential is wrapped by errors of Dial and Conn.Err when APNs refused
// the certificate or key (TLS alert, or GOAWAY naming a credential's fault).
var ErrCredential = errors.New("credential refused")
