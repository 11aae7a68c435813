package jetstream

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// maxControl is the longest line of a server but INFO, its end included, and
	// maxInfo the longest INFO: it names the servers of the cluster.
	maxControl = 4 << 10
	maxInfo    = 128 << 10
	// maxMessage is the largest message that a server can be configured to take
	// (nats-server: const.go, MAX_PENDING_SIZE, which bounds max_payload).
	maxMessage = 64 << 20
	// maxAnswer is the largest answer to a request that does not ask for more. They
	// are JSON, of which the library makes many times as much.
	maxAnswer = 2 << 20

	// A server may send lines that are no messages (PING, -ERR, INFO) at this rate
	// for long, so many at once, and one beside each message.
	lineRate  = 200 // per second; a line of more than 256 bytes counts as several
	lineBurst = 2000
)

// wire is a connection whose lines are checked before nats.go sees their ends.
// nats.go parses on a goroutine of its own: it takes what a line says of a
// message's size for true, panics where no memory has that size, and gathers a
// line without end for ever. What passes here means the same to both: nothing is
// let through that a server would write otherwise.
type wire struct {
	net.Conn
	first []byte // to be read before anything else; checked
	line  []byte // the beginning of a line whose end has not come
	left  int    // bytes of a message to come
	end   int    // bytes of the line end behind it to come
	err   error
	inbox []byte      // what subjects of answers begin with; jobs have their own
	large func() bool // an answer may have more than maxAnswer bytes

	lines int // that the server may send before refill is asked
	msgs  int // since then
	at    time.Time
}

func newWire(nc net.Conn, first []byte, inbox string, large func() bool) *wire {
	return &wire{Conn: nc, first: first, inbox: []byte(inbox), large: large, lines: lineBurst, at: time.Now()}
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.first) > 0 {
		n := copy(p, w.first)
		w.first = w.first[n:]
		return n, nil
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.Conn.Read(p)
	good, bad := w.check(p[:n])
	if bad != nil {
		w.err, err = bad, nil // what comes before it counts
		if n = good; n == 0 {
			err = bad
		}
	}
	return n, err
}

const lineEnd = "\r\n"

// check follows what has come. It returns how much of it is good, and why not all.
func (w *wire) check(b []byte) (good int, err error) {
	for i := 0; i < len(b); {
		switch {
		case w.left > 0:
			k := min(w.left, len(b)-i)
			w.left -= k
			i += k
			continue
		case w.end > 0:
			if b[i] != lineEnd[len(lineEnd)-w.end] {
				return i, fmt.Errorf("server broke the protocol: a message that is longer than it said")
			}
			w.end--
			i++
			continue
		}
		n := bytes.IndexByte(b[i:], '\n') + 1
		line := b[i:]
		if n > 0 {
			line = b[i : i+n]
		}
		if n == 0 || len(w.line) > 0 {
			w.line = append(w.line, line...)
			line = w.line
		}
		if most := longest(line); len(line) > most {
			return i, fmt.Errorf("server broke the protocol: a line of more than %d bytes, %.40q", most, line)
		}
		if n == 0 {
			return len(b), nil
		}
		if err := w.control(line); err != nil {
			return i, err
		}
		w.line = w.line[:0]
		if cap(w.line) > maxControl {
			w.line = nil
		}
		i += n
	}
	return len(b), nil
}

func longest(line []byte) int {
	if bytes.HasPrefix(line, infoWord) {
		return maxInfo
	}
	return maxControl
}

var (
	msgWord  = []byte("MSG ")
	hmsgWord = []byte("HMSG ")
	infoWord = []byte("INFO {")
	errWord  = []byte("-ERR '")
)

// control checks a whole line.
func (w *wire) control(line []byte) error {
	args, ok := bytes.CutSuffix(line, []byte(lineEnd))
	if ok {
		if msg, is := bytes.CutPrefix(args, msgWord); is {
			return w.message(line, msg, 1)
		}
		if msg, is := bytes.CutPrefix(args, hmsgWord); is {
			return w.message(line, msg, 2)
		}
	}
	if !w.tolerates(1 + len(line)>>8) {
		return fmt.Errorf("server floods the connection with lines that are no messages, the last of them %.120q", args)
	}
	switch word := string(args); {
	case !ok:
	case word == "PING", word == "PONG", word == "+OK", bytes.HasPrefix(args, infoWord):
		return nil
	case bytes.HasPrefix(args, errWord):
		return fatal(args[len(errWord):])
	}
	return fmt.Errorf("server broke the protocol: %.60q", line)
}

// message checks the line of a message, whose last fields are so many sizes:
// subject, number of the subscription, perhaps a subject for the answer, sizes.
func (w *wire) message(line, args []byte, sizes int) error {
	var fields [5][]byte
	n, from := 0, 0
	for i := 0; i <= len(args); i++ {
		switch {
		case i < len(args) && args[i] > ' ':
			continue
		case i == from && n == 2 && i < len(args) && args[i] == ' ': // an empty subject for the answer, as in advisories of a cluster
			from = i + 1
			continue
		case i == from, n == len(fields), i < len(args) && args[i] != ' ':
			return fmt.Errorf("server broke the protocol: %.60q", line)
		}
		fields[n] = args[from:i]
		n, from = n+1, i+1
	}
	if n != 2+sizes && n != 3+sizes || !digits(fields[1]) {
		return fmt.Errorf("server broke the protocol: %.60q", line)
	}
	size, ok := number(fields[n-1])
	if !ok || size > maxMessage {
		return fmt.Errorf("server broke the protocol: a message of %.40q bytes", fields[n-1])
	}
	if sizes == 2 {
		if head, ok := number(fields[n-2]); !ok || head > size {
			return fmt.Errorf("server broke the protocol: headers of %.40q bytes in a message of %d", fields[n-2], size)
		}
	}
	if size > maxAnswer && bytes.HasPrefix(fields[0], w.inbox) && !w.large() {
		return fmt.Errorf("server sends an answer of %d bytes that was not requested", size)
	}
	w.left, w.end = size, len(lineEnd)
	w.msgs++
	return nil
}

// digits reports whether b is a number that fits in 64 bits.
func digits(b []byte) bool {
	for _, d := range b {
		if d < '0' || d > '9' {
			return false
		}
	}
	return len(b) <= 18
}

func number(b []byte) (n int, ok bool) {
	if len(b) > 9 || !digits(b) {
		return 0, false
	}
	for _, d := range b {
		n = 10*n + int(d-'0')
	}
	return n, true
}

// tolerates takes n off what the server may send beside messages.
func (w *wire) tolerates(n int) bool {
	w.lines -= n
	if w.lines < 0 {
		now := time.Now()
		w.lines += min(lineBurst, int(lineRate*now.Sub(w.at).Seconds())) + min(10*lineBurst, w.msgs)
		w.at, w.msgs = now, 0
	}
	return w.lines >= 0
}

// harmless are the errors after which nats.go goes on, or connects again: after
// any other it closes for good.
var harmless = []string{
	nats.PERMISSIONS_ERR, nats.MAX_SUBSCRIPTIONS_ERR,
	nats.AUTHORIZATION_ERR, nats.AUTHENTICATION_EXPIRED_ERR, nats.AUTHENTICATION_REVOKED_ERR, nats.ACCOUNT_AUTHENTICATION_EXPIRED_ERR,
}

// fatal returns what the server says as an error, unless it is harmless. As an error of
// the connection it has nats.go make a new one.
func fatal(said []byte) error {
	text := string(bytes.ToLower(said))
	for _, known := range harmless {
		if strings.HasPrefix(text, known) {
			return nil
		}
	}
	return fmt.Errorf("server: %.200s", bytes.TrimSuffix(said, []byte("'")))
}
