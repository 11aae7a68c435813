package apnstest

import (
	"crypto/x509"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Request is one request as it arrived, with the answer it was given.
type Request struct {
	Conn       int       // number of the connection, from 1
	Stream     uint32    // HTTP/2 stream id
	At         time.Time // when the last bytes of it were read
	Method     string
	Path       string
	Token      string            // what follows /3/device/ in the path; "" for other paths
	Header     Header            // all fields, in the order of the wire, :method and the like included
	Body       []byte            // at most the first 16 KiB
	BodySize   int               // all of it
	ClientCert *x509.Certificate // nil when the client gave none
	Answer     Answer
}

// Header is a request's fields in the order of the wire. Values from the dynamic table share
// memory.
type Header []hpack.HeaderField

// Get returns the value of the first field called name, "" without one.
func (h Header) Get(name string) string {
	v, _ := h.Lookup(name)
	return v
}

// Lookup returns the value of the first field called name, and whether there
// is one.
func (h Header) Lookup(name string) (string, bool) {
	for i := range h {
		if h[i].Name == name {
			return h[i].Value, true
		}
	}
	return "", false
}

// Names returns the names in order.
func (h Header) Names() []string {
	names := make([]string, len(h))
	for i := range h {
		names[i] = h[i].Name
	}
	return names
}

// Map returns the fields as a map; of several with one name, the last.
func (h Header) Map() map[string]string {
	m := make(map[string]string, len(h))
	for _, f := range h {
		m[f.Name] = f.Value
	}
	return m
}

// maxBodyKept is how much of a body is kept: well over the largest allowed payload (5120 bytes),
// and a bound for larger ones.
const maxBodyKept = 16 << 10

// record keeps the newest requests in a ring that grows up to limit.
type record struct {
	mu    sync.Mutex
	limit int
	ring  []*Request
	next  int // where the ring's oldest entry is, once it is full
}

func (r *record) add(req *Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) < r.limit {
		r.ring = append(r.ring, req)
		return
	}
	r.ring[r.next] = req
	r.next = (r.next + 1) % r.limit
}

// list returns copies, oldest first.
func (r *record) list() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Request, 0, len(r.ring))
	for _, part := range [][]*Request{r.ring[r.next:], r.ring[:r.next]} {
		for _, req := range part {
			out = append(out, *req)
		}
	}
	return out
}

func (r *record) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring, r.next = nil, 0
}

// Requests returns the requests kept (see [Options].Record), oldest first.
// Requests of different connections are in the order their answers were
// decided. Streams that were refused, reset or never finished are not in it.
func (s *Server) Requests() []Request { return s.record.list() }

// ForgetRequests empties what Requests returns. Counts stay.
func (s *Server) ForgetRequests() { s.record.reset() }

// Tokens returns the device tokens of Requests, sorted.
func (s *Server) Tokens() []string {
	reqs := s.Requests()
	tokens := make([]string, len(reqs))
	for i := range reqs {
		tokens[i] = reqs[i].Token
	}
	slices.Sort(tokens)
	return tokens
}

// head is a request's fields by meaning.
type head struct {
	method, scheme, path, authority string

	id, topic, pushType, priority, expiration, collapseID, authorization string
	channelID, requestID                                                 string

	contentLength int64  // -1: not given
	tooLong       bool   // the list was longer than MAX_HEADER_LIST_SIZE
	seen          uint32 // bits of the fields present, by fieldBit
	duplicate     bool   // a field of APNs' twice
	malformed     string // why RFC 9113 §8 forbids the request; "" if it does not
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

// parse fills h from fields.
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

// other checks a field that APNs does not use.
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
// (RFC 9113 §8.2.1, RFC 9110 §5.6.2).
func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return name != ""
}
