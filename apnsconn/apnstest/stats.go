package apnstest

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Stats are counts since the server's start. They are read one after another,
// so that a busy server's may be off by what happens meanwhile.
type Stats struct {
	Conns       int              // connections open now
	Accepted    int64            // TCP connections accepted
	Handshakes  int64            // TLS handshakes finished
	Requests    int64            // requests received whole and decided
	Answered    int64            // answers handed over for writing, resets included
	ByStatus    map[int]int64    // answers by status; silence and resets are not in it
	ByReason    map[string]int64 // answers by reason, where there is one
	Refused     int64            // streams refused with REFUSED_STREAM for being too many
	Cancelled   int64            // streams reset by the client
	GoAways     int64            // GOAWAY frames queued
	Pings       int64            // PING frames received, acknowledgements not counted
	HeaderBytes int64            // bytes of header blocks received, compressed
	BodyBytes   int64            // bytes of bodies received
	BytesIn     int64            // bytes received, TLS included
	BytesOut    int64            // bytes sent, TLS included
}

// stats are the counts that are not counters of their own.
type stats struct {
	byStatus    [1000]atomic.Int64
	refused     atomic.Int64
	cancelled   atomic.Int64
	goAways     atomic.Int64
	pings       atomic.Int64
	headerBytes atomic.Int64
	bodyBytes   atomic.Int64
	bytesIn     atomic.Int64
	bytesOut    atomic.Int64

	mu       sync.Mutex
	byReason map[string]int64
}

// maxReasons bounds ByReason: scripts may make reasons up.
const maxReasons = 1000

func (s *stats) answer(status int, reason string) {
	if status >= 0 && status < len(s.byStatus) {
		s.byStatus[status].Add(1)
	}
	if reason == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byReason == nil {
		s.byReason = make(map[string]int64)
	}
	if _, ok := s.byReason[reason]; ok || len(s.byReason) < maxReasons {
		s.byReason[reason]++
	}
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	st := Stats{
		Conns:       s.Conns(),
		Accepted:    s.dials.load(),
		Handshakes:  s.handshakes.load(),
		Requests:    s.requests.load(),
		Answered:    s.answered.load(),
		ByStatus:    make(map[int]int64),
		Refused:     s.stats.refused.Load(),
		Cancelled:   s.stats.cancelled.Load(),
		GoAways:     s.stats.goAways.Load(),
		Pings:       s.stats.pings.Load(),
		HeaderBytes: s.stats.headerBytes.Load(),
		BodyBytes:   s.stats.bodyBytes.Load(),
		BytesIn:     s.stats.bytesIn.Load(),
		BytesOut:    s.stats.bytesOut.Load(),
	}
	for status := range s.stats.byStatus {
		if n := s.stats.byStatus[status].Load(); n > 0 {
			st.ByStatus[status] = n
		}
	}
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	st.ByReason = maps.Clone(s.stats.byReason)
	return st
}
