package beanstalk

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"propeller/internal/flood"
	"propeller/queue/lease"
)

// server is one beanstalkd: what all connections to it share.
type server struct {
	q    *client
	addr string
	dial dialFunc
	log  *slog.Logger
	few  *flood.Lines // to log; for what the server may cause without end

	putters   [putConns]*putter
	putTokens chan struct{} // bounds puts under way
	admin     link
	listing   chan struct{} // held while buried jobs are listed; room for one
	seed      maphash.Seed  // of the sums of remembered jobs' bodies
	rotating  sync.RWMutex  // locked while a listing has a buried job reserved

	ctx  context.Context // ended by close
	stop context.CancelFunc
	wg   sync.WaitGroup // the watchdog

	mu            sync.Mutex // guards all below, and the sessions and jobs of this server
	closed        bool
	pool          workerPool // for commands whose caller may have gone, and for what is written
	sessions      map[*session]struct{}
	jobs          lease.Table[*job] // jobs held by this process; see claim
	sweeps        sweeps            // reserves that were no attempts
	lostElsewhere lease.List[*job]  // tombstones of jobs: finished, but somebody else holds them
	maybeReserved lease.List[*job]  // tombstones of jobs: deleted, but a reserve may have brought them
	avoid         time.Time         // puts go elsewhere until then
	downAt        time.Time         // when the server was lost; zero while it is well
}

func newServer(q *client, addr string, dial dialFunc) *server {
	srv := &server{
		q:         q,
		addr:      addr,
		dial:      dial,
		log:       q.opts.Log.With("server", addr),
		putTokens: make(chan struct{}, maxPuts),
		listing:   make(chan struct{}, 1),
		sessions:  make(map[*session]struct{}),
		seed:      maphash.MakeSeed(),
		pool:      newWorkerPool(),
	}
	srv.few = flood.New(srv.log, 1000) // about the jobs held: an outage may cost them all
	srv.ctx, srv.stop = context.WithCancel(context.Background())
	for i := range srv.putters {
		srv.putters[i] = &putter{link: link{srv: srv}}
	}
	srv.admin.srv = srv
	srv.wg.Go(srv.watchdog)
	return srv
}

// close ends every connection and waits for all that runs.
func (srv *server) close() {
	srv.mu.Lock()
	if !srv.closed {
		srv.closed = true
		srv.stop()
		srv.pool.close()
	}
	open := make([]*session, 0, len(srv.sessions))
	for s := range srv.sessions {
		open = append(open, s)
	}
	srv.mu.Unlock()
	for _, s := range open {
		s.fail(errClosed, false)
	}
	srv.wg.Wait()
	srv.pool.wait()
}

// add makes a new session known to the watchdog.
func (srv *server) add(s *session) error {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closed || (s.loop != nil && s.loop.closed) {
		return &brokenError{addr: srv.addr, err: errClosed}
	}
	srv.sessions[s] = struct{}{}
	return nil
}

// spawn runs f in another goroutine, which close waits for. It reports false, and runs
// nothing, when the server is closed.
func (srv *server) spawn(f func()) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.spawnLocked(f)
}

func (srv *server) spawnLocked(f func()) bool {
	if srv.closed {
		return false
	}
	srv.pool.run(f)
	return true
}

// call runs f, which waits for the server, and returns its error. When ctx ends
// first, call returns ctx.Err() and f goes on by itself: a command that has
// been sent cannot be taken back.
func (srv *server) call(ctx context.Context, f func() error) error {
	result, err := srv.start(ctx, f)
	if err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start runs f, which waits for the server; its error comes by result. After an
// error f is not run.
func (srv *server) start(ctx context.Context, f func() error) (result <-chan error, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	if ctx.Done() == nil {
		done <- f()
	} else if !srv.spawn(func() { done <- f() }) {
		return nil, errQueueClosed
	}
	return done, nil
}

// lost notes that a connection ended or could not be made, and logs it when
// the server had been well.
func (srv *server) lost(why error) {
	srv.mu.Lock()
	first := srv.downAt.IsZero()
	if first {
		srv.downAt = time.Now()
	}
	srv.mu.Unlock()
	if first {
		srv.log.Warn("queue server lost", "err", why)
	}
}

// back notes a connection that works, and logs it when the server had been lost.
func (srv *server) back() {
	srv.mu.Lock()
	since := srv.downAt
	srv.downAt, srv.avoid = time.Time{}, time.Time{}
	srv.mu.Unlock()
	if !since.IsZero() {
		srv.log.Info("queue server back", "after", time.Since(since).Round(time.Millisecond))
	}
}

// watchTick is how often the watchdog looks, at most; tests with a short
// Timeout make it shorter.
const watchTick = time.Second

// watchdog ends the sessions whose server has fallen silent, and touches jobs that are held
// long.
//
// go-beanstalk has no deadlines, and per-command ones could not work: an
// answer that comes late would be taken for the next command's.
func (srv *server) watchdog() {
	tick := time.NewTicker(min(watchTick, srv.q.opts.timeout/4))
	defer tick.Stop()
	for {
		select {
		case <-srv.ctx.Done():
			return
		case now := <-tick.C:
			srv.check(now)
		}
	}
}

// check is one round of the watchdog. It never waits for the server.
func (srv *server) check(now time.Time) {
	var silent []*session
	srv.mu.Lock()
	for s := range srv.sessions {
		if s.outstanding > 0 && now.Sub(s.progress) > srv.q.opts.timeout+s.patience {
			silent = append(silent, s)
			continue
		}
		s.touchLocked(now, touchEvery-watchTick)
	}
	if !srv.closed {
		srv.pool.dismiss()
	}
	srv.mu.Unlock()
	for _, s := range silent {
		s.fail(errWatchdog, true)
	}
}

// link is a connection that is made when it is needed: for statistics, and as
// part of a putter.
type link struct {
	srv *server

	mu     sync.RWMutex // held for writing while connecting
	s      *session
	failed time.Time // of the last attempt to connect, if it failed
	err    error
}

// getLocked returns a session that was alive a moment ago, for a caller that
// arrived at the given time. Those who waited while an attempt to connect
// failed share its failure: else they would dial a dead address one after
// another. l.mu is held for writing.
func (l *link) getLocked(arrived time.Time) (*session, error) {
	if l.aliveLocked() {
		return l.s, nil
	}
	if l.err != nil && l.failed.After(arrived) {
		return nil, l.err
	}
	s, err := l.srv.connect(l.srv.ctx, nil)
	if err != nil {
		l.failed, l.err = time.Now(), err
		return nil, err
	}
	l.s, l.err = s, nil
	return s, nil
}

func (l *link) aliveLocked() bool {
	l.srv.mu.Lock()
	defer l.srv.mu.Unlock()
	return l.s.aliveLocked()
}

// run runs f, which may be run twice: a connection that stood idle may have
// died unnoticed, which only a command shows.
func (l *link) run(f func(*session) error) error {
	arrived := time.Now()
	var err error
	for range 2 {
		l.mu.Lock()
		s, cerr := l.getLocked(arrived)
		l.mu.Unlock()
		if cerr != nil {
			return cerr
		}
		if err = f(s); !isBroken(err) {
			return err
		}
	}
	return err
}

// workerPool are goroutines for calls that wait for the server. One that is done
// takes the next call: a new goroutine for each would spend a tenth of all work
// on its stack, which a command outgrows. dismiss ends those without work, so
// that an idle server has none. Callers bound how many there are: each waits for its call.
//
// Only one method may be called at a time.
type workerPool struct {
	wg   sync.WaitGroup
	free chan func() // goroutines without work take from it; unbuffered
}

func newWorkerPool() workerPool { return workerPool{free: make(chan func())} }

// run has f run by a goroutine of the pool.
func (p *workerPool) run(f func()) {
	select {
	case p.free <- f:
	default:
		p.wg.Go(func() {
			for f != nil {
				f()
				f = <-p.free
			}
		})
	}
}

// dismiss ends the goroutines without work.
func (p *workerPool) dismiss() {
	for {
		select {
		case p.free <- nil:
		default:
			return
		}
	}
}

// close ends all goroutines once their work is done. run must not be called after it.
func (p *workerPool) close() { close(p.free) }

// wait waits until they have ended.
func (p *workerPool) wait() { p.wg.Wait() }
