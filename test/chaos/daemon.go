package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const daemonLog = "propeller.log"

// life is one process of the daemon.
type life struct {
	began, ended time.Time
	killed       bool // by SIGKILL or two signals to stop: it could not settle what it had pushed
}

// daemon is the process of propeller.
type daemon struct {
	at     *site
	p      *process
	from   int64 // where its log begins
	lives  []life
	faults []string // ends that were not asked for, or not as promised
	now    settings
	misled []mislead
}

// mislead is a time in which an app pushed to the wrong environment.
type mislead struct {
	topic string
	span
}

// shutdownTimeout is the daemon's.
const shutdownTimeout = 5 * time.Second

// start runs the daemon until it says that it has started.
func (d *daemon) start(ctx context.Context) error {
	if err := d.at.write(configName, d.now.yaml(d.at)); err != nil {
		return err
	}
	log := d.at.path(daemonLog)
	d.from = 0
	if info, err := os.Stat(log); err == nil {
		d.from = info.Size()
	}
	if d.at.disk != nil {
		defer d.at.disk.waitForRoom()()
	}
	cmd := exec.Command(d.at.propeller, "run", "-c", d.at.path(configName))
	began := time.Now()
	var err error
	if d.p, err = start("propeller", cmd, log); err != nil {
		return err
	}
	d.lives = append(d.lives, life{began: began})
	d.at.note("propeller started, pid %d", d.p.pid())
	for end := began.Add(startTimeout); ; sleep(ctx, 5*time.Millisecond) {
		switch said, err := contains(log, d.from, "propeller started"); {
		case err != nil:
			return err
		case said:
			return nil // from here on it handles signals
		case ctx.Err() != nil:
			return ctx.Err()
		case d.p.ended() || time.Now().After(end):
			return errors.New("propeller does not start; see " + daemonLog)
		}
	}
}

// contains says whether a file has text somewhere after from.
func contains(path string, from int64, text string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	buf := make([]byte, 256<<10)
	n, err := f.ReadAt(buf, from)
	if n == 0 && err != nil {
		return false, nil // nothing yet
	}
	return bytes.Contains(buf[:n], []byte(text)), nil
}

// alive notes an end that nobody asked for, and starts the daemon again.
func (d *daemon) alive(ctx context.Context) error {
	if !d.p.ended() {
		return nil
	}
	still := d.stoodStill()
	if !still {
		d.faults = append(d.faults, fmt.Sprintf("propeller ended by itself: %v", d.p.cmd.ProcessState))
	}
	d.over(still, time.Now())
	return d.start(ctx)
}

// stoodStill says whether the server inside the daemon stood still, which a full disk
// may do to it: the daemon then ends with status 1, and has to be started again
// (docs/queues.md). It is no fault, and as if killed.
func (d *daemon) stoodStill() bool {
	if d.p.cmd.ProcessState.Success() {
		return false
	}
	text, err := os.ReadFile(d.at.path(daemonLog))
	if err != nil || int64(len(text)) < d.from {
		return false
	}
	for _, line := range []string{"the queue's server does not answer", "the queue's server does not stop"} {
		if bytes.Contains(text[d.from:], []byte(line)) {
			now := time.Now()
			d.at.note("propeller ended because its queue's server stood still")
			d.at.troubled(span{"propeller's queue stood still", now, now})
			return true
		}
	}
	return false
}

// over notes the process's end. If the disk was full as it ended, that counts as a kill,
// because the queue could not store what was settled last.
func (d *daemon) over(killed bool, ending time.Time) {
	if d.at.diskFull(ending) {
		killed = true
	}
	l := &d.lives[len(d.lives)-1]
	l.ended, l.killed = time.Now(), killed
}

func (d *daemon) kill() {
	defer d.at.trouble("propeller killed")()
	d.p.kill()
	d.over(true, time.Now())
}

// stopLimit is how long the daemon may take to stop: shutdown_timeout, the 10 s
// after which it ends no matter what (docs/architecture.md), and some for a
// busy machine.
const stopLimit = shutdownTimeout + 10*time.Second + 10*time.Second

// stop tells the daemon to stop as an init system does.
func (d *daemon) stop() {
	d.at.note("propeller told to stop")
	began := time.Now()
	d.p.signal(syscall.SIGTERM)
	if !d.p.wait(stopLimit) {
		d.faults = append(d.faults, fmt.Sprintf("propeller told to stop at %s had not after %v", began.Format(time.RFC3339Nano), stopLimit))
		d.kill()
		return
	}
	still := d.stoodStill()
	if !d.p.cmd.ProcessState.Success() && !still {
		d.faults = append(d.faults, fmt.Sprintf("propeller told to stop at %s: %v", began.Format(time.RFC3339Nano), d.p.cmd.ProcessState))
	}
	took := time.Since(began)
	d.at.note("propeller stopped after %v", took)
	d.over(still, began)
	if took >= shutdownTimeout { // it gave back what it could not finish
		d.at.troubled(span{"propeller cut its pushes short", began, time.Now()})
	}
}

// quit tells the daemon to stop, and again a little later: it ends at once.
func (d *daemon) quit(ctx context.Context, after time.Duration) {
	defer d.at.trouble("propeller told to stop twice")()
	d.p.signal(syscall.SIGTERM)
	sleep(ctx, after)
	d.p.signal(syscall.SIGTERM)
	if !d.p.wait(stopLimit) {
		d.faults = append(d.faults, "propeller does not stop after two signals")
		d.p.kill()
	}
	d.over(true, time.Now())
}

// reload writes a configuration and tells the daemon to read it.
func (d *daemon) reload(s settings, what string) error {
	d.at.note("propeller reload: %s", what)
	if err := d.at.write(configName, s.yaml(d.at)); err != nil {
		return err
	}
	d.now = s
	d.p.signal(syscall.SIGHUP)
	return nil
}

// mislead has an app push to the wrong environment, until it is set right.
func (d *daemon) mislead(rng *rand.Rand) error {
	s, topic := d.now.misled(rng)
	d.misled = append(d.misled, mislead{topic, span{what: "wrong environment", from: time.Now()}})
	return d.reload(s, topic+" in the wrong environment")
}

// isMisled says since when an app has pushed to the wrong environment.
func (d *daemon) isMisled() (since time.Time, yes bool) {
	if len(d.misled) == 0 {
		return time.Time{}, false
	}
	last := d.misled[len(d.misled)-1]
	return last.from, last.to.IsZero()
}

// right ends that.
func (d *daemon) right() error {
	d.misled[len(d.misled)-1].to = time.Now()
	return d.reload(d.now.righted(), "all in their environments")
}

// complete reloads every app in its right environment, if that is not so already.
func (d *daemon) complete() error {
	if _, yes := d.isMisled(); yes {
		if err := d.right(); err != nil {
			return err
		}
	}
	if d.now.serving() == len(apps()) {
		return nil
	}
	return d.reload(d.now.complete(), "all apps")
}

// reloadBroken has it read a file that it must refuse.
func (d *daemon) reloadBroken(ctx context.Context) error {
	d.at.note("propeller reload: broken file")
	if err := d.at.write(configName, append(d.now.yaml(d.at), "  - {topic: com.example.one, wrokers: 3}\n"...)); err != nil {
		return err
	}
	d.p.signal(syscall.SIGHUP)
	sleep(ctx, 500*time.Millisecond)
	return d.at.write(configName, d.now.yaml(d.at)) // for the next start
}
