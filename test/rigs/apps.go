package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"propeller/internal/bench"
	"propeller/internal/text"
)

// appsPlan is how many of what, and for how long.
type appsPlan struct {
	apps    int
	certs   int           // .p12 files that check reads
	settle  time.Duration // that a started daemon may take until it is quiet
	idle    time.Duration // over which the CPU of idle apps is measured
	singles int           // first pushes, one at a time
	burst   int           // and at once
	spread  time.Duration // in which each app gets a push
	rest    time.Duration // after which apps are asleep again
	busy    int           // jobs of a busy tube, in each of the rounds
	rounds  int
}

const (
	manyApps = 10_000
	// overtime is how long pushes may be late before they count as missing.
	overtime = time.Minute
)

func (s *settings) appsPlan() appsPlan {
	p := appsPlan{
		apps: cmp.Or(s.apps, manyApps), certs: 1000, settle: 3 * time.Minute, idle: 2 * s.time,
		spread: 55 * time.Second, rest: time.Minute, busy: 20_000, rounds: 3,
	}
	// First pushes take apps that have had none: the first and the last are others' subjects.
	p.singles, p.burst = min(200, (p.apps-2)/4), min(100, (p.apps-2)/4)
	return p
}

// manyApps measures many apps that sleep, in a daemon of its own: what they cost, how long they
// take to start, wake, reload and stop, and what a busy one has beside them.
func (s *settings) manyApps(ctx context.Context) ([][2]string, error) {
	return s.measureApps(ctx, s.appsPlan())
}

func (s *settings) measureApps(ctx context.Context, p appsPlan) (rows [][2]string, err error) {
	r := &appsRig{daemonRig{s: s}, p, 1}
	defer r.close()
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	rows = [][2]string{{"apps", text.Count(int64(p.apps)) + ", one .p8, one stand-in in this process"}, {"before", machineLoad()}}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"check", r.check},
		{"check of .p12 files", r.checkCerts},
		{"start", r.start},
		{"idle", r.idle},
		{"first push", r.firstPushes},
		{"a push to each", r.each},
		{"one minute after", r.after},
		{"reload", r.reload},
		{"metrics", r.metrics},
		{"busy beside sleeping", r.busy},
		{"stop", r.stop},
		{"metrics without unused apps", r.unused},
	} {
		s.say("%s", step.name)
		if err := step.do(ctx); err != nil {
			r.row(step.name, "cannot be measured: "+err.Error())
		}
		if ctx.Err() != nil {
			return append(rows, r.rows...), errors.New("interrupted")
		}
	}
	return append(rows, r.rows...), nil
}

// machineLoad says how busy the machine is without the rig.
func machineLoad() string {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return err.Error()
	}
	load, err := fs.LoadAvg()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("load average %.2f", load.Load1)
}

// appsRig is a daemon with many apps.
type appsRig struct {
	daemonRig
	p     appsPlan
	fresh int // the next app that has had no push
}

// topic is an app's topic, name and tube.
func topic(app int) string { return fmt.Sprintf("com.example.rig.%d", app) }

func whose(app int) string { return fmt.Sprintf(`"topic":%q`, topic(app)) }

// change is what a configuration has beside the usual.
type change struct {
	all, one string // keys of all apps, and of the first one
	daemon   string // keys of the daemon: whole lines
}

// config is the configuration of so many apps.
func (r *appsRig) config(apps int, c change) string {
	var b strings.Builder
	b.WriteString(c.daemon)
	b.WriteString(r.defaults(c.all))
	for i := range apps {
		one := ""
		if i == 0 {
			one = c.one
		}
		fmt.Fprintf(&b, "  - {topic: %s%s}\n", topic(i), one)
	}
	return b.String()
}

// judged adds a line with what is wanted of 10,000 apps. A cluster has figures only.
func (r *appsRig) judged(name, value, wanted string, met bool) {
	if r.s.queue != "nats" {
		verdict := "missed"
		if met {
			verdict = "met"
		}
		value += fmt.Sprintf(" (wanted %s: %s)", wanted, verdict)
	}
	r.row(name, value)
}

// put puts a job to an app over HTTP.
func (r *appsRig) put(ctx context.Context, app int) error {
	_, fields := r.arrivals.job()
	return r.d.put(ctx, whose(app), fields)
}

// settle waits until the daemon has little to do, for a time at most.
func (r *appsRig) settle(ctx context.Context, most time.Duration) error {
	for end := time.Now().Add(most); time.Now().Before(end); {
		own, servers, err := r.d.cores(ctx, min(time.Second, r.p.idle))
		if err != nil {
			return err
		}
		if own+servers < 0.1 {
			return nil
		}
	}
	return nil // it has more to do than an idle daemon should: a figure says how much
}

func seconds(d time.Duration) string { return bench.Seconds(d.Seconds()) }
