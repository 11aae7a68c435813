// Package text writes durations, numbers and foreign strings for people: on the command line and on the page alike.
package text

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Age is a duration as one number.
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " d"
}

// Millis is a number of milliseconds, with the digits that matter.
func Millis(ms float64) string {
	digits, unit := 0, " ms"
	switch {
	case ms >= 10_000:
		ms, unit = ms/1000, " s"
	case ms >= 1000:
		ms, unit, digits = ms/1000, " s", 1
	case ms < 10:
		digits = 1
	}
	return strconv.FormatFloat(ms, 'f', digits, 64) + unit
}

// Expiry says when a certificate expires; "" without one. urgency is "now", "soon" or
// "": renewing takes weeks.
func Expiry(at, now time.Time) (when, urgency string) {
	if at.IsZero() {
		return "", ""
	}
	left := at.Sub(now)
	days := int(left / (24 * time.Hour))
	switch {
	case left <= 0:
		return "expired", "now"
	case days < 1:
		return "today", "now"
	case days < 7:
		return "in " + Plural(days, "day"), "now"
	case days < 30:
		return "in " + Plural(days, "day"), "soon"
	}
	return at.UTC().Format(time.DateOnly), ""
}

// Count is a number with thousands separators (commas) if it has five digits or more.
func Count[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && n >= 10_000; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Plural counts things: 1 app, 2 apps.
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Count(n) + " " + what + "s"
}

// Cut is s in at most n characters.
func Cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// Line is s made safe as part of a line: it comes from producers and APNs, and must not
// look like another line.
func Line(s string) string {
	return Printable(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ReplaceAll(s, "\n", "; ")))
}

// Printable is s without terminal control characters: a job's body may be
// anything.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

var (
	// hexRun is what looks like a device token wherever it stands: in one piece, or in
	// groups of four bytes, as iOS described the token before version 13.
	hexRun = regexp.MustCompile(`[0-9A-Fa-f]{32,}|[0-9A-Fa-f]{8}(?:\s+[0-9A-Fa-f]{8}){3,}`)
	// tokenMember is what a job says under token or tokens, well-formed or not.
	// Each beginning of one is one, also if it has no end: else the text would be read
	// to its end again and again.
	tokenMember = regexp.MustCompile(`"tokens?"\s*:\s*("(?:[^"\\]|\\.)*(?:"|\\?\z)|\[[^\]]*(?:\]|\z))`)
	longString  = regexp.MustCompile(`"((?:[^"\\]|\\.){8})(?:[^"\\]|\\.)+(?:"|\\?\z)`)
)

// CutTokens leaves 8 characters of each device token in a job, as in the log: of the
// strings under token and tokens, and of whatever else looks like one.
func CutTokens(job string) string {
	job = tokenMember.ReplaceAllStringFunc(job, func(member string) string {
		name, value, _ := strings.Cut(member, ":")
		return name + ":" + longString.ReplaceAllString(value, `"$1…"`)
	})
	return hexRun.ReplaceAllStringFunc(job, func(run string) string { return run[:8] + "…" })
}
