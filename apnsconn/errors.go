package apnsconn

import (
	"errors"
	"fmt"

	"golang.org/x/net/http2"
)

var (
	// ErrClosed is why a connection ended that its owner closed or drained.
	ErrClosed = errors.New("apnsconn: connection closed")
	// ErrTimeout is the Err of a push that was not answered within Config.PushTimeout.
	ErrTimeout = errors.New("apnsconn: no answer within the push timeout")
	// ErrFull is the Err of a push beyond Config.InFlight.
	ErrFull = errors.New("apnsconn: too many pushes in flight")
)

// Why a connection ends by itself, as Conn.Err returns it.
var (
	errSilent      = errors.New("apnsconn: connection lost: no answer to a PING")
	errDeadlines   = errors.New("apnsconn: connection given up: two pushes in a row timed out")
	errServerFault = errors.New("apnsconn: connection given up: three answers of status 500 in a row")
	errStuck       = errors.New("apnsconn: connection given up: the server answers, but accepts no pushes")
	errStreamIDs   = errors.New("apnsconn: connection used up: no stream ids left")
)

// peerError is a violation of HTTP/2 by the peer that ends the connection.
type peerError struct {
	code http2.ErrCode
	what string
}

func (e *peerError) Error() string {
	return fmt.Sprintf("apnsconn: peer broke HTTP/2: %s (%s)", e.what, e.code)
}

func breach(code http2.ErrCode, format string, args ...any) error {
	return &peerError{code, fmt.Sprintf(format, args...)}
}

// streamError is the Err of a push whose stream was reset: by the peer, or by this side because
// the peer's answer was malformed.
type streamError struct {
	Code   http2.ErrCode
	Remote bool   // the peer reset it
	What   string // what was malformed; "" when the peer reset it
}

func (e *streamError) Error() string {
	if e.Remote {
		return fmt.Sprintf("apnsconn: stream reset by peer (%s)", e.Code)
	}
	return fmt.Sprintf("apnsconn: stream reset: %s (%s)", e.What, e.Code)
}

// suspectError is why a connection takes no more pushes after an answer that blames the
// connection, such as 503 Shutdown.
type suspectError struct {
	Status int
	Reason string
	Err    error // a *ClockError if the clock is the cause; else nil
}

// Unwrap returns Err.
func (e *suspectError) Unwrap() error { return e.Err }

func (e *suspectError) Error() string {
	text := fmt.Sprintf("apnsconn: connection given up: answer %d %s", e.Status, e.Reason)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// maxDebug bounds what is kept of a GOAWAY frame's debug data. Apple sends
// {"reason":"…"}, well under 100 bytes.
const maxDebug = 1 << 10

// GoAwayError says that the peer told the connection to end (RFC 9113 §6.8).
type GoAwayError struct {
	Code         http2.ErrCode
	LastStreamID uint32 // streams above it were not processed
	Reason       string // "reason" of Apple's JSON, else Debug as text, else ""
	Debug        []byte // the frame's debug data, at most 1 KiB of it
}

func newGoAwayError(f *http2.GoAwayFrame) *GoAwayError {
	debug := f.DebugData()
	debug = append([]byte(nil), debug[:min(len(debug), maxDebug)]...)
	return &GoAwayError{
		Code:         f.ErrCode,
		LastStreamID: f.LastStreamID,
		Reason:       goAwayReason(debug),
		Debug:        debug,
	}
}

// goAwayReason finds the reason in a GOAWAY's debug data. Apple documents JSON; plain text has
// been seen too (Netty: "Maximum active streams violated …").
func goAwayReason(debug []byte) string {
	if a := parseAnswer(debug); a.reason != "" {
		return a.reason
	}
	return cleanReason(string(debug))
}

func (e *GoAwayError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("apnsconn: server ended the connection (GOAWAY %s)", e.Code)
	}
	return fmt.Sprintf("apnsconn: server ended the connection (GOAWAY %s): %s", e.Code, e.Reason)
}

// Is makes errors.Is(e, ErrCredential) true for reasons that refuse the certificate or key.
func (e *GoAwayError) Is(target error) bool {
	return target == ErrCredential && credentialReason(e.Reason)
}
