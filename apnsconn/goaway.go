package apnsconn

import (
	"fmt"

	"golang.org/x/net/http2"
)

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

// goAwayReason takes the reason out of debug data. Apple documents JSON;
// plain text has been seen too (Netty: "Maximum active streams violated …").
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

// Is makes errors.Is(e, ErrCredential) true for the reasons that name a fault
// of the certificate or key.
func (e *GoAwayError) Is(target error) bool {
	return target == ErrCredential && credentialReason(e.Reason)
}
