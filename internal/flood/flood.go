// Package flood bounds lines of a log that a peer can cause without end, such as a queue
// server that serves the same job again and again.
package flood

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// AtOnce is how many lines of one kind there may be at least at one go; after them
// follow EverySecond.
const (
	AtOnce      = 100
	EverySecond = 10
)

// Lines writes lines to a log. Those beyond the bounds are at level debug, and their
// number is in the next line of their kind. It is safe for concurrent use.
type Lines struct {
	log    *slog.Logger
	atOnce int

	mu    sync.Mutex
	kinds map[string]*kind // by message, of which there are few
}

type kind struct {
	limit *rate.Limiter
	left  int // lines that were not written since the last one
}

// New returns the lines of a log, of which so many of one kind may come at one go, but
// AtOnce at least.
func New(log *slog.Logger, atOnce int) *Lines {
	return &Lines{log: log, atOnce: max(AtOnce, atOnce), kinds: make(map[string]*kind)}
}

// Log writes a line. msg must be one of a few texts.
func (l *Lines) Log(level slog.Level, msg string, attrs ...any) {
	left, ok := l.take(msg)
	switch {
	case !ok:
		level = slog.LevelDebug
	case left > 0:
		attrs = append(attrs, "left_out", left)
	}
	l.log.Log(context.Background(), level, msg, attrs...)
}

func (l *Lines) take(msg string) (left int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[msg]
	if k == nil {
		k = &kind{limit: rate.NewLimiter(EverySecond, l.atOnce)}
		l.kinds[msg] = k
	}
	if !k.limit.AllowN(time.Now(), 1) {
		k.left++
		return 0, false
	}
	left, k.left = k.left, 0
	return left, true
}
