package neterr

import (
	"fmt"
	"strings"
)

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
