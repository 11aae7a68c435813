package apnslean

import "time"

// Stats is an account of requests.
type Stats struct {
	Conns    int   // connections, those that have ended too
	Requests int64 // complete requests
	Payload  int64 // bytes of them
	// Latency is the time from the stamp to the arrival, of requests that have
	// one and whose payload came in one frame: a client cuts those in two that
	// its window has no room for.
	Latency Histogram

	// Sums over connections, of the time between each one's first request and
	// its last:
	Active  time.Duration // that time
	Blocked time.Duration // of it: less window left than the latest payload took
	Open    time.Duration // times the requests without answer: Open/Active is their mean number
}

func (s *Stats) add(o *Stats) {
	s.Conns += o.Conns
	s.Requests += o.Requests
	s.Payload += o.Payload
	s.Latency.Merge(&o.Latency)
	s.Active += o.Active
	s.Blocked += o.Blocked
	s.Open += o.Open
}
