package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxStreams is the most pushes in flight: all have different tokens, and each
// token is an open file of nghttpd, of which systems allow 1024 by default.
const maxStreams = shotCount

func parseStreams(s string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 2 || n > maxStreams {
			return nil, fmt.Errorf("%q: want 2 to %d", part, maxStreams)
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// The senders. The keys go to a sender's process.
const (
	keyH2load     = "h2load"
	keyApnsconn   = "apnsconn"
	keyAPNs2      = "apns2"
	keyClientConn = "clientconn"
)

// A feed is where the next push comes from when one has ended.
type feed int

const (
	// byCallers: as many goroutines as streams, each waiting for its push.
	byCallers feed = 0
	// byCallback: the callback of a push sends the next; h2load works so too.
	byCallback feed = -1
	// byCallbackOneID: byCallback with one apns-id for all pushes, as h2load
	// sends them: the same requests, and so the same work for nghttpd.
	byCallbackOneID feed = -2
	// Above 0: so many goroutines, sending as soon as one of the streams is free.
)

// feeds are those that apnsconn is measured with.
var feeds = [...]feed{byCallbackOneID, byCallback, 1, 100}

// cell is a row of the table: one sender in one way.
type cell struct {
	sender  string
	feed    feed
	streams int
}

// plan returns the rows in their order.
func plan(streams []int) []cell {
	var cells []cell
	add := func(sender string, f feed, n int) { cells = append(cells, cell{sender, f, n}) }
	for _, n := range slices.Backward(streams) {
		add(keyH2load, byCallback, n)
		for _, f := range feeds {
			add(keyApnsconn, f, n)
		}
		add(keyAPNs2, byCallers, n)
		add(keyClientConn, byCallers, n)
	}
	for _, sender := range []string{keyH2load, keyApnsconn, keyAPNs2, keyClientConn} {
		add(sender, byCallers, 1)
	}
	return cells
}

// label names a sender and its way for people.
func (c cell) label() string {
	switch c.sender {
	case keyH2load:
		return "h2load"
	case keyAPNs2:
		return "sideshow/apns2"
	case keyClientConn:
		return "x/net http2.ClientConn"
	}
	switch c.feed {
	case byCallers:
		return "apnsconn, Push"
	case byCallbackOneID:
		return "apnsconn, Send from callbacks, one id"
	case byCallback:
		return "apnsconn, Send from callbacks"
	case 1:
		return "apnsconn, Send from 1 goroutine"
	}
	return fmt.Sprintf("apnsconn, Send from %d goroutines", c.feed)
}

// holdsInFlight reports whether memory per push in flight is measured for c:
// once for each sender and number of streams, and without goroutines of ours
// beyond those that the sender makes necessary.
func (c cell) holdsInFlight() bool {
	return c.sender != keyH2load && c.streams > 1 && c.feed <= 0
}
