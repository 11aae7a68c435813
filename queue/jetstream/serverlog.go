package jetstream

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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

	faults  *sparing // of the server itself
	clients *sparing
	wrong   *sparing // tokens
	others  *sparing

	mu  sync.Mutex
	bad string // the last error
}

func newServerLog(log *slog.Logger, failed func(string), unread chan<- string) *serverLog {
	return &serverLog{
		failed: failed, unread: unread,
		faults:  newSparing(log, linesEvery, linesAtOnce),
		clients: newSparing(log, linesEvery, linesAtOnce),
		wrong:   newSparing(log, wrongEvery, 1),
		others:  newSparing(log, linesEvery, linesAtOnce),
	}
}

// end tells what was kept back.
func (l *serverLog) end() {
	for _, s := range []*sparing{l.faults, l.clients, l.wrong, l.others} {
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
		l.wrong.note(line{level: slog.LevelWarn, text: "queue server: no token, or a wrong one"})
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
