package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"propeller/apnsconn"
	"propeller/config"
	"propeller/httpapi"
	"propeller/internal/text"
	"propeller/supervisor"
	"propeller/worker"
)

const statusLong = `status shows each app of the running daemon: its state and why, pushes, latency,
connections, queue and certificate. Apps that are not ready come first.

It asks the daemon through the socket in its state_dir, or over HTTP with --url.

Exit status: 0 if all apps are ready; 1 if some are not (broken, guarded, without
their queue, stalled, unreachable, failing); 2 if the daemon could not be asked,
for the reason that the error gives. To keep watching: watch propeller status.`

// exitUnknown is the exit status of status when the daemon cannot be asked. It
// is that of wrong usage, too: in neither case anything is known of the apps.
const exitUnknown = exitUsage

// askTime bounds a question to the daemon, which has the answer at hand.
const askTime = 10 * time.Second

// statusFlags are the flags of status.
type statusFlags struct {
	config, state     string
	url, key, keyFile string
	appFlags
	json bool
}

func newStatus() *cobra.Command {
	var o statusFlags
	cmd := &cobra.Command{Use: "status", Short: "show the apps of the running daemon, and which are in trouble", Long: statusLong}
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", defaultFile, "configuration `file`, for its state_dir")
	f.StringVar(&o.state, "state-dir", "", "the daemon's state_dir, instead of the configuration's (`folder`)")
	f.StringVar(&o.url, "url", "", "ask at this `URL` instead: http://host:port, https://…, or unix:/path")
	f.StringVar(&o.key, "key", "", "`token` of the key to show at the URL; others can see it in the process list")
	f.StringVar(&o.keyFile, "key-file", "", "the same, read from a `file`")
	o.add(cmd, false, "an app, for this one only, with its last failures")
	f.BoolVar(&o.json, "json", false, "print JSON as GET /v1/apps has it")
	cmd.MarkFlagsMutuallyExclusive("url", "state-dir")
	cmd.MarkFlagsMutuallyExclusive("key", "key-file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.url == "" && (o.key != "" || o.keyFile != "") {
			return usageError{errors.New("a key is for --url: the socket in state_dir needs none")}
		}
		c, err := o.client(cmd.Flags().Changed("config"))
		if err != nil {
			return statusError{exitUnknown, err}
		}
		defer c.Close()
		apps, err := o.ask(context.Background(), c)
		if err != nil {
			return statusError{exitUnknown, err}
		}
		if o.json {
			err = printJSON(cmd.OutOrStdout(), apps)
		} else {
			err = printStatus(cmd.OutOrStdout(), apps, time.Now())
		}
		if err != nil {
			return err
		}
		if slices.ContainsFunc(apps.Apps, func(a httpapi.App) bool { return !a.Ready }) {
			return statusError{status: exitFailed} // the table has said why
		}
		return nil
	}
	return cmd
}

// client finds the way to the daemon. named says that -c was given.
func (o *statusFlags) client(named bool) (*httpapi.Client, error) {
	if o.url != "" {
		key, err := o.secret()
		if err != nil {
			return nil, err
		}
		return httpapi.ForURL(o.url, key)
	}
	dir := o.state
	if dir == "" {
		if !named && missing(o.config) {
			return nil, errors.New("no propeller.yaml in this folder: name the file with -c, the daemon's folder with --state-dir, or its address with --url")
		}
		cfg, err := config.Load(o.config, config.Options{WithoutCredentials: true})
		if err != nil {
			return nil, fmt.Errorf("%w\na running daemon goes on with the configuration it read before: to ask it, name its folder with --state-dir, or its address with --url", err)
		}
		if dir = cfg.StateDir; dir == "" {
			return nil, fmt.Errorf("%s has no state_dir, where the daemon's socket would be: give it one and restart the daemon, name the daemon's folder with --state-dir, or its address with --url", o.config)
		}
	}
	return httpapi.ForState(dir), nil
}

// secret is the key to show; "" without one.
func (o *statusFlags) secret() (string, error) {
	if o.keyFile == "" {
		return o.key, nil
	}
	text, err := os.ReadFile(o.keyFile)
	if err != nil {
		return "", fmt.Errorf("--key-file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// ask asks for the apps, or the one app. Its error says what to do.
func (o *statusFlags) ask(ctx context.Context, c *httpapi.Client) (apps httpapi.Apps, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if o.said() != "" {
		apps.Apps = make([]httpapi.App, 1)
		apps.Apps[0], err = c.App(ctx, o.said())
	} else {
		apps, err = c.Apps(ctx)
	}
	if err != nil {
		return httpapi.Apps{}, o.advise(err)
	}
	return apps, nil
}

// advise adds to an error what to do about it.
func (o *statusFlags) advise(err error) error {
	problem, answered := errors.AsType[*httpapi.Problem](err)
	switch {
	case answered && problem.Status == http.StatusUnauthorized && o.keyFile != "":
		return fmt.Errorf("the daemon refuses the key in the file %q of --key-file: %w", o.keyFile, err)
	case answered && problem.Status == http.StatusUnauthorized && o.key != "":
		return fmt.Errorf("the daemon refuses the key of --key: %w", err)
	case answered && problem.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w: give one with --key-file", err)
	case answered:
		return err
	case errors.Is(err, httpapi.ErrNoDaemon):
		return fmt.Errorf("%w: start it, or name another daemon with --state-dir or --url", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the socket is for the daemon's user: run this as that user, or use --url", err)
	case o.url != "":
		return fmt.Errorf("%w: is the daemon running, and is this the address of its http.listen?", err)
	}
	return err
}

// statusError ends the program with a status of its own.
type statusError struct {
	status int
	err    error // nil: all has been said
}

func (e statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e statusError) Unwrap() error { return e.err }

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
			parts[0] = append(parts[0], text.Line(apps[i].Name+": "+note))
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

// appLabel is the app's name, with its topic if that is another.
func appLabel(a *httpapi.App) string {
	if a.Name == a.Topic {
		return a.Name
	}
	return a.Name + " (" + a.Topic + ")"
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d/%d\t%s\t%s\t%s\t%s\n", text.Line(appLabel(a)), a.Word(), text.Count(a.Pushes.Delivered()), p50, p99,
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
	if slices.ContainsFunc(a.Workers, func(w httpapi.Worker) bool { return w.Limit == string(worker.MaxRateReached) }) {
		notes = append(notes, string(worker.MaxRateReached))
	}
	if a.KeepsCredential() {
		notes = append(notes, "its new credential cannot be used, so it keeps the old one: "+a.CredentialFault)
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
		notes = append(notes, text.Count(n)+" possible duplicates since startup")
	}
	return notes
}

// maxFailures is how many failures of an app are shown: what fits beside the
// rest in a small window.
const maxFailures = 10

// statusFailures are the pushes of an app that last went wrong, a line each. Only the
// answer about one app has them: --app.
func statusFailures(a *httpapi.App, now time.Time) []string {
	if len(a.Failures) == 0 {
		return nil
	}
	lines := []string{"last failures:"}
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
