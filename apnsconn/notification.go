package apnsconn

import (
	"bytes"
	"fmt"
	"strings"
)

// Notification is one push: to one device, or, as a broadcast, to all devices that follow a
// channel. Fields are sent unchanged, except that the token is sent in lower case. Validate says
// whether APNs could accept them.
//
// A broadcast has a ChannelID and no Token. Its Topic is the app's bundle id without a suffix,
// its PushType liveactivity, its CollapseID empty, and its Payload has at most 5120 bytes. Its
// Expiration is not nil, and 0 for a channel that stores nothing.
type Notification struct {
	Token      string // device token: 8 to 400 hex digits of either case, an even number; "" for a broadcast
	ChannelID  string // apns-channel-id of a broadcast, in Base64 as APNs issued it; else ""
	Topic      string // apns-topic, with its suffix (see TopicFor)
	PushType   string // apns-push-type; always sent (see InferPushType)
	ID         string // apns-id, or apns-request-id of a broadcast: a UUID in canonical form; "" lets APNs make one
	CollapseID string // apns-collapse-id, at most 64 bytes; "" omits it
	Priority   int    // apns-priority 1, 5 or 10; 0 omits it (see DefaultPriority)
	Expiration *int64 // apns-expiration in Unix seconds; 0 = do not store; nil omits it
	Payload    []byte // JSON object of at most MaxPayload bytes; must not change until the push has ended
}

// MaxPayload is how many bytes the payload may have.
func (n *Notification) MaxPayload() int { return n.typ().maxPayload }

// typ returns what is known about the notification's push type.
func (n *Notification) typ() *pushType {
	if n.broadcast() {
		return &broadcastType
	}
	return pushTypeNamed(n.PushType)
}

// broadcast reports whether n goes to a channel.
func (n *Notification) broadcast() bool { return n.ChannelID != "" }

const (
	// MinToken and maxToken bound a device token, in hex digits. Apple says to assume no
	// length; 64 digits are usual, and 160 have been seen. The upper bound keeps a request far
	// below APNs' header list limit of 8000 bytes.
	MinToken = 8
	maxToken = 400

	// maxChannelID bounds a channel's id, in bytes. Apple fixes no length; 24 have been seen.
	maxChannelID = 255

	// maxCollapseID is Apple's (sending-notification-requests-to-apns), in bytes.
	maxCollapseID = 64

	// maxTopic and maxPushType bound, in bytes, what Apple does not bound, also because of the
	// header list limit: a bundle id has at most 155 characters, the longest suffix 23, the
	// longest push type 12.
	maxTopic    = 255
	maxPushType = 64

	// maxExpiration is the last second of the year 9999. A larger value is usually milliseconds
	// instead of seconds.
	maxExpiration = 253402300799
)

// FieldError says which field of a notification is wrong, and why. It never holds a payload, or
// more than the first 8 characters of a device token.
type FieldError struct {
	Key string // the field's key in a job: token, channel_id, topic, push_type, id, collapse_id, priority, expiration or payload
	Why string // what is wrong with it, without the key
}

func (e *FieldError) Error() string { return "apnsconn: " + e.Key + ": " + e.Why }

// Validate checks the notification by APNs' own rules, so that a push that cannot work costs no
// request: APNs slows a connection down after refusals. It also keeps control characters out of
// the headers. The error is a *FieldError about the first faulty field.
//
// Of the payload it checks only the size and the outer braces; valid JSON is the caller's
// responsibility. Whether the topic fits the push type is left to APNs. Validate allocates
// nothing for a valid notification.
func (n *Notification) Validate() error {
	if !n.broadcast() {
		if why := tokenFault(n.Token); why != "" {
			return &FieldError{"token", why}
		}
	}
	if why := headerFault(n.Topic, maxTopic); why != "" {
		return &FieldError{"topic", why}
	}
	if why := headerFault(n.PushType, maxPushType); why != "" {
		return &FieldError{"push_type", why}
	}
	if n.ID != "" && !isUUID(n.ID) {
		return &FieldError{"id", "not a UUID in its canonical form, such as 123e4567-e89b-12d3-a456-426614174000"}
	}
	if why := collapseFault(n.CollapseID); why != "" {
		return &FieldError{"collapse_id", why}
	}
	t := n.typ()
	if t == &otherPushType {
		if right := typeMeant(n.PushType); right != "" {
			return &FieldError{"push_type", fmt.Sprintf("is %q: write %q", n.PushType, right)}
		}
	}
	if n.broadcast() {
		if err := n.validateBroadcast(); err != nil {
			return err
		}
	}
	if !t.allows(n.Priority) {
		return &FieldError{"priority", priorityFault(t, n.Priority)}
	}
	if e := n.Expiration; e != nil && (*e < 0 || *e > maxExpiration) {
		return &FieldError{"expiration", fmt.Sprintf("%d is not a time in seconds since 1970, or 0", *e)}
	}
	if why := payloadFault(n.Payload, t.maxPayload); why != "" {
		return &FieldError{"payload", why}
	}
	return nil
}

// validateBroadcast checks what is special about broadcasts
// (Apple: sending-broadcast-push-notification-requests-to-apns,
// handling-error-responses-from-apns).
func (n *Notification) validateBroadcast() error {
	if why := channelFault(n.ChannelID); why != "" {
		return &FieldError{"channel_id", why}
	}
	if err := checkBroadcast(n); err != nil {
		return err
	}
	switch {
	case strings.Contains(n.Topic, ".push-type."):
		return &FieldError{"topic", fmt.Sprintf("%q has a push type's suffix: a broadcast goes to the bundle id itself", n.Topic)}
	case n.PushType != "liveactivity":
		return &FieldError{"push_type", fmt.Sprintf("is %q: a broadcast is a liveactivity", n.PushType)}
	case n.CollapseID != "":
		return &FieldError{"collapse_id", "a broadcast cannot have one"}
	case n.Expiration == nil:
		return &FieldError{"expiration", "is missing: a broadcast needs one, 0 if its channel stores nothing"}
	}
	return nil
}

// NormalizeToken checks a device token and returns it in lower case, as in the request's path.
// It accepts an even number of hex digits, 8 to 400 of them; the error is a *FieldError with the
// key token. It returns a token in lower case unchanged, without allocation.
func NormalizeToken(s string) (string, error) {
	if why := tokenFault(s); why != "" {
		return "", &FieldError{"token", why}
	}
	return strings.ToLower(s), nil
}

func tokenFault(s string) string {
	switch {
	case s == "":
		return "is missing"
	case len(s) < MinToken || len(s) > maxToken:
		return fmt.Sprintf("has %d characters, want %d to %d hex digits", len(s), MinToken, maxToken)
	}
	for i := 0; i < len(s); i++ {
		if !isHex(s[i]) {
			return fmt.Sprintf("%q… is not hex: character %d", s[:8], i+1)
		}
	}
	if len(s)%2 != 0 {
		return fmt.Sprintf("has an odd number of hex digits, %d", len(s))
	}
	return ""
}

// channelFault checks a channel's id. Apple fixes no length.
func channelFault(s string) string {
	if len(s) > maxChannelID {
		return fmt.Sprintf("has %d characters, at most %d are allowed", len(s), maxChannelID)
	}
	for i := 0; i < len(s); i++ {
		// Both alphabets of Base64, with padding.
		if b := s[i]; !isTokenChar(b) && b != '+' && b != '/' && b != '=' {
			return fmt.Sprintf("is not Base64: character %d", i+1)
		}
	}
	return ""
}

// headerFault checks a header value that is required and has no spaces.
func headerFault(s string, most int) string {
	if s == "" {
		return "is missing"
	}
	if len(s) > most {
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(s), most)
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return fmt.Sprintf("is not visible ASCII: character %d", i+1)
		}
	}
	return ""
}

// collapseFault checks a header value that may be absent, and may have spaces except at its
// ends (RFC 9113 §8.2.1).
func collapseFault(s string) string {
	if s == "" {
		return ""
	}
	if len(s) > maxCollapseID {
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(s), maxCollapseID)
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return fmt.Sprintf("is not printable ASCII: character %d", i+1)
		}
	}
	if s[0] == ' ' || s[len(s)-1] == ' ' {
		return "begins or ends with a space"
	}
	return ""
}

func priorityFault(t *pushType, priority int) string {
	want := "1, 5 or 10"
	switch len(t.priorities) {
	case 0:
		return fmt.Sprintf("is %d, want %s", priority, want)
	case 1:
		want = fmt.Sprint(t.priorities[0])
	default:
		want = fmt.Sprintf("%d or %d", t.priorities[0], t.priorities[1])
	}
	return fmt.Sprintf("is %d, want %s for push type %s", priority, want, t.name)
}

func payloadFault(p []byte, most int) string {
	if len(p) == 0 {
		return "is empty"
	}
	if len(p) > most {
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(p), most)
	}
	if p = bytes.Trim(p, " \t\r\n"); len(p) < 2 || p[0] != '{' || p[len(p)-1] != '}' {
		return "is not a JSON object"
	}
	return ""
}

// isUUID reports whether s has the form 8-4-4-4-12 in hex digits. Apple documents lower case;
// upper case is accepted too, since Apple's platforms write it and APNs answers with it.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if !isHex(s[i]) {
				return false
			}
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
