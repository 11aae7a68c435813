package beanstalk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
)

const (
	// maxLine is the longest line of a server, its end included (beanstalkd:
	// dat.h, LINE_BUF_SIZE).
	maxLine = 224

	// maxJob is the largest job that is read, in bytes: sixteen times what a
	// server takes by default, and as much as one of NATS. Of a larger one, see
	// unreadBody.
	maxJob = 1 << 20

	// maxJobClaim is the largest job that any server takes (beanstalkd: main.c, -z).
	// More than that is a lie.
	maxJobClaim = 1 << 30

	// maxStats is for the statistics of a server, tube or job, of which none has
	// more than 2 KiB; maxTubes for the list of tubes, with 80,000 of the longest names.
	maxStats = 64 << 10
	maxTubes = 16 << 20

	maxStack = 8 << 10 // what is logged of a panic's stack
)

// replies is a connection whose answers are checked before go-beanstalk sees them:
// that library allocates whatever size a line ends with, for any line where it
// expects a body, and panics where that is negative or too large.
type replies struct {
	net.Conn
	in    *bufio.Reader
	line  []byte // checked, to be passed on next
	own   []byte // room for a line that is not the server's
	body  int    // bytes to be passed on after that
	skip  int    // bytes to be dropped before that
	err   error
	known bool // an answer was beanstalkd's
}

func newReplies(nc net.Conn) *replies {
	return &replies{Conn: nc, in: bufio.NewReaderSize(nc, 4<<10)}
}

// Read passes on what is at hand, and waits for the network only when that is
// nothing.
func (r *replies) Read(p []byte) (n int, err error) {
	for n < len(p) && r.err == nil {
		switch {
		case n > 0 && !r.atHand():
			return n, nil
		case r.skip > 0:
			var k int
			k, r.err = r.in.Discard(r.skip)
			r.skip -= k
		case len(r.line) > 0:
			k := copy(p[n:], r.line)
			r.line = r.line[k:]
			n += k
		case r.body > 0:
			var k int
			k, r.err = r.in.Read(p[n:min(len(p), n+r.body)])
			r.body -= k
			n += k
		default:
			r.err = r.next()
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// atHand reports whether the next part needs no wait for the network.
func (r *replies) atHand() bool {
	switch {
	case r.skip > 0:
		return false
	case len(r.line) > 0:
		return true
	case r.body > 0:
		return r.in.Buffered() > 0
	}
	b, _ := r.in.Peek(r.in.Buffered())
	return bytes.IndexByte(b, '\n') >= 0
}

// next reads and checks a line.
func (r *replies) next() error {
	line, err := r.in.ReadSlice('\n')
	if !r.known && len(line) > 0 {
		if s := stranger(string(line)); s != nil {
			return s
		}
		r.known = true
	}
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine {
		return fmt.Errorf("not a beanstalkd answer: a line of more than %d bytes, %.60q", maxLine, line)
	}
	if err != nil {
		return err
	}
	word, rest, spaced := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(" "))
	switch {
	case !spaced:
		r.line = line
		return nil
	case string(word) == "RESERVED" || string(word) == "FOUND":
		return r.job(line, word, rest)
	case string(word) == "OK":
		n, ok := size(rest)
		if !ok || n > maxStats {
			return fmt.Errorf("not a beanstalkd answer: %.60q, of at most %d bytes", line, maxStats)
		}
		r.line, r.body = line, n+2
		return nil
	}
	// Behind the last space go-beanstalk may look for a size where the server has
	// a number of another kind, as in INSERTED. Nothing can be one.
	r.own = append(append(append(r.own[:0], word...), ' '), rest...)
	r.own = append(r.own, " \r\n"...)
	r.line = r.own
	return nil
}

// job checks a line that brings a job.
func (r *replies) job(line, word, rest []byte) error {
	id, length, _ := bytes.Cut(rest, []byte(" "))
	_, err := strconv.ParseUint(string(id), 10, 64)
	n, ok := size(length)
	if err != nil || !ok || n > maxJobClaim {
		return fmt.Errorf("not a beanstalkd answer: %.60q, of a job of at most %d bytes", line, maxJobClaim)
	}
	if n <= maxJob {
		r.line, r.body = line, n+2
		return nil
	}
	r.skip = n + 2
	body := unreadBody(n)
	r.own = fmt.Appendf(r.own[:0], "%s %s %d\r\n%s\r\n", word, id, len(body), body)
	r.line = r.own
	return nil
}

// size reads a length as servers write it: digits.
func size(b []byte) (int, bool) {
	n, err := strconv.ParseUint(string(b), 10, 31)
	return int(n), err == nil
}

// unreadPrefix begins with what no job begins with that could be pushed.
const unreadPrefix = "\x00not read: a job of "

// unreadBody stands for the body of a job that is too large to be read. It is
// shown in its place, and never stored.
func unreadBody(n int) string {
	return fmt.Sprintf("%s%d bytes, more than %d", unreadPrefix, n, maxJob)
}

// tooLarge says why a job with this body was not read.
func tooLarge(body []byte) (why string, ok bool) {
	if !bytes.HasPrefix(body, []byte(unreadPrefix)) {
		return "", false
	}
	return string(body[1:]), true
}

// guarded runs a command. That go-beanstalk panics over an answer ends this
// session only.
func (s *session) guarded(cmd func(*gobeanstalk.Conn) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			stack := debug.Stack()
			s.srv.log.Error("panic over an answer of the queue server", "panic", v, "stack", string(stack[:min(len(stack), maxStack)]))
			err = fmt.Errorf("panic over an answer: %v", v)
		}
	}()
	return cmd(s.bs)
}

// buryUnread buries a job that was too large to be read, with its body as it is:
// served again it would only come again. The caller has acquired the right to
// reserve it, which is given back when that is done.
func (loop *connLoop) buryUnread(j *job, why string) {
	srv := loop.srv
	srv.mu.Lock()
	srv.jobs.HandOut(&j.Lease)
	srv.mu.Unlock()
	work := func() {
		defer loop.c.release()
		if err := j.Bury(loop.ctx, nil); err != nil {
			srv.few.Log(slog.LevelWarn, "a job that is too large could not be buried", "tube", loop.c.tube, "job", j.ID(), "reason", why, "err", err)
			return
		}
		srv.few.Log(slog.LevelWarn, "a job that is too large was buried", "tube", loop.c.tube, "job", j.ID(), "reason", why)
	}
	if !srv.spawn(work) {
		loop.c.release() // closed: it goes back with the connection
	}
}
