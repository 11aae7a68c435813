package apnstest

import (
	"crypto/x509"
	"slices"
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

// Header is a request's fields in the order of the wire. The values of the
// dynamic table's entries share memory.
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

// maxBodyKept is how much of a body is kept: well over the largest payload
// that is allowed (5120 bytes), and a bound on the memory of one that is not.
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
