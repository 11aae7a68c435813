package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Fault is one thing wrong with a configuration.
type Fault struct {
	File  string // as given to Load; "" for flags
	Line  int    // from 1; 0 when no line can be named
	Key   string // "apps[1].cert", "defaults.workers", "--cert"; "" for the file as a whole
	Value string // what the file says there, cut to a readable length; "" when that does not help or could be secret
	Msg   string // what is wrong and what to do
	Err   error  // the cause, if there is one to unwrap
}

// Error is one line: file:line: key "value": what is wrong and what to do.
func (f Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			b.WriteString(":" + strconv.Itoa(f.Line))
		}
		b.WriteString(": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key)
		if f.Value != "" {
			b.WriteString(" " + strconv.Quote(f.Value))
		}
		b.WriteString(": ")
	}
	b.WriteString(f.Msg)
	return b.String()
}

// Unwrap returns the cause, or nil.
func (f Fault) Unwrap() error { return f.Err }

// Faults is everything wrong with a configuration, in the order of its lines.
type Faults []Fault

// Error is one line per fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults one by one.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// sorted returns the faults in the order of their lines, each once: a fault of
// a default shows up again in every app that inherits it.
func (fs Faults) sorted() Faults {
	type identity struct {
		line            int
		key, value, msg string
	}
	seen := make(map[identity]bool, len(fs))
	out := make(Faults, 0, len(fs))
	for _, f := range fs {
		id := identity{f.Line, f.Key, f.Value, f.Msg}
		if !seen[id] {
			seen[id] = true
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return out
}

// maxShown bounds the part of a value that a fault quotes.
const maxShown = 60

// shown is text as a fault may quote it: short, valid UTF-8, and without the
// user and password of a URL.
func shown(text string) string {
	if at := strings.LastIndexByte(text, '@'); at >= 0 && strings.Contains(text[:at], ":") {
		scheme, _, ok := strings.Cut(text[:at], "://")
		if ok {
			scheme += "://"
		} else {
			scheme = ""
		}
		text = scheme + redacted + text[at:]
	}
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= maxShown {
		return text
	}
	tail := 0
	if i := strings.LastIndexByte(text, '/'); i >= 0 {
		tail = min(len(text)-i, maxShown*3/4) // of a path the file's name tells most
	}
	return strings.ToValidUTF8(text[:maxShown-tail], "") + "…" + strings.ToValidUTF8(text[len(text)-tail:], "")
}
