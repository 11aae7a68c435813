package apnsconn

import "time"

// push is one notification from Send to its callback. All fields except done are under Conn.mu.
type push struct {
	n        *Notification
	done     func(Outcome)
	deadline time.Duration // on the connection's clock

	id     uint32        // its stream; 0 before any of it was given to the network
	unsent bool          // it has a stream, but the write failed before its last byte
	opened time.Duration // when it got its stream
	window int64         // of the stream; below 0 after the peer made its windows smaller
	sent   int           // bytes of the payload written so far

	status     int    // of the answer; 0 before it
	body       []byte // the answer's, at most maxBody bytes
	received   int    // bytes of DATA on the stream, padding included
	length     int64  // of the body, as the answer says; -1 if it does not say
	content    int64  // bytes of the body so far
	apnsID     string
	retryAfter time.Duration
	skew       time.Duration // of an answer with status 403: its date less our time; 0 without a date

	in    [2]*pushList // the lists it is on, by kind
	links [2]struct{ prev, next *push }
}

// unwritten is the part of the payload that is not yet written.
func (p *push) unwritten() []byte { return p.n.Payload[p.sent:] }

// A push is on at most two lists: that of all pushes, and one queue of the writer.
const (
	kindAll   = iota // every push that has not ended, oldest first
	kindQueue        // waiting for a stream, or for window
)

// pushList is a first-in first-out list that a push can leave from the middle.
type pushList struct {
	kind       int
	head, tail *push
	n          int
}

func (l *pushList) add(p *push) {
	k := l.kind
	p.in[k] = l
	p.links[k].prev = l.tail
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.links[k].next = p
	}
	l.tail = p
	l.n++
}

// leave takes p off its list of that kind, if it is on one.
func (p *push) leave(kind int) {
	l := p.in[kind]
	if l == nil {
		return
	}
	link := &p.links[kind]
	if link.prev == nil {
		l.head = link.next
	} else {
		link.prev.links[kind].next = link.next
	}
	if link.next == nil {
		l.tail = link.prev
	} else {
		link.next.links[kind].prev = link.prev
	}
	link.prev, link.next = nil, nil
	p.in[kind] = nil
	l.n--
}

// resetStreams remembers the streams that this side ended. The peer may still send frames for
// them, which must be ignored (RFC 9113 §5.1), whereas a frame for a stream that the peer ended
// itself is a fault. Memory is bounded: of older streams only the highest id is kept, and a
// frame for any stream up to it is ignored.
type resetStreams struct {
	ids   []uint32 // a ring once full
	next  int
	floor uint32
}

// maxResetIDs is how many streams are remembered one by one: twice as many as APNs allows at
// once (1000), so that all of them may be reset.
const maxResetIDs = 2048

func (r *resetStreams) add(id uint32) {
	if len(r.ids) < maxResetIDs {
		r.ids = append(r.ids, id)
		return
	}
	r.floor = max(r.floor, r.ids[r.next])
	r.ids[r.next] = id
	r.next = (r.next + 1) % maxResetIDs
}

func (r *resetStreams) has(id uint32) bool {
	if id <= r.floor {
		return true
	}
	for _, other := range r.ids {
		if other == id {
			return true
		}
	}
	return false
}
