package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"propeller/apnsconn"
	"propeller/httpapi"
	"propeller/internal/text"
	"propeller/supervisor"
)

// printStatus prints a table of the apps, those that are not ready in front, and below it
// what there is to say of them. A note is one line, however long: a command in it can be
// copied.
func printStatus(out io.Writer, all httpapi.Apps, now time.Time) error {
	apps := slices.SortedStableFunc(slices.Values(all.Apps), func(a, b httpapi.App) int {
		return cmp.Compare(rank(&a), rank(&b))
	})
	var b strings.Builder
	printTable(&b, apps, now)
	parts := make([][]string, 4)
	for i := range apps {
		for _, note := range statusNotes(&apps[i], now) {
			parts[0] = append(parts[0], text.Line(apps[i].Topic+": "+note))
		}
		parts[1] = append(parts[1], statusFailures(&apps[i], now)...)
	}
	parts[2] = refusedReload(all.RefusedReload, now)
	for _, t := range all.UnknownTubes {
		parts[3] = append(parts[3], fmt.Sprintf("no app works on tube %s: %d ready, %d delayed, %d buried", text.Line(t.Tube), t.Ready+t.Reserved, t.Delayed, t.Buried))
	}
	for _, lines := range parts {
		if len(lines) > 0 {
			b.WriteString("\n" + strings.Join(lines, "\n") + "\n")
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func rank(a *httpapi.App) int {
	if a.Ready {
		return 1
	}
	return 0
}

func printTable(b *strings.Builder, apps []httpapi.App, now time.Time) {
	if len(apps) == 0 {
		b.WriteString("no apps\n")
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "APP\tSTATE\tSENT\tP50\tP99\tFLIGHT\tCONN\tREADY\tDELAY\tBURIED\tCERT")
	for i := range apps {
		a := &apps[i]
		p50, p99, ready, delayed, buried := "-", "-", "-", "-", "-"
		if l := a.Latency; l != nil {
			p50, p99 = text.Millis(l.P50), text.Millis(l.P99)
		}
		if q := a.Queue; q != nil {
			ready, delayed, buried = text.Count(a.Waiting()), text.Count(q.Delayed), text.Count(q.Buried)
		}
		expiry, _ := text.Expiry(a.CredentialExpires, now)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d/%d\t%s\t%s\t%s\t%s\n", text.Line(a.Topic), a.State.Word(), text.Count(a.Pushes.Delivered()), p50, p99,
			text.Count(a.InFlight()), a.Connected(), len(a.Workers), ready, delayed, buried, cmp.Or(expiry, "-"))
	}
	_ = w.Flush() // to a Builder: cannot fail
}

// statusNotes say why an app is not as it should be.
func statusNotes(a *httpapi.App, now time.Time) (notes []string) {
	since := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return " (for " + text.Age(now.Sub(t)) + ")"
	}
	waits := slices.IndexFunc(a.Workers, func(w httpapi.Worker) bool { return w.Waiting != "" })
	switch {
	case a.Reason != "":
		notes = append(notes, supervisor.Health{State: a.State, Reason: a.Reason}.String()+since(a.Since))
		if help := apnsconn.Explain(a.Reason); help != "" {
			notes = append(notes, help)
		}
	case waits >= 0:
		notes = append(notes, fmt.Sprintf("worker %d waits: %s", waits, a.Workers[waits].Waiting))
	}
	if a.KeepsCredential() {
		notes = append(notes, "its new credential cannot be used, so it keeps the one it has: "+a.CredentialFault)
	}
	if q := a.Queue; q != nil && q.Incomplete != "" {
		notes = append(notes, "the queue's numbers are incomplete: "+q.Incomplete)
	}
	switch h := a.Webhook; {
	case h == nil:
	case h.Down:
		notes = append(notes, "webhook takes no records: "+h.Reason+since(h.Since))
	case h.Stalled != "":
		notes = append(notes, "webhook stalls: "+h.Stalled)
	}
	if n := a.Pushes.PossibleDuplicates; n > 0 {
		notes = append(notes, text.Count(n)+" possible duplicates since the daemon's start")
	}
	return notes
}

// maxFailures is how many failures of an app are shown: what fits beside the
// rest in a small window.
const maxFailures = 10

// statusFailures are the pushes of an app that last went wrong, a line each. Only the
// answer about one app has them: --topic.
func statusFailures(a *httpapi.App, now time.Time) []string {
	if len(a.Failures) == 0 {
		return nil
	}
	lines := []string{"the last failures:"}
	for _, f := range a.Failures[:min(len(a.Failures), maxFailures)] {
		why := strings.TrimPrefix(f.Reason, f.Class+": ")
		lines = append(lines, fmt.Sprintf("%8s ago  %-11s  token %s  %s", text.Age(now.Sub(f.At)), f.Class, text.Line(f.Token), text.Line(why)))
	}
	return lines
}

// refusedReload says that the last reload was refused, and why; nothing if it was not.
func refusedReload(r *httpapi.RefusedReload, now time.Time) []string {
	if r == nil {
		return nil
	}
	head := "the last reload, " + text.Age(now.Sub(r.At)) + " ago, was refused, and nothing is changed"
	if r.Fault == "" {
		return []string{head}
	}
	lines := []string{head + ":"}
	for fault := range strings.Lines(strings.TrimSpace(r.Fault)) {
		lines = append(lines, "  "+text.Line(strings.TrimSuffix(fault, "\n")))
	}
	return lines
}
