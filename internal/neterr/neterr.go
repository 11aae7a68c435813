// Package neterr says in a few stable words what is wrong with a connection.
package neterr

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
)

// Plain returns err, of a connection to server, with a shorter text. It leaves out the local
// address, which differs with each try: reasons must stay the same to be counted and compared. It
// also leaves out server (host:port), which the reader knows; pass "" to keep it.
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
	// The text of a look-up has addresses too: "read udp 10.0.0.9:5353->10.0.0.1:53".
	if before, after, ok := strings.Cut(text, "->"); ok {
		text = before[:strings.LastIndexByte(before, ' ')+1] + after
	}
	if text == err.Error() {
		return err
	}
	return Reworded(text, err)
}

// words is what op says about the connection to server.
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

// peers are servers that may answer at a wrong port, by how their first line begins.
var peers = []struct{ begins, name string }{
	{"HTTP/", "an HTTP server"},
	{"INFO {", "a NATS server"},
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

// Known says which kind of server sends such a first line; "" if unknown.
func Known(line string) string {
	for _, p := range peers {
		if strings.HasPrefix(line, p.begins) {
			return p.name
		}
	}
	return ""
}

// Not returns the error for an answer that the wanted kind of server never gives.
func Not(wanted, line string) error {
	const do = "check host, port and scheme of the queue's url"
	if name := Known(line); name != "" {
		return fmt.Errorf("%s answers there, not %s: %s", name, wanted, do)
	}
	return fmt.Errorf("it answered %.*q, as %s never does: %s", maxShown, line, wanted, do)
}

// Reworded returns an error with the given text that wraps errs.
func Reworded(text string, errs ...error) error { return &reworded{text, errs} }

type reworded struct {
	text string
	errs []error
}

func (e *reworded) Error() string   { return e.text }
func (e *reworded) Unwrap() []error { return e.errs }

// After returns err without prefix, for a sentence that already begins with it.
func After(prefix string, err error) error {
	text, twice := strings.CutPrefix(err.Error(), prefix)
	if !twice {
		return err
	}
	return Reworded(text, err)
}

var port = regexp.MustCompile(`:[0-9]{1,5}\b`)

// Same reports whether two errors of connections have the same text apart from port numbers:
// each try may have another local port.
func Same(a, b error) bool {
	return port.ReplaceAllString(a.Error(), "") == port.ReplaceAllString(b.Error(), "")
}

// Join is errors.Join with a text of one line.
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
