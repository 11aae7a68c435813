package beanstalk

import (
	"context"
	"maps"
	"slices"
	"time"

	"propeller/internal/neterr"
	"propeller/internal/parallel"
	"propeller/queue"
)

// tubeCounts are a server's numbers of one tube.
type tubeCounts struct {
	ready, delayed, reserved, buried int // jobs
	using                            int // connections that put into it
	pause                            int // seconds until jobs are served again
}

func (n tubeCounts) jobs() int { return n.ready + n.delayed + n.reserved + n.buried }

// stats returns the numbers for the outside.
func (n tubeCounts) stats(now time.Time) queue.TubeStats {
	st := queue.TubeStats{Ready: n.ready, Delayed: n.delayed, Reserved: n.reserved, Buried: n.buried}
	if n.pause > 0 {
		st.Paused = n.ready
		st.PausedUntil = now.Add(time.Duration(n.pause) * time.Second)
	}
	return st
}

// countTubes asks for the numbers of tubes, and passes them on in that order; exists is false
// for a tube that is not there.
func (w *wire) countTubes(tubes []string, f func(tube string, n tubeCounts, exists bool)) error {
	command := func(out []byte, tube string) []byte { return append(append(out, "stats-tube "...), tube...) }
	return each(w, tubes, command, func(tube string, line []byte) error {
		if string(line) == "NOT_FOUND" {
			f(tube, tubeCounts{}, false)
			return nil
		}
		if err := w.readBody(line, maxStats); err != nil {
			return err
		}
		n, err := w.tubeCounts()
		if err == nil {
			f(tube, n, true)
		}
		return err
	})
}

// tubeCounts reads the statistics of a tube from w.body.
func (w *wire) tubeCounts() (n tubeCounts, err error) {
	for _, of := range [...]struct {
		key string
		n   *int
	}{
		{"\ncurrent-jobs-ready: ", &n.ready},
		{"\ncurrent-jobs-reserved: ", &n.reserved},
		{"\ncurrent-jobs-delayed: ", &n.delayed},
		{"\ncurrent-jobs-buried: ", &n.buried},
		{"\ncurrent-using: ", &n.using},
		{"\npause-time-left: ", &n.pause},
	} {
		if *of.n, err = w.number(of.key); err != nil {
			return n, err
		}
	}
	return n, nil
}

// allCounts asks for the numbers of all tubes that have jobs. With thousands of tubes it
// takes the server a second, in which it serves others too.
func (srv *server) allCounts(ctx context.Context) (map[string]queue.TubeStats, error) {
	w, err := srv.dialWire(ctx)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if err := w.listTubes(); err != nil {
		return nil, err
	}
	var tubes []string
	names(w.body, func(name []byte) { tubes = append(tubes, string(name)) })
	counts := make(map[string]queue.TubeStats)
	now := time.Now()
	err = w.countTubes(tubes, func(tube string, n tubeCounts, _ bool) {
		if n.jobs() > 0 {
			counts[tube] = n.stats(now)
		}
	})
	return counts, err
}

// AllStats implements queue.Counter.
func (q *client) AllStats(ctx context.Context) (map[string]queue.TubeStats, error) {
	counts := make([]map[string]queue.TubeStats, len(q.servers))
	errs := make([]error, len(q.servers))
	parallel.Do(len(q.servers), len(q.servers), func(i int) bool {
		counts[i], errs[i] = q.servers[i].allCounts(ctx)
		return true
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sums := make(map[string]*tubeSum)
	var failed []error
	for i := range q.servers {
		if errs[i] != nil {
			failed = append(failed, neterr.After(ourName, errs[i]))
			continue
		}
		for tube, st := range counts[i] {
			if sums[tube] == nil {
				sums[tube] = new(tubeSum)
			}
			sums[tube].add(st)
		}
	}
	answered := len(q.servers) - len(failed)
	if answered == 0 {
		return nil, q.missing(failed)
	}
	all := make(map[string]queue.TubeStats, len(sums))
	for tube, sum := range sums {
		all[tube] = sum.over(answered)
	}
	return all, q.missing(failed)
}

// tubeSum is the sum of a tube's numbers over several servers.
type tubeSum struct {
	queue.TubeStats
	paused int // servers on which the tube is
}

func (s *tubeSum) add(st queue.TubeStats) {
	s.Ready += st.Ready
	s.Delayed += st.Delayed
	s.Reserved += st.Reserved
	s.Buried += st.Buried
	s.Paused += st.Paused
	if st.PausedUntil.IsZero() {
		return
	}
	s.paused++
	if st.PausedUntil.After(s.PausedUntil) {
		s.PausedUntil = st.PausedUntil
	}
}

// over returns the sum over so many servers. The pause is none while one of them hands
// jobs out.
func (s *tubeSum) over(servers int) queue.TubeStats {
	st := s.TubeStats
	if s.paused < servers {
		st.PausedUntil = time.Time{}
	}
	return st
}

// Tubes implements queue.Admin: those of all servers that have jobs.
func (q *client) Tubes(ctx context.Context) ([]string, error) {
	tubes := make(map[string]bool)
	for _, srv := range q.servers {
		counts, err := srv.allCounts(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		for tube := range counts {
			tubes[tube] = true
		}
	}
	return slices.Sorted(maps.Keys(tubes)), nil
}
