// Package neterr says what is wrong with a connection in few words that stay the same.
package neterr

import (
	"errors"
	"net"
	"os"
	"strings"
)

// Plain is err, of a connection to server (host:port, "" if the reader is to be told it), with
// a shorter text. The local address, which is another one at each try, is left out: a reason
// that changes though nothing does cannot be counted or compared. So is what names
// server once more.
func Plain(err error, server string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if op, ok := errors.AsType[*net.OpError](err); ok {
		text = strings.Replace(text, op.Error(), words(op, server), 1)
	} else if _, ok := errors.AsType[*net.DNSError](err); !ok {
		return err
	}
	// What is left is in the text of a look-up: "read udp 10.0.0.9:5353->10.0.0.1:53".
	if before, after, ok := strings.Cut(text, "->"); ok {
		text = before[:strings.LastIndexByte(before, ' ')+1] + after
	}
	if text == err.Error() {
		return err
	}
	return Reworded(text, err)
}

// words are what op says of the connection to server.
func words(op *net.OpError, server string) string {
	if op.Addr == nil {
		return op.Error() // a TLS alert, or a look-up
	}
	cause := op.Err
	if call, ok := errors.AsType[*os.SyscallError](cause); ok {
		cause = call.Err
	}
	if op.Addr.String() == server {
		return cause.Error()
	}
	short := *op
	short.Source, short.Err = nil, cause
	return short.Error()
}
