package beanstalk

import (
	"errors"
	"fmt"
	"slices"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"

	"propeller/internal/neterr"
	"propeller/queue"
)

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
// that the command may have been run: somebody else who answers has not run it.
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

// strangerError says that somebody answered who is not beanstalkd.
type strangerError struct{ error }

// stranger is the error for a first line that beanstalkd never sends; nil for others.
func stranger(line string) error {
	if who := neterr.Known(line); who == "" || who == "beanstalkd" {
		return nil
	}
	return &strangerError{neterr.Not("beanstalkd", line)}
}
