package jetstream

import (
	"fmt"
	"log/slog"
	"sync"
)

// serverLog passes on what the server warns of.
type serverLog struct {
	log    *slog.Logger
	failed func(why string) // the server stores nothing from now on; must not wait
	unread chan<- string    // gets why it cannot read a job

	mu  sync.Mutex
	bad string // the last error
}

func newServerLog(log *slog.Logger, failed func(string), unread chan<- string) *serverLog {
	return &serverLog{log: log, failed: failed, unread: unread}
}

func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("queue server: " + fmt.Sprintf(format, v...))
	l.judge(format, v)
}

func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.mu.Lock()
	l.bad = text
	l.mu.Unlock()
	l.log.Error("queue server: " + text)
	l.judge(format, v)
}

// judge looks whether the server says that it does not work.
func (l *serverLog) judge(format string, v []any) {
	if why, ok := writeFault(format, v); ok {
		l.failed(why)
	}
	if why, ok := readFault(format, v); ok {
		select {
		case l.unread <- why:
		default:
		}
	}
}

// Fatalf logs: the process is not the server's to end.
func (l *serverLog) Fatalf(format string, v ...any) { l.Errorf(format, v...) }

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

func (l *serverLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad
}
