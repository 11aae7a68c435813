package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/internal/neterr"
	"propeller/queue"
)

const (
	// putConns is how many connections per server carry puts. Each knows one
	// tube at a time; a tube always goes to the same one, so an app that puts a
	// lot keeps its own and is not slowed by switching.
	putConns = 8

	// maxPuts bounds the puts under way per server, and with it the goroutines
	// that wait for a silent server. More than this does not make puts faster.
	maxPuts = 512

	// avoidFor is how long a server that failed a put is tried last.
	avoidFor = 5 * time.Second

	// trustIdle is how long after its last answer a connection is believed to
	// be alive. Past it, a put is preceded by a harmless command: a put on a
	// dead connection could not be repeated, since nobody can tell whether it
	// was stored.
	trustIdle = 500 * time.Millisecond
)

// Put implements queue.Queue. It puts on a random healthy server; the next is
// tried while it is certain that the job was not stored. Priority is
// beanstalkd's: 0 is most urgent. The id is as in Job.ID. beanstalkd cannot store an
// age. A tube that sleeps wakes if the job may be ready.
func (q *client) Put(ctx context.Context, tube string, body []byte, o queue.PutOptions) (string, error) {
	if o.Buried {
		return q.putBuried(ctx, tube, body, o.Priority)
	}
	id, err := q.put(ctx, tube, body, o)
	if o.Delay <= 0 && (err == nil || errors.Is(err, queue.ErrUncertain)) {
		q.wake(tube)
	}
	return id, err
}

func (q *client) put(ctx context.Context, tube string, body []byte, o queue.PutOptions) (string, error) {
	if err := queue.CheckTube(tube); err != nil {
		return "", err
	}
	if body == nil {
		body = []byte{} // go-beanstalk would leave the body out of the command
	}
	var errs []error
	for _, srv := range q.putOrder() {
		if q.isClosed() {
			return "", errQueueClosed
		}
		id, err := srv.put(ctx, tube, body, o)
		switch {
		case err == nil:
			return srv.jobID(id), nil
		case ctx.Err() != nil && errors.Is(err, queue.ErrUncertain):
			return "", fmt.Errorf("beanstalk: put in %q: %w", tube, neterr.After(ourName, err))
		case ctx.Err() != nil:
			return "", ctx.Err()
		case errors.Is(err, queue.ErrRejected):
			return "", err
		}
		srv.shun()
		errs = append(errs, neterr.After(ourName, err))
		if errors.Is(err, queue.ErrUncertain) {
			break
		}
	}
	return "", fmt.Errorf("beanstalk: put in %q: %w", tube, neterr.Join(errs...))
}

// uncertain says that the job whose put ended with err may have been stored.
func uncertain(err error) error {
	return fmt.Errorf("%w: %w", queue.ErrUncertain, neterr.After(ourName, err))
}

// putOrder is all servers in random order, those to be avoided last.
func (q *client) putOrder() []*server {
	if !q.several() {
		return q.servers
	}
	now := time.Now()
	var well, rest []*server
	for _, i := range rand.Perm(len(q.servers)) {
		if srv := q.servers[i]; srv.avoided(now) {
			rest = append(rest, srv)
		} else {
			well = append(well, srv)
		}
	}
	return append(well, rest...)
}

func (srv *server) avoided(now time.Time) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return now.Before(srv.avoid)
}

func (srv *server) shun() {
	srv.mu.Lock()
	srv.avoid = time.Now().Add(avoidFor)
	srv.mu.Unlock()
}

var tubeSeed = maphash.MakeSeed()

// put puts one job on this server.
func (srv *server) put(ctx context.Context, tube string, body []byte, o queue.PutOptions) (uint64, error) {
	arrived := time.Now()
	select {
	case srv.putTokens <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	p := srv.putters[maphash.String(tubeSeed, tube)%putConns]
	var id uint64
	result, err := srv.start(ctx, func() (err error) {
		defer func() { <-srv.putTokens }()
		id, err = p.put(arrived, tube, body, o)
		return err
	})
	if err != nil {
		<-srv.putTokens
		return 0, err
	}
	select {
	case err := <-result:
		return id, err
	case <-ctx.Done():
		return 0, uncertain(ctx.Err()) // id may still be written
	}
}

// putter is one connection for puts.
type putter struct {
	link // its lock is held for reading by puts in p.tube, for writing to change it
	tube string
}

func (p *putter) put(arrived time.Time, tube string, body []byte, o queue.PutOptions) (uint64, error) {
	p.mu.RLock()
	if p.tube == tube && p.freshLocked() {
		defer p.mu.RUnlock()
		return p.putLocked(tube, body, o)
	}
	p.mu.RUnlock()

	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.useLocked(arrived, tube); err != nil {
		return 0, err
	}
	return p.putLocked(tube, body, o)
}

func (p *putter) putLocked(tube string, body []byte, o queue.PutOptions) (uint64, error) {
	id, err := p.s.put(tube, body, o)
	if isBroken(err) {
		p.srv.lost(err)
	}
	return id, err
}

// freshLocked says whether the connection has lately been seen to live.
func (p *putter) freshLocked() bool {
	p.srv.mu.Lock()
	defer p.srv.mu.Unlock()
	return p.s.aliveLocked() && (p.s.outstanding > 0 || time.Since(p.s.progress) < trustIdle)
}

// useLocked makes tube the used one and proves that the connection lives.
//
// go-beanstalk sends use in front of a put and skips its answer. If the server
// refused it, the job would land in the tube used before, and every later
// answer would go to the wrong command, so that a refused put could pass for a
// stored one. A kick of no jobs carries the use instead: puts are sent only
// after it has been answered.
func (p *putter) useLocked(arrived time.Time, tube string) error {
	if p.tube == tube && p.freshLocked() {
		return nil // somebody else did it
	}
	for {
		fresh := !p.aliveLocked()
		s, err := p.getLocked(arrived)
		if err != nil {
			p.srv.lost(err)
			return err
		}
		p.tube = ""
		err = s.do(func(bs *gobeanstalk.Conn) error {
			_, err := gobeanstalk.NewTube(bs, tube).Kick(0)
			return err
		})
		if err == nil {
			p.tube = tube
			p.srv.back()
			return nil
		}
		if fresh {
			p.srv.lost(err)
			return err
		}
	}
}

// put sends the put alone: the connection uses the tube already.
func (s *session) put(tube string, body []byte, o queue.PutOptions) (id uint64, err error) {
	buried := "" // the id, if the server buried the job
	err = s.do(func(bs *gobeanstalk.Conn) (err error) {
		id, err = gobeanstalk.NewTube(bs, tube).Put(body, o.Priority, wholeSeconds(o.Delay), wholeSeconds(s.srv.q.opts.ttr))
		if n, ok := buriedByPut(err); ok {
			buried, err = n, gobeanstalk.ErrBuried
		}
		return err
	}, gobeanstalk.ErrJobTooBig, gobeanstalk.ErrDraining, gobeanstalk.ErrOOM, gobeanstalk.ErrBuried)
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, gobeanstalk.ErrJobTooBig):
		return 0, fmt.Errorf("beanstalk: put in %q: %d bytes are more than server %s takes (beanstalkd -z): %w",
			tube, len(body), s.srv.addr, queue.ErrRejected)
	case errors.Is(err, gobeanstalk.ErrDraining):
		return 0, fmt.Errorf("server %s is draining, restart it to end that: %w", s.srv.addr, queue.ErrUnavailable)
	case errors.Is(err, gobeanstalk.ErrOOM):
		return 0, fmt.Errorf("server %s is out of memory or disk, finish or delete jobs or give it more: %w", s.srv.addr, queue.ErrFull)
	case errors.Is(err, gobeanstalk.ErrBuried):
		return 0, uncertain(fmt.Errorf("server %s stored job %s but buried it at once: it could not write its log, check its disk: %w",
			s.srv.addr, buried, queue.ErrUnavailable))
	}
	if maybeRun(err) {
		return 0, uncertain(err)
	}
	return 0, err
}

// buriedByPut returns the id in the answer "BURIED id", which go-beanstalk
// does not know. beanstalkd gives it when it has no memory for the job's place
// in the queue or cannot write its binlog (protocol.txt, put).
func buriedByPut(err error) (id string, ok bool) {
	if err == nil {
		return "", false
	}
	_, id, ok = strings.Cut(err.Error(), "unknown response: BURIED ")
	return id, ok
}

// buryDelay keeps a job that is to be buried from everybody until it is. Should
// this process die in between, the job is served after that, or at once if it
// was reserved to be buried just then: only the holder can bury, and what a
// connection holds is ready when it ends (protocol.txt).
const buryDelay = time.Hour

// putBuried puts a job and buries it.
func (q *client) putBuried(ctx context.Context, tube string, body []byte, pri uint32) (string, error) {
	id, err := q.put(ctx, tube, body, queue.PutOptions{Delay: buryDelay, Priority: pri})
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
