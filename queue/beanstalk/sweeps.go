package beanstalk

// sweeps counts the reserves by which a watch found jobs: no attempt was made with those. The
// server counts them with all others, and does so for every program that sweeps; the count
// here is of this process. It is bounded: old jobs are forgotten.
type sweeps struct {
	instance string // of the server process that gave the ids
	now, old map[uint64]int
}

const maxSweeps = 8 << 10 // jobs in either map: 300 KiB

func (s *sweeps) add(instance string, id uint64) {
	if s.instance != instance {
		*s = sweeps{instance: instance}
	}
	if len(s.now) >= maxSweeps {
		s.now, s.old = nil, s.now
	}
	if s.now == nil {
		s.now = make(map[uint64]int)
	}
	s.now[id]++
}

func (s *sweeps) of(instance string, id uint64) int {
	if s.instance != instance {
		return 0
	}
	return s.now[id] + s.old[id]
}

func (srv *server) sweptBefore(instance string, id uint64) int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.sweeps.of(instance, id)
}

func (srv *server) swept(instance string, ids []uint64) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for _, id := range ids {
		srv.sweeps.add(instance, id)
	}
}
