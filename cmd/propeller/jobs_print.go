package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"propeller/httpapi"
	"propeller/internal/rawjson"
	"propeller/internal/text"
)

// maxReason is how many characters of a reason are in the list; jobs show has all of it.
const maxReason = 40

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
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSINCE\tCLASS\tTOKEN\tREASON")
	for _, j := range l.Jobs {
		class := j.Class
		if j.Unverified {
			class += "?" // it may be gone
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", text.Line(j.ID), text.Age(now.Sub(j.Buried)), cmp.Or(text.Line(class), "-"), cmp.Or(text.Line(j.Token), "-"), text.Cut(text.Line(j.Reason), maxReason))
	}
	if err := w.Flush(); err != nil {
		return err
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
			fmt.Fprintf(&b, "%-8s %s\n", key, text.Line(value))
		}
	}
	line("job", j.ID)
	line("reason", j.Reason)
	line("class", j.Class)
	line("status", fmt.Sprint(j.Status))
	line("buried", fmt.Sprintf("%s (%s ago)", j.Buried.Local().Format(time.DateTime), text.Age(now.Sub(j.Buried))))
	line("put", text.Age(time.Duration(j.Age)*time.Second)+" ago")
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
	fmt.Fprintf(&b, "body\n  %s\n\n", text.Printable(body))
	_, err := io.WriteString(out, b.String())
	return err
}
