package jetstream

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/time/rate"
)

const (
	// linesAtOnce and linesEvery bound the lines of the server's log of each kind.
	linesAtOnce = 20
	linesEvery  = time.Second
	// wrongEvery is how often wrong tokens have a line.
	wrongEvery = time.Minute
)

// serverLog passes on what the server warns of. Lines that strangers can cause leave
// room for the others.
type serverLog struct {
	failed func(why string) // the server stores nothing from now on; must not wait
	unread chan<- string    // gets why it cannot read a job

	faults  *limitedLog // of the server itself
	clients *limitedLog
	wrong   *limitedLog // tokens
	others  *limitedLog

	mu  sync.Mutex
	bad string // the last error
}

func newServerLog(log *slog.Logger, failed func(string), unread chan<- string) *serverLog {
	return &serverLog{
		failed: failed, unread: unread,
		faults:  newLimitedLog(log, linesEvery, linesAtOnce),
		clients: newLimitedLog(log, linesEvery, linesAtOnce),
		wrong:   newLimitedLog(log, wrongEvery, 1),
		others:  newLimitedLog(log, linesEvery, linesAtOnce),
	}
}

// end tells what was kept back.
func (l *serverLog) end() {
	for _, s := range []*limitedLog{l.faults, l.clients, l.wrong, l.others} {
		s.end()
	}
}

func (l *serverLog) Warnf(format string, v ...any) { l.say(slog.LevelWarn, format, v) }

func (l *serverLog) Errorf(format string, v ...any) {
	l.mu.Lock()
	l.bad = brief(fmt.Sprintf(format, v...))
	l.mu.Unlock()
	l.say(slog.LevelError, format, v)
}

// Fatalf logs: the process is not the server's to end.
func (l *serverLog) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

func (l *serverLog) say(level slog.Level, format string, v []any) {
	to := l.others
	switch {
	case l.judge(format, v):
		to = l.faults
	case wrongToken(format, v):
		l.wrong.note(line{level: slog.LevelWarn, text: "queue server: missing or wrong token"})
		return
	case ofClient.MatchString(format):
		to = l.clients
	}
	to.note(line{level: level, text: "queue server: " + brief(fmt.Sprintf(format, v...))})
}

// judge looks whether the server says that it does not work.
func (l *serverLog) judge(format string, v []any) bool {
	stored, writes := writeFault(format, v)
	if writes {
		l.failed(stored)
	}
	why, reads := readFault(format, v)
	if reads {
		select {
		case l.unread <- why:
		default:
		}
	}
	return writes || reads
}

// ofClient is how lines about a connection begin (nats-server: client.go, initClient).
var ofClient = regexp.MustCompile(`^\S+ - cid:\d`)

// wrongToken says whether somebody did not show the token (nats-server: client.go,
// authViolation).
func wrongToken(format string, v []any) bool {
	if !ofClient.MatchString(format) {
		return false
	}
	return len(v) == 2 && v[0] == server.ErrAuthentication || len(v) == 0 && strings.HasSuffix(format, " - "+server.ErrAuthentication.Error())
}

func (l *serverLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad
}

// What the server says of itself is found in its log by the format that its code gives,
// which has to be the whole of it. Never by the text of a line: there stands also what
// strangers have sent, and in the formats of lines about clients what they call
// themselves.

// ourStreams are those whose faults matter: anyone with the token may create others.
var ourStreams = [...]string{jobsStream, buriedStream}

func ours(stream any) bool { return slices.Contains(ourStreams[:], fmt.Sprint(stream)) }

// writeFault finds in a line of the server's log why it can store nothing from now on
// (nats-server: filestore.go, fileStore.setWriteErr; stream.go, setWriteErrLocked, and
// where JetStream is disabled).
func writeFault(format string, args []any) (why string, ok bool) {
	switch format {
	case "JetStream stream '%s > %s' critical write error: %v":
		ok = len(args) == 3 && ours(args[1])
	case "Filesystem permission denied while writing msg, disabling JetStream: %v":
		ok = len(args) == 1
	default:
		for _, name := range ourStreams {
			ok = ok || len(args) == 1 && format == "Filestore ["+name+"] Critical write error: %v"
		}
	}
	if !ok {
		return "", false
	}
	return fmt.Sprint(args[len(args)-1]), true
}

// readFault finds in a line of the server's log why it cannot read a job. It serves
// none of that tube then, and looks at its files only when it starts (nats-server:
// consumer.go, loopAndGatherMsgs).
func readFault(format string, args []any) (why string, ok bool) {
	const begins = "Received an error looking up message "
	switch format {
	case begins + "with sequence %d for consumer '%s > %s > %s': %v":
		ok = len(args) == 5
	case begins + "for consumer '%s > %s > %s': %v":
		ok = len(args) == 4
	}
	if !ok || !ours(args[len(args)-3]) {
		return "", false
	}
	return strings.TrimPrefix(fmt.Sprintf(format, args...), begins), true
}

// writeFaultOf says whether an answer of the server about its health says that it
// cannot write one of our streams.
func writeFaultOf(health string) bool {
	for _, name := range ourStreams {
		if strings.HasPrefix(health, "JetStream stream '$G > "+name+"' write error: ") {
			return true
		}
	}
	return false
}

// limitedLog logs what others can make happen as often as they like: some lines at once,
// then one in a while that says how many were like it, or not logged at all, since the
// last. A line that is the same as the last counts as one of those.
type limitedLog struct {
	log   *slog.Logger
	every time.Duration
	limit *rate.Limiter

	mu    sync.Mutex
	last  line
	kept  int         // since the last line
	next  line        // the last one kept
	timer *time.Timer // runs for a while after each line
	ended bool
}

// line is one of a log.
type line struct {
	level slog.Level
	text  string
	queue string // "": not said
	err   string // "": none
}

func newLimitedLog(log *slog.Logger, every time.Duration, atOnce int) *limitedLog {
	return &limitedLog{log: log, every: every, limit: rate.NewLimiter(rate.Every(every), atOnce)}
}

// note logs a line, or counts it.
func (s *limitedLog) note(l line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || (s.timer == nil || l != s.last) && s.limit.Allow() {
		s.write(l)
	} else {
		s.next = l
		s.kept++
	}
	if s.timer == nil && !s.ended {
		s.timer = time.AfterFunc(s.every, s.tell)
	}
}

// tell logs the last of the lines that were kept back, if there are any.
func (s *limitedLog) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
	case s.kept == 0:
		s.timer = nil
	default:
		if s.limit.Allow() {
			s.kept--
			s.write(s.next)
		}
		s.timer = time.AfterFunc(s.every, s.tell)
	}
}

func (s *limitedLog) write(l line) {
	var attrs []slog.Attr
	if l.queue != "" {
		attrs = append(attrs, slog.String("queue", l.queue))
	}
	if l.err != "" {
		attrs = append(attrs, slog.String("err", l.err))
	}
	if s.kept > 0 {
		attrs = append(attrs, slog.Int("suppressed", s.kept))
	}
	s.log.LogAttrs(context.Background(), l.level, l.text, attrs...)
	s.last, s.kept = l, 0
}

// end tells what was kept back; later lines are not limited, of which there are few.
func (s *limitedLog) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.kept > 0 {
		s.kept--
		s.write(s.next)
	}
	s.ended = true
}

// maxLine is how much of what others have a part in goes into a line of the log.
const maxLine = 500

// brief is a text for one line of the log.
func brief(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		text = strconv.Quote(text[:min(len(text), maxLine)])
	}
	if len(text) <= maxLine {
		return text
	}
	const more = "…"
	return strings.ToValidUTF8(text[:maxLine-len(more)], "") + more
}
