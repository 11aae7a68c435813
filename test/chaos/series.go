package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"
)

// result is the result of one run.
type result struct {
	engine  string
	seed    uint64
	took    time.Duration
	account *account // nil if the run ended before
	stalls  int
	faults  []string // all faults found, including stalls
	err     error
	dir     string // the files of a run that failed
}

// word is the result in one word.
func (r *result) word() string {
	switch {
	case r.err == nil:
		return "passed"
	case errors.Is(r.err, errFailed):
		return "FAILED"
	case errors.Is(r.err, errInterrupted):
		return "interrupted"
	}
	return "BROKEN" // an error of this program or the machine
}

// command runs the program.
func command(ctx context.Context, args []string, out io.Writer) error {
	o, err := parseOptions(args, os.Getenv)
	if err != nil {
		return err
	}
	if o.judge != "" {
		return judgeAgain(o.judge, out)
	}
	if len(o.engines()) == 1 && o.seeds == 1 {
		r := one(ctx, o, o.engines()[0], o.seed, out)
		return r.failure()
	}
	return series(ctx, o, out)
}

// failure is the run's error, with the folder of its files.
func (r *result) failure() error {
	if r.err != nil && r.dir != "" {
		return fmt.Errorf("%w; all files are in %s", r.err, r.dir)
	}
	return r.err
}

// series runs each seed on each engine, one after the other, with the same binary, and prints
// a table.
func series(ctx context.Context, o options, out io.Writer) error {
	dir, err := os.MkdirTemp("", "propeller-chaos-bin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.bin == "" {
		if o.bin, err = build(ctx, dir, o.race); err != nil {
			return err
		}
	}
	var all []*result
	for seed := o.seed; seed < o.seed+o.seeds; seed++ {
		for _, engine := range o.engines() {
			if ctx.Err() != nil {
				break
			}
			r := one(ctx, o, engine, seed, out)
			if err := r.failure(); err != nil {
				fmt.Fprintf(out, "%v\n", err)
			}
			fmt.Fprintln(out)
			all = append(all, r)
		}
	}
	return table(out, all)
}

// table prints a line for each run, and returns an error if one failed.
func table(out io.Writer, all []*result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "engine\tseed\tresult\tpushes\tdelivered\tlost\tstalls\tnot counted\tfaults\ttook\tfiles")
	bad := 0
	for _, r := range all {
		a := r.account
		if a == nil {
			a = &account{}
		}
		if r.err != nil {
			bad++
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%v\t%s\n",
			r.engine, r.seed, r.word(), a.put, a.delivered, len(a.lost), r.stalls, len(a.uncounted), len(r.faults), r.took.Round(time.Second), r.dir)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%w: %s of %d runs", errFailed, strconv.Itoa(bad), len(all))
	}
	return nil
}

// one does one run.
func one(ctx context.Context, o options, engine string, seed uint64, out io.Writer) *result {
	o.queue, o.seed = engine, seed
	began := time.Now()
	res := &result{engine: engine, seed: seed}
	defer func() { res.took = time.Since(began) }()
	at, err := newSite(ctx, o)
	if at == nil {
		res.err = err
		return res
	}
	if err == nil {
		fmt.Fprintf(out, "chaos: %v with seed %d on %s, in %s\n", o.time, seed, engine, at.dir)
		var r *run
		if r, err = newRun(at, o); err == nil {
			err = r.do(ctx, out, res)
		}
	}
	if ctx.Err() != nil {
		err = errInterrupted
	}
	at.close()
	res.err = err
	if o.keep || err != nil && ctx.Err() == nil {
		res.dir = at.dir
	} else if err := os.RemoveAll(at.dir); err != nil {
		res.err = errors.Join(res.err, err)
	}
	return res
}
