// Package flood bounds log lines that a peer can cause without end, for example a queue server
// that serves the same job again and again.
package flood

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Of one kind of line, at least leastBurst may come at once, and perSecond in the long run.
const (
	leastBurst = 100
	perSecond  = 10
)

// Lines writes lines to a log. Lines beyond the bounds are at level debug, and the next line of
// their kind says how many there were. It is safe for concurrent use.
type Lines struct {
	log   *slog.Logger
	burst int

	mu    sync.Mutex
	kinds map[string]*kind // by message; there are few
}

type kind struct {
	limit *rate.Limiter
	left  int // lines left out since the last one
}

// New returns Lines for a log. burst is how many lines of one kind may come at once; it is at
// least 100.
func New(log *slog.Logger, burst int) *Lines {
	return &Lines{log: log, burst: max(leastBurst, burst), kinds: make(map[string]*kind)}
}

// Log writes a line. msg must be one of a few constant texts.
func (l *Lines) Log(level slog.Level, msg string, attrs ...any) {
	left, ok := l.take(msg)
	switch {
	case !ok:
		level = slog.LevelDebug
	case left > 0:
		attrs = append(attrs, "suppressed", left)
	}
	l.log.Log(context.Background(), level, msg, attrs...)
}

func (l *Lines) take(msg string) (left int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[msg]
	if k == nil {
		k = &kind{limit: rate.NewLimiter(perSecond, l.burst)}
		l.kinds[msg] = k
	}
	if !k.limit.AllowN(time.Now(), 1) {
		k.left++
		return 0, false
	}
	left, k.left = k.left, 0
	return left, true
}
