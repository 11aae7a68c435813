package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"propeller/httpapi"
	"propeller/internal/rawjson"
	"propeller/internal/text"
	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker/buried"
)

const jobsLong = `jobs shows an app's buried jobs with their reasons: the jobs that propeller set
aside because they can never work, or failed for too long. kick sends them again;
delete removes them for good.

It asks the running daemon through the socket in its state_dir. Without a running
daemon it uses the queue itself.`

// jobFlags are the flags of the commands below jobs.
type jobFlags struct {
	appFlags
	config, queue, tube, state string
	reason                     string
	ids                        []string
	limit                      int
	all, json, whole           bool
}

// buriedOps is what the commands need: httpapi.Client is one over the daemon's
// socket, httpapi.Local one on the queue itself.
type buriedOps interface {
	List(ctx context.Context, s httpapi.Selection) (httpapi.BuriedList, error)
	Show(ctx context.Context, id string) (httpapi.BuriedJob, error)
	Kick(ctx context.Context, c httpapi.Choice) (httpapi.Settled, error)
	Delete(ctx context.Context, c httpapi.Choice) (httpapi.Settled, error)
}

func newJobs() *cobra.Command {
	cmd := &cobra.Command{Use: "jobs", Short: "buried jobs: list, show, kick or delete them; move jobs to another queue", Long: jobsLong}
	cmd.RunE = func(*cobra.Command, []string) error {
		return usageError{errors.New("jobs: say which: list, show, kick, delete or move")}
	}
	cmd.AddCommand(
		newJobsCommand("list", "list buried jobs with their reasons", flagReason|flagLimit, (*jobFlags).list),
		newJobsCommand("show", "show buried jobs with their bodies", flagID|flagWhole, (*jobFlags).show),
		newJobsCommand("kick", "send buried jobs again", flagReason|flagLimit|flagID|flagAll, (*jobFlags).kick),
		newJobsCommand("delete", "remove buried jobs for good", flagReason|flagLimit|flagID|flagAll, (*jobFlags).remove),
		newMove(),
	)
	return cmd
}

// The flags that not every command has.
const (
	flagReason = 1 << iota
	flagLimit
	flagID
	flagAll
	flagWhole
)

// newJobsCommand makes one of the commands below jobs.
func newJobsCommand(name, short string, has int, run func(*jobFlags, context.Context, *cobra.Command, buriedOps) error) *cobra.Command {
	var o jobFlags
	cmd := &cobra.Command{Use: name, Short: short, Args: noArgs}
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", defaultFile, "configuration `file`")
	f.StringVar(&o.queue, "queue", "", "queue `URL`, instead of the configuration's; asks no daemon, unless the queue is inside it")
	o.add(cmd, true, "the app (this or --topic is required)")
	f.StringVar(&o.tube, "tube", "", "tube `name`, instead of the configuration's; asks no daemon")
	f.StringVar(&o.state, "state-dir", "", "state_dir of the daemon, a `folder`, instead of the configuration's")
	f.BoolVar(&o.json, "json", false, "print JSON")
	for flag, define := range map[int]func(){
		flagReason: func() { f.StringVar(&o.reason, "reason", "", "jobs with this `text` in their reason or class") },
		flagLimit: func() {
			f.IntVar(&o.limit, "limit", 0, fmt.Sprintf("at most `n`, up to %d (default)", httpapi.MaxJobs))
		},
		flagID:    func() { f.StringSliceVar(&o.ids, "id", nil, "job with this `id`; may be repeated") },
		flagAll:   func() { f.BoolVar(&o.all, "all", false, "all buried jobs of the app") },
		flagWhole: func() { f.BoolVar(&o.whole, "whole", false, "show whole device tokens") },
	} {
		if has&flag != 0 {
			define()
		}
	}
	switch {
	case has&flagAll != 0:
		cmd.MarkFlagsOneRequired("id", "reason", "all")
		cmd.MarkFlagsMutuallyExclusive("id", "reason", "all")
	case has&flagID != 0:
		require(cmd, "id")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.Changed("limit") && (o.limit < 1 || o.limit > httpapi.MaxJobs) {
			return usageError{fmt.Errorf("--limit %d: must be 1 to %d", o.limit, httpapi.MaxJobs)}
		}
		ctx := context.Background()
		d, end, err := o.open(ctx, cmd)
		if err != nil {
			return err
		}
		defer end()
		return run(&o, ctx, cmd, d)
	}
	return cmd
}

// open finds the daemon, or else the queue.
func (o *jobFlags) open(ctx context.Context, cmd *cobra.Command) (d buriedOps, end func(), err error) {
	where, err := target(o.config, cmd.Flags().Changed("config"), o.queue, o.appFlags, o.tube)
	if err != nil {
		return nil, nil, err
	}
	if o.state != "" {
		where.state = o.state
	}
	say := func(err error) { fmt.Fprintf(cmd.ErrOrStderr(), "propeller: %v\n", err) }
	if where.state != "" && (o.queue == "" || where.queue.Dir != "") && o.tube == "" {
		c, err := httpapi.Dial(ctx, where.state, where.name)
		switch {
		case err == nil:
			return c, c.Close, nil
		case !errors.Is(err, httpapi.ErrNoDaemon):
			say(fmt.Errorf("cannot ask the daemon: %w", err))
		}
	}
	q, err := visitQueue(where.queue, askHolder)
	if err != nil {
		return nil, nil, err
	}
	admin, ok := q.(queue.Admin)
	if !ok {
		return nil, nil, errors.Join(supervisor.ErrNoAdmin, q.Close())
	}
	known := buried.NewIndex(slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
	return httpapi.Local{Jobs: buried.Jobs{Queue: admin, Index: known, Tube: where.tube, Topic: where.app.Topic, Brief: true}}, func() { _ = q.Close() }, nil
}

func (o *jobFlags) list(ctx context.Context, cmd *cobra.Command, d buriedOps) error {
	l, err := d.List(ctx, httpapi.Selection{Reason: o.reason, Limit: o.limit})
	if err != nil {
		return advise(err)
	}
	if o.json {
		err = printJSON(cmd.OutOrStdout(), l)
	} else {
		err = printBuried(cmd.OutOrStdout(), l, time.Now())
	}
	return errors.Join(err, incomplete(l.Incomplete))
}

func (o *jobFlags) show(ctx context.Context, cmd *cobra.Command, d buriedOps) error {
	for _, id := range o.ids {
		j, err := d.Show(ctx, id)
		if err != nil {
			if !strings.Contains(err.Error(), strconv.Quote(id)) {
				err = fmt.Errorf("job %q: %w", id, err)
			}
			return advise(err)
		}
		if !o.whole {
			j.Body, j.BodyBase64 = text.CutTokens(j.Body), []byte(text.CutTokens(string(j.BodyBase64)))
		}
		if o.json {
			err = printJSON(cmd.OutOrStdout(), j)
		} else {
			err = printJob(cmd.OutOrStdout(), j, time.Now())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// incomplete is the error of a command that did only a part.
func incomplete(why string) error {
	if why == "" {
		return nil
	}
	return errors.New("not all: " + strings.ReplaceAll(why, "\n", "; "))
}

// advise adds what to do to an error, as one line.
func advise(err error) error {
	p, asked := errors.AsType[*httpapi.Problem](err)
	switch {
	case asked && strings.Contains(p.Detail, queue.ErrUnavailable.Error()):
		err = fmt.Errorf("%w: start the queue server", err)
	case errors.Is(err, queue.ErrUnavailable):
		err = fmt.Errorf("%w: start the queue server, or name another by --queue", err)
	}
	if lines := err.Error(); strings.Contains(lines, "\n") {
		return errors.New(strings.ReplaceAll(lines, "\n", "; "))
	}
	return err
}

func printJSON(out interface{ Write([]byte) (int, error) }, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// settleFunc is Kick or Delete of a buriedOps.
type settleFunc func(context.Context, httpapi.Choice) (httpapi.Settled, error)

// settled is what a kick or a delete did, in JSON as it is printed.
type settled struct {
	httpapi.Settled
	BuriedAgain int    `json:"buried_again,omitempty"`        // of the kicked jobs
	AgainMore   bool   `json:"buried_again_more,omitempty"`   // at least so many: the list had no room for others
	Reason      string `json:"buried_again_reason,omitempty"` // of the first of them
	several     bool   // reasons
}

func (o *jobFlags) kick(ctx context.Context, cmd *cobra.Command, d buriedOps) error {
	began := time.Now()
	s, err := o.settle(ctx, cmd, d.Kick, "kicked")
	if err != nil && s.Jobs == 0 {
		return advise(err)
	}
	all := settled{Settled: s}
	if c, asked := d.(*httpapi.Client); asked {
		all.again(ctx, c, began)
	}
	return errors.Join(o.printSettled(cmd, all, "kicked"), incomplete(s.Incomplete), err)
}

func (o *jobFlags) remove(ctx context.Context, cmd *cobra.Command, d buriedOps) error {
	s, err := o.settle(ctx, cmd, d.Delete, "deleted")
	if err != nil && s.Jobs == 0 {
		return advise(err)
	}
	return errors.Join(o.printSettled(cmd, settled{Settled: s}, "deleted"), incomplete(s.Incomplete), err)
}

// settle kicks or deletes the chosen jobs, up to MaxJobs with one request. Without
// --limit it goes on until none is left that was buried before it began: a job that is
// buried again meanwhile stays.
func (o *jobFlags) settle(ctx context.Context, cmd *cobra.Command, do settleFunc, done string) (sum httpapi.Settled, err error) {
	if len(o.ids) == 0 && o.reason == "" && !o.all { // an empty --reason
		return sum, usageError{errors.New("--id, --reason or --all must say which jobs")}
	}
	choice := httpapi.Choice{IDs: o.ids, Reason: o.reason, All: o.all, Limit: o.limit}
	once := o.limit > 0 || len(o.ids) > 0
	if !once { // burials are told apart by the second, and some may be of this one
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	}
	began := time.Now().Unix()
	for {
		s, err := do(ctx, choice)
		sum.Jobs += s.Jobs
		sum.IDs = append(sum.IDs, s.IDs...)
		sum.More, sum.Incomplete = s.More, cmp.Or(s.Incomplete, sum.Incomplete)
		if err != nil || !s.More || s.Jobs == 0 || s.Incomplete != "" || once {
			return sum, err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s %s so far\n", text.Plural(sum.Jobs, "job"), done)
		choice.Before = began
	}
}

const (
	// againTime is how long kick waits to see whether its jobs fail at once.
	againTime  = time.Second
	againEvery = 50 * time.Millisecond
)

// again finds which of the kicked jobs are buried again within againTime. A daemon that
// does not say is not asked for longer.
func (s *settled) again(ctx context.Context, c *httpapi.Client, began time.Time) {
	ctx, cancel := context.WithTimeout(ctx, againTime)
	defer cancel()
	tick := time.NewTicker(againEvery)
	defer tick.Stop()
	kicked := make(map[string]bool, len(s.IDs))
	for _, id := range s.IDs {
		kicked[id] = true
	}
	for s.BuriedAgain < s.Jobs {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		list, err := c.List(ctx, httpapi.Selection{Since: began.Unix()})
		if err != nil {
			continue
		}
		s.BuriedAgain, s.AgainMore, s.Reason, s.several = 0, list.More, "", false
		for _, j := range list.Jobs {
			if kicked[j.ID] {
				s.BuriedAgain++
				s.Reason = cmp.Or(s.Reason, j.Reason)
				s.several = s.several || j.Reason != "" && j.Reason != s.Reason
			}
		}
	}
}

func (o *jobFlags) printSettled(cmd *cobra.Command, s settled, done string) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), s)
	}
	line := text.Plural(s.Jobs, "job") + " " + done
	if s.BuriedAgain > 0 {
		least, reason := "", ": "+text.Line(s.Reason)
		if s.AgainMore {
			least = "at least "
		}
		if s.several {
			reason = ", the first" + reason + "; for the others see propeller jobs list"
		}
		line += fmt.Sprintf("; %s%d of them buried again at once%s", least, s.BuriedAgain, reason)
	}
	if s.More {
		line += "; there are more: run it again"
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
	return err
}

// maxReason is how many characters of a reason are in the list; jobs show has all of it.
const maxReason = 40

// maxShown bounds the body of a job that is printed, in bytes; --json has all of it.
const maxShown = 256 << 10

// printBuried prints a list as a table.
func printBuried(out io.Writer, l httpapi.BuriedList, now time.Time) error {
	unread := ""
	if !l.Complete && !l.More {
		unread = "not all buried jobs have been read from the queue yet; there may be more\n"
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
