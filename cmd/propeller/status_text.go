package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"propeller/httpapi"
)

// short is a number in at most 5 characters, up to a billion.
func short(n float64) string {
	switch {
	case n < 9.95 && n != float64(int64(n)):
		return fmt.Sprintf("%.1f", n)
	case n < 9999.5:
		return fmt.Sprintf("%.0f", n)
	case n < 999_500:
		return fmt.Sprintf("%.0fk", n/1000)
	case n < 9_950_000:
		return fmt.Sprintf("%.1fM", n/1e6)
	}
	return fmt.Sprintf("%.0fM", n/1e6)
}

// quantile is the median, or with high the 99th percentile.
func quantile(l *httpapi.Latency, high bool) string {
	if l == nil {
		return "-"
	}
	ms := l.P50
	if high {
		ms = l.P99
	}
	if ms >= 999.5 {
		return short(ms/1000) + "s"
	}
	return short(ms) + "ms"
}

// expiry is when a certificate ends; "-" without one.
func expiry(at, now time.Time) string {
	switch left := at.Sub(now); {
	case at.IsZero():
		return "-"
	case left <= 0:
		return "over"
	default:
		return ago(left)
	}
}

// pad fills text up to width, on its left side if right is set.
func pad(text string, width int, right bool) string {
	fill := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
	if right {
		return fill + text
	}
	return text + fill
}

// cutFront is the end of s in at most n characters: bundle ids begin alike.
func cutFront(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return "…" + string(r[len(r)-n+1:])
}

// wrap breaks text at blanks into lines of at most width characters; a longer
// word is broken, too.
func wrap(text string, width int) []string {
	width = max(width, 1)
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for utf8.RuneCountInString(word) > width {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:width])), string(r[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
