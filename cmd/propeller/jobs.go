package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"propeller/httpapi"
	"propeller/internal/text"
	"propeller/queue"
	"propeller/supervisor"
	"propeller/worker/buried"
)

const jobsLong = `jobs shows an app's buried jobs with their reasons: those that propeller set
aside because they can never work, or were tried for too long. kick gives them
back to be sent again; delete removes them for good.

It asks the running daemon by the socket in its state_dir. Without one it works
on the queue itself.`

// jobFlags are the flags of the commands below jobs.
type jobFlags struct {
	config, queue, topic, tube, state string
	reason                            string
	ids                               []string
	limit                             int
	all, json, whole                  bool
}

// desk is what the commands need: httpapi.Client is one over the daemon's
// socket, httpapi.Local one on the queue itself.
type desk interface {
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
		newJobsCommand("kick", "have buried jobs sent again", flagReason|flagLimit|flagID|flagAll, (*jobFlags).kick),
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
func newJobsCommand(name, short string, has int, run func(*jobFlags, context.Context, *cobra.Command, desk) error) *cobra.Command {
	var o jobFlags
	cmd := &cobra.Command{Use: name, Short: short, Args: noArgs}
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", defaultFile, "configuration `file`")
	f.StringVar(&o.queue, "queue", "", "queue `URL`, instead of the configuration's; no daemon is asked, unless the queue is inside it")
	f.StringVar(&o.topic, "topic", "", "`bundle id` of the app (required)")
	f.StringVar(&o.tube, "tube", "", "tube `name`, instead of the configuration's; no daemon is asked")
	f.StringVar(&o.state, "state-dir", "", "state_dir of the daemon, a `folder`, instead of the configuration's")
	f.BoolVar(&o.json, "json", false, "print JSON")
	for flag, define := range map[int]func(){
		flagReason: func() { f.StringVar(&o.reason, "reason", "", "those with this `text` in their reason or class") },
		flagLimit: func() {
			f.IntVar(&o.limit, "limit", 0, fmt.Sprintf("at most `n`, up to %d (default)", httpapi.MaxJobs))
		},
		flagID:    func() { f.StringSliceVar(&o.ids, "id", nil, "the job of this `id`; may be repeated") },
		flagAll:   func() { f.BoolVar(&o.all, "all", false, "all buried jobs of the app") },
		flagWhole: func() { f.BoolVar(&o.whole, "whole", false, "show whole device tokens") },
	} {
		if has&flag != 0 {
			define()
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.check(f.Changed("limit")); err != nil {
			return usageError{err}
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

func (o *jobFlags) check(limited bool) error {
	switch {
	case o.topic == "":
		return errors.New("--topic is missing")
	case limited && (o.limit < 1 || o.limit > httpapi.MaxJobs):
		return fmt.Errorf("--limit %d: must be 1 to %d", o.limit, httpapi.MaxJobs)
	}
	return nil
}

// open finds the daemon, or else the queue.
func (o *jobFlags) open(ctx context.Context, cmd *cobra.Command) (d desk, end func(), err error) {
	where, err := target(o.config, cmd.Flags().Changed("config"), o.queue, o.topic, o.tube)
	if err != nil {
		return nil, nil, err
	}
	if o.state != "" {
		where.state = o.state
	}
	say := func(err error) { fmt.Fprintf(cmd.ErrOrStderr(), "propeller: %v\n", err) }
	if where.state != "" && (o.queue == "" || where.queue.Dir != "") && o.tube == "" {
		c, err := httpapi.Dial(ctx, where.state, o.topic)
		switch {
		case err == nil:
			return c, c.Close, nil
		case !errors.Is(err, httpapi.ErrNoDaemon):
			say(fmt.Errorf("the daemon cannot be asked: %w", err))
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
	return httpapi.Local{Jobs: buried.Jobs{Queue: admin, Index: known, Tube: where.tube, Topic: o.topic, Brief: true}}, func() { _ = q.Close() }, nil
}

func (o *jobFlags) list(ctx context.Context, cmd *cobra.Command, d desk) error {
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

func (o *jobFlags) show(ctx context.Context, cmd *cobra.Command, d desk) error {
	if len(o.ids) == 0 {
		return usageError{errors.New("--id is missing")}
	}
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
