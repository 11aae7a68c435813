package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/internal/neterr"
	"propeller/internal/parallel"
	"propeller/queue"
	"propeller/queue/lease"
)

// session is one live connection to a server. It is used by many goroutines:
// go-beanstalk sends their commands in turn and hands out the answers in the
// same order. Once failed it stays so; a new one takes its place.
type session struct {
	srv  *server
	loop *connLoop // whose reservations it holds; nil for puts and statistics
	nc   net.Conn
	in   *replies // on nc
	bs   *gobeanstalk.Conn

	// Set by the handshake, before others see the session.
	tubes    *gobeanstalk.TubeSet
	instance string // id of the server process
	binlog   bool   // the server's jobs survive its restart

	dead chan struct{}  // closed when the session fails
	wg   sync.WaitGroup // its helpers and touchers

	// Guarded by srv.mu.
	err         error            // why it failed
	outstanding int              // commands sent and not answered
	progress    time.Time        // when an answer came last, or the first command went out
	patience    time.Duration    // how much longer than Timeout the server may be silent: a waiting reserve
	reserved    lease.List[*job] // jobs reserved here
	touching    bool             // a toucher is at work
	reserves    uint64           // begun so far: they are numbered from 1
	unclaimed   []uint64         // reserves that may have brought a job which is not claimed yet, in their order

	reservesByID bool // the server is known to have reserve-job
}

// connect opens a session. The watchdog minds it from its first command on.
func (srv *server) connect(ctx context.Context, loop *connLoop) (*session, error) {
	nc, err := srv.dial(ctx, srv.addr)
	if err != nil {
		return nil, &brokenError{addr: srv.addr, err: err}
	}
	s := &session{srv: srv, loop: loop, nc: nc, dead: make(chan struct{})}
	if err := srv.add(s); err != nil {
		nc.Close()
		return nil, err
	}
	if loop != nil {
		if err := s.watch(loop.c.tube); err != nil {
			return nil, s.fail(err, false)
		}
	}
	s.in = newReplies(nc)
	s.bs = gobeanstalk.NewConn(newWriteBatcher(s.in, s.busy, srv.spawn))
	if loop != nil {
		s.tubes = gobeanstalk.NewTubeSet(s.bs, loop.c.tube)
		if err := s.identify(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// watch puts the tube on the watch list before go-beanstalk has the connection.
//
// go-beanstalk sends watch in front of a reserve and skips its answer. If the
// server refused it (OUT_OF_MEMORY), every later answer would go to the wrong
// command. Sent here, alone, a refusal is an error; the second watch, of a
// tube already watched, needs nothing that could run out.
func (s *session) watch(tube string) error {
	if err := s.nc.SetDeadline(time.Now().Add(s.srv.q.opts.timeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(s.nc, "watch "+tube+"\r\n"); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	line, err := readLine(s.nc)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	if !strings.HasPrefix(line, "WATCHING ") {
		if err := stranger(line); err != nil {
			return err
		}
		return fmt.Errorf("watch: server answered %.60q", line)
	}
	return s.nc.SetDeadline(time.Time{})
}

// readLine reads one short line and not a byte more, or the beginning of a long one.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < maxLine { // WATCHING and a number, or one word of error
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, b[0])
	}
	return string(line), nil
}

// identify asks for the id of the server process.
func (s *session) identify() error {
	var stats map[string]string
	err := s.do(func(bs *gobeanstalk.Conn) (err error) {
		stats, err = bs.Stats()
		return err
	})
	if err != nil {
		return err
	}
	s.instance = unquote(stats["id"])
	current := stats["binlog-current-index"] // 0 without a binlog (protocol.txt, stats)
	s.binlog = current != "" && current != "0"
	return nil
}

// do runs one command. An error that is not among the allowed answers ends the
// session and is returned as a brokenError.
func (s *session) do(cmd func(*gobeanstalk.Conn) error, allowed ...error) error {
	if err := s.begin(); err != nil {
		return err
	}
	err := s.guarded(cmd)
	s.end()
	if err == nil || answered(err, allowed) {
		return err
	}
	why, sent := plain(err)
	return s.fail(why, sent)
}

// begin counts a command in for the watchdog.
func (s *session) begin() error {
	now := time.Now()
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	return s.beginLocked(now)
}

func (s *session) beginLocked(now time.Time) error {
	if s.err != nil {
		return &brokenError{addr: s.srv.addr, err: s.err}
	}
	if s.outstanding == 0 {
		s.progress = now
	}
	s.outstanding++
	return nil
}

// busy is for the session's writeBatcher.
func (s *session) busy() bool {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	return s.outstanding >= batchFrom
}

// end counts a command out.
func (s *session) end() {
	now := time.Now()
	s.srv.mu.Lock()
	s.outstanding--
	s.progress = now
	s.srv.mu.Unlock()
}

// reserve asks for one job. With mayWait, and when nothing at all is in flight
// on the connection, the server is let wait for one; waited says so. Without,
// it is an error to come while the server waits: the command would be stuck.
//
// After a job, the caller claims it.
func (s *session) reserve(mayWait bool) (r reservation, waited bool, err error) {
	now := time.Now()
	var wait time.Duration
	s.srv.mu.Lock()
	if !mayWait && s.patience > 0 {
		s.srv.mu.Unlock()
		return reservation{}, false, errServerWaits
	}
	if mayWait && s.quietLocked() {
		wait = reserveWait
	}
	err = s.beginLocked(now)
	if err == nil {
		s.patience += wait
		s.reserves++
		r.number = s.reserves
		s.unclaimed = append(s.unclaimed, r.number)
	}
	s.srv.mu.Unlock()
	if err != nil {
		return r, false, err
	}
	err = s.guarded(func(*gobeanstalk.Conn) (err error) {
		r.id, r.body, err = s.tubes.Reserve(wait)
		return err
	})

	now = time.Now()
	s.srv.mu.Lock()
	s.outstanding--
	s.patience -= wait
	s.progress = now
	if err != nil {
		s.claimedLocked(r.number)
	}
	s.srv.mu.Unlock()
	if err != nil && !errors.Is(err, gobeanstalk.ErrTimeout) && !errors.Is(err, gobeanstalk.ErrDeadline) {
		why, _ := plain(err)
		err = s.fail(why, true)
	}
	return r, wait > 0, err
}

// reservation is the answer to a reserve.
type reservation struct {
	number uint64 // of the reserve
	id     uint64
	body   []byte
}

// claimedLocked notes that the job of a reserve is known, or that it brought none.
func (s *session) claimedLocked(number uint64) {
	if i := slices.Index(s.unclaimed, number); i >= 0 {
		s.unclaimed = slices.Delete(s.unclaimed, i, i+1)
	}
}

// quietLocked says that no command could come to stand behind a waiting
// reserve: nothing is under way, no job is held here, and none of the loop's
// jobs waits for a connection to be settled on.
func (s *session) quietLocked() bool {
	return s.outstanding == 0 && s.reserved.Len() == 0 && s.loop.owner.Unbound() == 0
}

// reserveWait is how long the server is let wait for a job. Nothing can be
// behind it, so long is good: a thousand idle tubes cost 200 commands/s.
const reserveWait = 5 * time.Second

// touchEvery: a held job's reservation is renewed at least this often. The
// protocol does not tell a job's TTR, so this must be short for any
// sensible one; 1000 touches cost the server about 7 ms.
const touchEvery = 4 * time.Second

// touchLocked starts a toucher for the jobs that nobody touched for age,
// unless one is at work.
func (s *session) touchLocked(now time.Time, age time.Duration) {
	if s.err != nil || s.touching {
		return
	}
	var due []*job
	for j := range s.reserved.Due(now, age) {
		j.Lease.Touch(now)
		due = append(due, j)
	}
	if len(due) == 0 {
		return
	}
	s.touching = true
	s.wg.Go(func() {
		parallel.Each(reservers, due, s.touchHeld)
		s.srv.mu.Lock()
		s.touching = false
		s.srv.mu.Unlock()
	})
}

// touchHeld renews one reservation and notes it when it is gone.
func (s *session) touchHeld(j *job) {
	s.srv.mu.Lock()
	mine := j.sess == s && j.Unsettled()
	s.srv.mu.Unlock()
	if !mine {
		return
	}
	err := s.touch(j.Number)
	if !errors.Is(err, gobeanstalk.ErrNotFound) {
		return // renewed, or the session is dead and everybody will know
	}
	s.srv.mu.Lock()
	gone := j.sess == s && j.Unsettled()
	if gone {
		j.unbindLocked()
	}
	s.srv.mu.Unlock()
	if gone {
		s.srv.few.Log(slog.LevelWarn, "reservation lost while its job was held: TTR too short, or the server clock jumped",
			"tube", s.loop.c.tube, "job", j.ID())
	}
}

func (s *session) touch(id uint64) error {
	return s.do(func(bs *gobeanstalk.Conn) error { return bs.Touch(id) }, gobeanstalk.ErrNotFound)
}

// fail ends the session for the reason err and returns it as a brokenError.
// Later reasons are ignored.
func (s *session) fail(err error, sent bool) error {
	s.srv.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
		close(s.dead)
		delete(s.srv.sessions, s)
	}
	err = s.err
	s.srv.mu.Unlock()
	if first {
		s.nc.Close() // ends every command that waits for an answer
		if s.loop != nil {
			s.loop.c.wakeAll()
		}
	}
	return &brokenError{addr: s.srv.addr, sent: sent, err: err}
}

// aliveLocked says whether s can be used. srv.mu is held.
func (s *session) aliveLocked() bool { return s != nil && s.err == nil }

const ourName = "beanstalk: "

// brokenError says that a session cannot be used any more: its connection is
// dead, silent, or no longer trusted to match answers to commands.
type brokenError struct {
	addr string
	sent bool // the command at hand had been sent, and may have been run
	err  error
}

func (e *brokenError) Error() string {
	return fmt.Sprintf(ourName+"server %s: %v", e.addr, neterr.Plain(e.err, e.addr))
}

func (e *brokenError) Unwrap() []error { return []error{queue.ErrUnavailable, e.err} }

// isBroken says whether err ended the session that it came from.
func isBroken(err error) bool {
	var b *brokenError
	return errors.As(err, &b)
}

// maybeRun says whether the command that failed with err may have been run.
func maybeRun(err error) bool {
	var b *brokenError
	return errors.As(err, &b) && b.sent
}

var (
	errServerWaits = errors.New("the server waits for a job")

	errWatchdog = errors.New("no answer in time, connection closed")
	errClosed   = errors.New("closed")
)

// answered says whether err is one of the answers that the command allows.
//
// Every other error poisons the connection. After a network error nothing can
// be read from it; and BAD_FORMAT, OUT_OF_MEMORY, INTERNAL_ERROR,
// UNKNOWN_COMMAND or an unknown line may be the answer to a use or watch that
// go-beanstalk sent in front of the command: from then on every command would
// be given the answer of the one before it.
func answered(err error, allowed []error) bool {
	return slices.ContainsFunc(allowed, func(a error) bool { return errors.Is(err, a) })
}

// plain strips go-beanstalk's ConnError, whose text is "op: " and the cause. sent says
// that the command may have been run. If the answer is not from beanstalkd, it was not.
func plain(err error) (why error, sent bool) {
	if s, ok := errors.AsType[*strangerError](err); ok {
		return s, false
	}
	var c gobeanstalk.ConnError
	if errors.As(err, &c) {
		return fmt.Errorf("%s: %w", c.Op, c.Err), true
	}
	return err, true
}

// strangerError says that the peer is not beanstalkd.
type strangerError struct{ error }

// stranger is the error for a first line that beanstalkd never sends; nil for others.
func stranger(line string) error {
	if who := neterr.Known(line); who == "" || who == "beanstalkd" {
		return nil
	}
	return &strangerError{neterr.Not("beanstalkd", line)}
}
