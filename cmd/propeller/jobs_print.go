package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"propeller/httpapi"
	"propeller/internal/rawjson"
)

// listWidth is what a line of the list keeps to: a terminal's width that
// everybody has. Long ids take more.
const listWidth = 80

// minReason is how much of a reason is shown whatever the ids are.
const minReason = 20

// maxShown bounds the body of a job that is printed, in bytes; --json has all of it.
const maxShown = 256 << 10

// printBuried prints a list as a table.
func printBuried(out io.Writer, l httpapi.BuriedList, now time.Time) error {
	unread := ""
	if !l.Complete && !l.More {
		unread = "not all buried jobs have been read from the queue yet: there may be more\n"
	}
	if len(l.Jobs) == 0 {
		_, err := io.WriteString(out, "no buried jobs\n"+unread)
		return err
	}
	rows := [][]string{{"ID", "SINCE", "CLASS", "TOKEN", "REASON"}}
	for _, j := range l.Jobs {
		class := j.Class
		if j.Unverified {
			class += "?" // it may be gone
		}
		rows = append(rows, []string{cell(j.ID), ago(now.Sub(j.Buried)), orDash(cell(class)), orDash(cell(j.Token)), cell(j.Reason)})
	}
	widths := make([]int, len(rows[0])-1)
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	left := listWidth
	for _, w := range widths {
		left -= w + 2
	}
	var b strings.Builder
	for _, row := range rows {
		for i, w := range widths {
			fmt.Fprintf(&b, "%-*s  ", w, row[i])
		}
		b.WriteString(cutText(row[len(widths)], max(left, minReason)) + "\n")
	}
	if l.More {
		fmt.Fprintf(&b, "%d shown, there are more\n", len(l.Jobs))
	}
	b.WriteString(unread)
	_, err := io.WriteString(out, b.String())
	return err
}

// printJob prints one job with its body.
func printJob(out io.Writer, j httpapi.BuriedJob, now time.Time) error {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" && value != "0" {
			fmt.Fprintf(&b, "%-8s %s\n", key, cell(value))
		}
	}
	line("job", j.ID)
	line("reason", j.Reason)
	line("class", j.Class)
	line("status", fmt.Sprint(j.Status))
	line("buried", fmt.Sprintf("%s (%s ago)", j.Buried.Local().Format(time.DateTime), ago(now.Sub(j.Buried))))
	line("put", ago(time.Duration(j.Age)*time.Second)+" ago")
	line("token", j.Token)
	line("ref", j.Ref)
	line("apns_id", j.APNsID)
	body := j.Body
	if len(j.BodyBase64) > 0 {
		body = fmt.Sprintf("%q", j.BodyBase64)
	}
	if rawjson.Valid([]byte(body)) {
		body = rawjson.Indent(body, "  ", maxShown)
	} else {
		body = strings.ReplaceAll(rawjson.Cut(body, maxShown), "\n", "\n  ") // so that it looks like nothing else
	}
	fmt.Fprintf(&b, "body\n  %s\n\n", printable(body))
	_, err := io.WriteString(out, b.String())
	return err
}

// ago is a duration in its largest unit.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// cutText is s in at most n characters.
func cutText(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// cell is s as a part of a line: it comes from producers and APNs, and must not
// look like another line.
func cell(s string) string { return printable(oneLine(s)) }

// printable is s without what could command a terminal: a job's body may be
// anything.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// hexRun is what looks like a device token wherever it stands: in one piece, or
// in groups of four bytes, as iOS described the token before version 13.
var hexRun = regexp.MustCompile(`[0-9A-Fa-f]{32,}|[0-9A-Fa-f]{8}(?:\s+[0-9A-Fa-f]{8}){3,}`)

// shownToken is how much of a device token is shown, as in the log.
const shownToken = 8

// shortenTokens cuts the device tokens in a job: the strings under token and
// tokens if it is a JSON object, and whatever else looks like one.
func shortenTokens(body string) string {
	var b strings.Builder
	done := 0
	for _, at := range tokenStrings(body) {
		var token string
		if json.Unmarshal([]byte(body[at[0]:at[1]]), &token) != nil || utf8.RuneCountInString(token) <= shownToken {
			continue
		}
		short, err := json.Marshal(string([]rune(token)[:shownToken]) + "…")
		if err != nil {
			continue // a string: cannot be
		}
		b.WriteString(body[done:at[0]])
		b.Write(short)
		done = at[1]
	}
	b.WriteString(body[done:])
	return hexRun.ReplaceAllStringFunc(b.String(), func(s string) string { return s[:shownToken] + "…" })
}

// tokenStrings finds the string literals below the keys token and tokens of the
// object that body is, as far as it is JSON: offsets of the quotes, from and to.
func tokenStrings(body string) (at [][2]int) {
	in := json.NewDecoder(strings.NewReader(body))
	depth, key, inside := 0, true, false // key: of the outermost object, comes next
	for {
		before := int(in.InputOffset())
		t, err := in.Token()
		if err != nil {
			return at
		}
		switch t := t.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
				continue
			}
			if depth--; depth == 1 {
				key = true
			}
		case string:
			if depth == 1 && key {
				inside, key = t == "token" || t == "tokens", false
				continue
			}
			if inside {
				quote := before + strings.IndexByte(body[before:], '"')
				at = append(at, [2]int{quote, int(in.InputOffset())})
			}
			key = key || depth == 1
		default:
			key = key || depth == 1
		}
	}
}
