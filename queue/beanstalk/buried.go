package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
)

// Peek implements queue.Admin.
func (q *client) Peek(ctx context.Context, tube, id string) (queue.StoredJob, error) {
	var b queue.StoredJob
	err := q.onBuried(ctx, tube, id, func(s *session, n uint64, j queue.StoredJob) error {
		return s.do(func(bs *gobeanstalk.Conn) error {
			body, err := bs.Peek(n)
			b = queue.StoredJob{ID: id, Body: body, Age: j.Age}
			return err
		}, gobeanstalk.ErrNotFound)
	})
	if err != nil {
		return queue.StoredJob{}, err // b may still be written
	}
	return b, nil
}

// Kick implements queue.Admin: the job keeps its id and its priority.
func (q *client) Kick(ctx context.Context, tube, id string) error {
	// kick-job takes delayed jobs too (protocol.txt), hence the look before it.
	return q.endBuried(ctx, tube, id, (*gobeanstalk.Conn).KickJob)
}

// Delete implements queue.Admin.
func (q *client) Delete(ctx context.Context, tube, id string) error {
	return q.endBuried(ctx, tube, id, (*gobeanstalk.Conn).Delete)
}

// endBuried runs a command by which the job is buried no more.
func (q *client) endBuried(ctx context.Context, tube, id string, cmd func(*gobeanstalk.Conn, uint64) error) error {
	sent := false // on a connection that then broke
	err := q.onBuried(ctx, tube, id, func(s *session, n uint64, _ queue.StoredJob) error {
		err := s.do(func(bs *gobeanstalk.Conn) error { return cmd(bs, n) }, gobeanstalk.ErrNotFound)
		sent = sent || maybeRun(err)
		return err
	})
	if errors.Is(err, queue.ErrNotFound) && sent {
		return nil // the first command did it, only its answer was lost
	}
	return err
}

// maxLooks bounds how often a job is looked at that is there whenever it is
// looked at, and is not when it is to be had.
const maxLooks = 3

// onBuried runs f when the job is buried in tube, else it returns ErrNotFound.
// f may be run again when it says not found, or its connection broke (see
// link.run), and after ctx has ended, see server.call.
func (q *client) onBuried(ctx context.Context, tube, id string, f func(*session, uint64, queue.StoredJob) error) error {
	if err := queue.CheckTube(tube); err != nil {
		return err
	}
	srv, n, err := q.locate(id)
	if err != nil {
		return err
	}
	err = srv.call(ctx, func() error {
		return srv.admin.run(func(s *session) error {
			srv.rotating.RLock() // not across the dial
			defer srv.rotating.RUnlock()
			for range maxLooks {
				j, err := s.stored(n, tube, queue.Buried)
				if err != nil {
					return err
				}
				if err := f(s, n, j); !errors.Is(err, gobeanstalk.ErrNotFound) {
					return err
				} // gone between the look and the command, or in another lister's hand
			}
			return queue.ErrBusy
		})
	})
	switch {
	case errors.Is(err, queue.ErrBusy):
		return fmt.Errorf("beanstalk: job %.80q in %q: %w", id, tube, queue.ErrBusy)
	case errors.Is(err, gobeanstalk.ErrNotFound):
		return fmt.Errorf("beanstalk: job %.80q in %q: %w", id, tube, queue.ErrNotFound)
	}
	return err
}

// stored asks about a job. Unless it is in that state in tube, the error is
// queue.ErrBusy when it is reserved there, else gobeanstalk.ErrNotFound.
func (s *session) stored(n uint64, tube string, state queue.State) (j queue.StoredJob, err error) {
	stats, err := s.statsJob(n)
	if err != nil {
		return j, err
	}
	is := unquote(stats["state"])
	switch {
	case unquote(stats["tube"]) != tube:
		return j, gobeanstalk.ErrNotFound
	case is == "reserved": // perhaps by a program that lists the tube's jobs
		return j, queue.ErrBusy
	case is != string(state):
		return j, gobeanstalk.ErrNotFound
	}
	st, err := parseStat(stats)
	if err != nil {
		return j, err
	}
	j = queue.StoredJob{ID: s.srv.jobID(n), Priority: st.Priority, Age: st.Age}
	if state == queue.Delayed {
		left, err := statNumber(stats, "time-left", 32)
		if err != nil {
			return j, err
		}
		// It is cut to whole seconds (beanstalkd: prot.c), and no job may come early.
		j.Delay = time.Duration(left+1) * time.Second
	}
	return j, nil
}

// locate returns the server that an id speaks of, and its number there. With
// one server the address is taken too, if it is that server's: the id may have
// been written down when there were several.
func (q *client) locate(id string) (*server, uint64, error) {
	addr, number := "", id
	if i := strings.LastIndexByte(id, '/'); i >= 0 {
		addr, number = id[:i], id[i+1:]
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err == nil {
		for _, srv := range q.servers {
			if srv.addr == addr || (addr == "" && !q.several()) {
				return srv, n, nil
			}
		}
	}
	want := "a number"
	if q.several() {
		want = "host:port/number, of one of the servers"
	}
	return nil, 0, fmt.Errorf("beanstalk: job id %.80q: want %s: %w", id, want, queue.ErrRejected)
}
