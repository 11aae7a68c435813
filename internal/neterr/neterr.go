// Package neterr says what is wrong with a connection in few words that stay the same.
package neterr

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
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

// NATSGreeting is what a NATS server says first.
const NATSGreeting = "INFO "

// peers are who may answer at a port that was given by mistake, by how their first line
// begins.
var peers = []struct{ begins, name string }{
	{"HTTP/", "an HTTP server"},
	{NATSGreeting + "{", "a NATS server"},
	{"UNKNOWN_COMMAND", "beanstalkd"},
	{"BAD_FORMAT", "beanstalkd"},
	{"+PONG", "a Redis server"},
	{"-ERR", "a Redis server"},
	{"-NOAUTH", "a Redis server"},
	{"SSH-", "an SSH server"},
	{"AMQP", "an AMQP server"},
	{"\x15\x03", "a TLS server"},
}

// maxShown bounds what is shown of an answer, in bytes.
const maxShown = 60

// Known says who answers with such a first line; "" when that is not known.
func Known(line string) string {
	for _, p := range peers {
		if strings.HasPrefix(line, p.begins) {
			return p.name
		}
	}
	return ""
}

// Not is the error for an answer that the wanted server never gives.
func Not(wanted, line string) error {
	const do = "check host, port and scheme of the queue's url"
	if name := Known(line); name != "" {
		return fmt.Errorf("%s answers there, not %s: %s", name, wanted, do)
	}
	return fmt.Errorf("it answered %.*q, as %s never does: %s", maxShown, line, wanted, do)
}

// Reworded is an error with a text of its own for what is wrapped.
func Reworded(text string, errs ...error) error { return &reworded{text, errs} }

type reworded struct {
	text string
	errs []error
}

func (e *reworded) Error() string   { return e.text }
func (e *reworded) Unwrap() []error { return e.errs }

// After is err for a sentence that began with prefix already.
func After(prefix string, err error) error {
	text, twice := strings.CutPrefix(err.Error(), prefix)
	if !twice {
		return err
	}
	return Reworded(text, err)
}

var port = regexp.MustCompile(`:[0-9]{1,5}\b`)

// Same says whether two errors of connections say the same, but for the ports in their texts:
// of those that a system hands out, each try has another.
func Same(a, b error) bool {
	return port.ReplaceAllString(a.Error(), "") == port.ReplaceAllString(b.Error(), "")
}

// Join is errors.Join on one line.
func Join(errs ...error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return Reworded(strings.Join(texts, "; "), errs...)
}
