package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// screen shows what happens so that a person can follow it: a line an event,
// what it is about in a colour of its own.
type screen struct {
	colour bool

	mu     sync.Mutex
	out    io.Writer
	counts map[string]int // lines by their first word
}

func newScreen(out io.Writer, colour bool) *screen {
	return &screen{out: out, colour: colour, counts: make(map[string]int)}
}

// colourful says whether colours are welcome: on a terminal, unless the
// environment has NO_COLOR (no-color.org).
func colourful(out io.Writer) bool {
	return terminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// SGR codes (ECMA-48 8.3.117).
const (
	grey   = "90"
	red    = "31"
	green  = "32"
	yellow = "33"
	purple = "35"
	cyan   = "36"
)

// colours are those of the first words of lines.
var colours = map[string]string{
	"put": cyan, "page": cyan, "delivered": green, "feedback": purple, "token": purple,
	"throttled": yellow, "unavailable": yellow, "unknown": yellow, "not_sent": yellow, "warn": yellow,
	"rejected": red, "buried": red, "error": red, "credential": red,
	"info": grey,
}

func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// event shows a line: its first word, the app, if it is of one, and a text.
func (s *screen) event(word, topic, text string) {
	line := s.paint(grey, time.Now().Format(time.TimeOnly)) + "  " +
		s.paint(colours[word], fmt.Sprintf("%-11s", word)) + " "
	if topic != "" {
		line += fmt.Sprintf("%-16s  ", topic)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[word]++
	fmt.Fprintln(s.out, line+text)
}

func (s *screen) text(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	io.WriteString(s.out, text)
}

// summary says in a line what has been shown.
func (s *screen) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	return fmt.Sprintf("%d jobs put; of the pushes %d delivered, %d to dead tokens, %d times put off and tried again; %d jobs buried.",
		c["put"], c["delivered"], c["token"], c["throttled"]+c["unavailable"], c["buried"])
}

// handler shows the daemon's log on the screen.
func (s *screen) handler() slog.Handler { return &screenHandler{s: s} }

type screenHandler struct {
	s     *screen
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (h *screenHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (h *screenHandler) WithAttrs(more []slog.Attr) slog.Handler {
	return &screenHandler{h.s, append(h.attrs[:len(h.attrs):len(h.attrs)], more...)}
}

// WithGroup implements slog.Handler. The daemon's log has no groups.
func (h *screenHandler) WithGroup(string) slog.Handler { return h }

// Handle implements slog.Handler.
func (h *screenHandler) Handle(_ context.Context, r slog.Record) error {
	f := make(map[string]string)
	var rest []string
	note := func(a slog.Attr) bool {
		if f[a.Key] = a.Value.String(); a.Key != "topic" {
			rest = append(rest, a.Key+"="+f[a.Key])
		}
		return true
	}
	for _, a := range h.attrs {
		note(a)
	}
	r.Attrs(note)
	switch r.Message {
	case "http listens":
		h.s.event("page", "", fmt.Sprintf("http://%s/ shows all of this in a browser, and lets you act", f["addr"]))
	case "push":
		h.s.event(f["class"], f["topic"], pushText(f))
	case "job buried":
		why := f["reason"]
		if f["status"] != "" && f["status"] != "0" {
			why = f["status"] + " " + why
		}
		h.s.event("buried", f["topic"], fmt.Sprintf("job %s: set aside, see `propeller jobs`: %s", f["job"], why))
	default:
		h.s.event(strings.ToLower(r.Level.String()), f["topic"], strings.Join(append([]string{r.Message}, rest...), " "))
	}
	return nil
}

// meanings say what follows from a push's class.
var meanings = map[string]string{
	"token":       ": not sent to again",
	"throttled":   ": tried again later",
	"unavailable": ": tried again later",
	"unknown":     ": tried again, and counted as a possible duplicate",
}

// pushText tells of a push that has ended.
func pushText(f map[string]string) string {
	text := fmt.Sprintf("job %s to %s…: %s", f["job"], f["token"], strings.TrimSpace(f["status"]+" "+f["reason"]))
	return text + meanings[f["class"]] + " (" + f["ms"] + " ms)"
}
