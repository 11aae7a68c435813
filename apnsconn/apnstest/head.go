package apnstest

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// head is a request's fields, sorted out.
type head struct {
	method, scheme, path, authority string

	id, topic, pushType, priority, expiration, collapseID, authorization string
	channelID, requestID                                                 string

	contentLength int64  // -1: not given
	tooLong       bool   // the list was longer than MAX_HEADER_LIST_SIZE
	seen          uint32 // bits of the fields present, by fieldBit
	duplicate     bool   // a field of APNs' twice
	malformed     string // why RFC 9113 section 8 forbids the request; "" when it does not
}

// Bits of head.seen.
const (
	hasMethod = 1 << iota
	hasScheme
	hasPath
	hasAuthority
	hasID
	hasTopic
	hasPushType
	hasPriority
	hasExpiration
	hasCollapseID
	hasAuthorization
	hasChannelID
	hasRequestID
	hasContentLength
	hasRegular
)

const anyPseudo = hasMethod | hasScheme | hasPath | hasAuthority

// parse sorts fields out.
func (h *head) parse(fields []hpack.HeaderField) {
	*h = head{contentLength: -1}
	for i := range fields {
		h.add(&fields[i])
	}
	if h.seen&(hasMethod|hasScheme|hasPath) != hasMethod|hasScheme|hasPath {
		h.fault("a pseudo header is missing")
	}
}

func (h *head) fault(why string) {
	if h.malformed == "" {
		h.malformed = why
	}
}

// slot returns where the field called name belongs.
func (h *head) slot(name string) (*string, uint32) {
	switch name {
	case ":method":
		return &h.method, hasMethod
	case ":scheme":
		return &h.scheme, hasScheme
	case ":path":
		return &h.path, hasPath
	case ":authority":
		return &h.authority, hasAuthority
	case "apns-id":
		return &h.id, hasID
	case "apns-topic":
		return &h.topic, hasTopic
	case "apns-push-type":
		return &h.pushType, hasPushType
	case "apns-priority":
		return &h.priority, hasPriority
	case "apns-expiration":
		return &h.expiration, hasExpiration
	case "apns-collapse-id":
		return &h.collapseID, hasCollapseID
	case "authorization":
		return &h.authorization, hasAuthorization
	case "apns-channel-id":
		return &h.channelID, hasChannelID
	case "apns-request-id":
		return &h.requestID, hasRequestID
	}
	return nil, 0
}

func (h *head) add(f *hpack.HeaderField) {
	if strings.ContainsAny(f.Value, "\x00\r\n") {
		h.fault("a value with a line break or NUL")
	}
	dst, bit := h.slot(f.Name)
	pseudo := bit&anyPseudo != 0
	if pseudo && h.seen&hasRegular != 0 {
		h.fault("a pseudo header after a field")
	}
	if !pseudo {
		h.seen |= hasRegular
	}
	if dst == nil {
		h.other(f)
		return
	}
	if h.seen&bit != 0 {
		if pseudo {
			h.fault("a pseudo header twice")
		}
		h.duplicate = true
	}
	h.seen |= bit
	*dst = f.Value
}

// other checks a field that APNs has no use for.
func (h *head) other(f *hpack.HeaderField) {
	switch f.Name {
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 62)
		if err != nil || h.seen&hasContentLength != 0 {
			h.fault("content-length")
			return
		}
		h.contentLength = int64(n)
		h.seen |= hasContentLength
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.fault("the field " + f.Name)
	case "te":
		if f.Value != "trailers" {
			h.fault("te other than trailers")
		}
	default:
		if !validName(f.Name) {
			h.fault("a field name that is not lower-case token characters")
		}
	}
}

// validName reports whether name may be a field name in HTTP/2
// (RFC 9113 section 8.2.1, RFC 9110 section 5.6.2).
func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return name != ""
}
