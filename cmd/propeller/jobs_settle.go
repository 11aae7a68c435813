package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"propeller/httpapi"
	"propeller/internal/text"
)

// settleFunc is Kick or Delete of a desk.
type settleFunc func(context.Context, httpapi.Choice) (httpapi.Settled, error)

// settled is what a kick or a delete did, in JSON as it is printed.
type settled struct {
	httpapi.Settled
	BuriedAgain int    `json:"buried_again,omitempty"`        // of the kicked jobs
	AgainMore   bool   `json:"buried_again_more,omitempty"`   // at least so many: the list had no room for others
	Reason      string `json:"buried_again_reason,omitempty"` // of the first of them
	several     bool   // reasons
}

func (o *jobFlags) kick(ctx context.Context, cmd *cobra.Command, d desk) error {
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

func (o *jobFlags) remove(ctx context.Context, cmd *cobra.Command, d desk) error {
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
	given := 0
	for _, is := range []bool{len(o.ids) > 0, o.reason != "", o.all} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		return sum, usageError{errors.New("give only one of --id, --reason and --all")}
	case given == 0:
		return sum, usageError{errors.New("say which jobs: --id ID, --reason TEXT or --all")}
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
