package jetstream

import (
	"errors"
	"strings"

	"github.com/nats-io/nats.go"

	"propeller/internal/neterr"
	"propeller/queue"
)

const ourName = "jetstream: "

// unavailable is err as why the queue is away. That it is, is said by who tells it.
func unavailable(err error) error {
	return neterr.Reworded(ourName+inner(err).Error(), queue.ErrUnavailable, err)
}

// inner is err for a sentence that has begun with our name.
func inner(err error) error { return neterr.After(ourName, err) }

// ofServer is what is wrong with the connection to a server.
func ofServer(addr string, err error) error {
	text := strings.TrimPrefix(neterr.Plain(inner(err), addr).Error(), "nats: ")
	if addr != "" {
		text = "server " + addr + ": " + text
	}
	return neterr.Reworded(text, err)
}

// ended is why a connection ended.
func ended(addr string, err error) error {
	const what = "connection lost"
	switch {
	case err == nil:
		return ofServer(addr, errors.New(what))
	case errors.Is(err, nats.ErrStaleConnection):
		return ofServer(addr, neterr.Reworded(what+": it does not answer", err))
	case turnedAway(err):
		return ofServer(addr, err)
	}
	return ofServer(addr, neterr.Reworded(what+": "+strings.TrimPrefix(neterr.Plain(err, addr).Error(), "nats: "), err))
}
