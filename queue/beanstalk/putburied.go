package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/queue"
)

// buryDelay keeps a job that is to be buried from everybody until it is. Should
// this process die in between, the job is served after that, or at once if it
// was reserved to be buried just then: only the holder can bury, and what a
// connection holds is ready when it ends (protocol.txt).
const buryDelay = time.Hour

// putBuried puts a job and buries it.
func (q *client) putBuried(ctx context.Context, tube string, body []byte, pri uint32) (string, error) {
	id, err := q.Put(ctx, tube, body, queue.PutOptions{Delay: buryDelay, Priority: pri})
	if err != nil {
		return "", err
	}
	srv, n, err := q.locate(id)
	if err != nil {
		return "", err
	}
	err = srv.call(ctx, func() error {
		return srv.admin.run(func(s *session) error { return s.buryNew(n, pri) })
	})
	return id, err
}

// buryNew buries a job that was just put. If that fails the job is removed, if
// possible.
func (s *session) buryNew(n uint64, pri uint32) error {
	err := s.do(func(bs *gobeanstalk.Conn) error {
		if _, err := bs.ReserveJob(n); err != nil {
			return err
		}
		return bs.Bury(n, pri)
	}, gobeanstalk.ErrNotFound, gobeanstalk.ErrUnknown)
	if err == nil || isBroken(err) {
		return err
	}
	_ = s.do(func(bs *gobeanstalk.Conn) error { return bs.Delete(n) }, gobeanstalk.ErrNotFound)
	if errors.Is(err, gobeanstalk.ErrUnknown) { // reserve-job came with 1.12
		return fmt.Errorf("beanstalk: server %s is older than 1.12 and can bury no job: %w", s.srv.addr, queue.ErrRejected)
	}
	return fmt.Errorf("beanstalk: job %s: not buried: %w: %w", s.srv.jobID(n), queue.ErrUnavailable, err)
}
