package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/internal/neterr"
	"propeller/queue"
)

// statsJob asks for a job's statistics; the error may be NOT_FOUND.
func (s *session) statsJob(id uint64) (stats map[string]string, err error) {
	err = s.do(func(bs *gobeanstalk.Conn) (err error) {
		stats, err = bs.StatsJob(id)
		return err
	}, gobeanstalk.ErrNotFound)
	return stats, err
}

// unquote takes the quotes off that beanstalkd 1.13 puts around strings in its
// statistics, and 1.12 does not. go-beanstalk leaves them on.
func unquote(v string) string {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}

func parseStat(stats map[string]string) (queue.Stat, error) {
	var counts [3]uint64
	for i, key := range []string{"reserves", "buries", "kicks"} {
		n, err := statNumber(stats, key, 32)
		if err != nil {
			return queue.Stat{}, err
		}
		counts[i] = n
	}
	reserves, buries, kicks := counts[0], counts[1], counts[2]
	age, err := statNumber(stats, "age", 32)
	if err != nil {
		return queue.Stat{}, err
	}
	pri, err := parsePriority(stats)
	if err != nil {
		return queue.Stat{}, err
	}
	// A reservation that ended with a burial is no attempt that counts: nobody
	// tries a buried job again by itself, and listing buried jobs reserves and
	// buries each of them.
	attempt := max(1, int(reserves)-int(buries))
	return queue.Stat{Attempt: attempt, Age: time.Duration(age) * time.Second, Priority: pri, Kicked: kicks > 0}, nil
}

func parsePriority(stats map[string]string) (uint32, error) {
	pri, err := statNumber(stats, "pri", 32)
	return uint32(pri), err
}

func statNumber(stats map[string]string, key string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(unquote(strings.TrimSpace(stats[key])), 10, bits)
	if err != nil {
		return 0, fmt.Errorf("beanstalk: server statistics: %s %q: %w", key, stats[key], err)
	}
	return n, nil
}

// TubeStats implements queue.Admin: the sum over all servers.
func (q *client) TubeStats(ctx context.Context, tube string) (queue.TubeStats, error) {
	if err := queue.CheckTube(tube); err != nil {
		return queue.TubeStats{}, err
	}
	var sum tubeSum
	var errs []error
	for _, srv := range q.servers {
		var one queue.TubeStats
		err := srv.call(ctx, func() error {
			st, err := srv.tubeStats(tube)
			one = st
			return err
		})
		if ctx.Err() != nil {
			return queue.TubeStats{}, ctx.Err()
		}
		if err != nil {
			errs = append(errs, neterr.After(ourName, err))
			continue
		}
		sum.add(one)
	}
	return sum.over(len(q.servers) - len(errs)), q.missing(errs)
}

// missing is what errs say, of that many servers, of numbers that are of all.
func (q *client) missing(errs []error) error {
	n := len(q.servers)
	switch len(errs) {
	case 0:
		return nil
	case n:
		return fmt.Errorf(ourName+"%w", neterr.Join(errs...))
	}
	return neterr.Reworded(fmt.Sprintf(ourName+"%d of %d servers answer: %v", n-len(errs), n, neterr.Join(errs...)), append(errs, queue.ErrPartial)...)
}

func (srv *server) tubeStats(tube string) (st queue.TubeStats, err error) {
	var stats map[string]string
	err = srv.admin.run(func(s *session) error {
		return s.do(func(bs *gobeanstalk.Conn) (err error) {
			stats, err = gobeanstalk.NewTube(bs, tube).Stats()
			return err
		}, gobeanstalk.ErrNotFound)
	})
	if errors.Is(err, gobeanstalk.ErrNotFound) {
		return st, nil // a tube exists while something is in it or somebody watches it
	}
	if err != nil {
		return st, err
	}
	for key, n := range map[string]*int{
		"current-jobs-ready":    &st.Ready,
		"current-jobs-delayed":  &st.Delayed,
		"current-jobs-reserved": &st.Reserved,
		"current-jobs-buried":   &st.Buried,
	} {
		v, err := statNumber(stats, key, 31)
		if err != nil {
			return queue.TubeStats{}, err
		}
		*n = int(v)
	}
	// pause-tube; protocol.txt, stats-tube.
	left, err := statNumber(stats, "pause-time-left", 32)
	if err != nil {
		return queue.TubeStats{}, err
	}
	if left > 0 {
		st.Paused = st.Ready
		st.PausedUntil = time.Now().Add(time.Duration(left) * time.Second)
	}
	return st, nil
}
