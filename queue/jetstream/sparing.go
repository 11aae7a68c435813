package jetstream

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

// sparing logs what others can make happen as often as they like: some lines at once,
// then one in a while that says how many were like it, or not logged at all, since the
// last. A line that is the same as the last counts as one of those.
type sparing struct {
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

func newSparing(log *slog.Logger, every time.Duration, atOnce int) *sparing {
	return &sparing{log: log, every: every, limit: rate.NewLimiter(rate.Every(every), atOnce)}
}

// note logs a line, or counts it.
func (s *sparing) note(l line) {
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
func (s *sparing) tell() {
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

func (s *sparing) write(l line) {
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
func (s *sparing) end() {
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
