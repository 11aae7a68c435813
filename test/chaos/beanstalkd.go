package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startTimeout is how long a process may take until it answers. Generous: the
// machine may be busy.
const startTimeout = 30 * time.Second

// beanstalkd is an engine: a process, always with the same port and log.
type beanstalkd struct {
	at        *site
	bin, addr string
	p         *process
}

func newBeanstalkd(at *site) (*beanstalkd, error) {
	b := &beanstalkd{at: at}
	var err error
	if b.bin, err = findBeanstalkd(); err != nil {
		return nil, err
	}
	if b.addr, err = at.freeAddr(); err != nil {
		return nil, err
	}
	return b, os.Mkdir(b.log(), 0o700)
}

func findBeanstalkd() (string, error) {
	if bin, err := exec.LookPath("beanstalkd"); err == nil {
		return bin, nil
	}
	for _, bin := range []string{"/usr/bin/beanstalkd", "/usr/sbin/beanstalkd", "/usr/local/bin/beanstalkd", "/opt/homebrew/bin/beanstalkd"} {
		if _, err := os.Stat(bin); err == nil {
			return bin, nil
		}
	}
	return "", errors.New("beanstalkd is not installed")
}

func (b *beanstalkd) log() string { return b.at.path("binlog") }

func (b *beanstalkd) url() string { return "beanstalk://" + b.addr }

// start runs the server until it answers. The port may still be held for a
// moment by connections of the one before.
func (b *beanstalkd) start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		return err
	}
	for end := time.Now().Add(startTimeout); ; {
		b.p, err = start("beanstalkd", exec.Command(b.bin, "-l", host, "-p", port, "-b", b.log()), b.at.path("beanstalkd.log"))
		if err != nil {
			return err
		}
		for !b.p.ended() && ctx.Err() == nil && time.Now().Before(end) {
			if b.answers() {
				b.at.note("beanstalkd started, pid %d", b.p.pid())
				return nil
			}
			sleep(ctx, 5*time.Millisecond)
		}
		b.p.kill()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return errors.New("beanstalkd does not start")
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

// answers says whether this process, and no other, has the port.
func (b *beanstalkd) answers() bool {
	c, err := dialBeanstalk(b.addr)
	if err != nil {
		return false
	}
	defer c.close()
	stats, err := c.conn.Stats()
	return err == nil && strings.Trim(stats["pid"], `"`) == strconv.Itoa(b.p.pid())
}

func (b *beanstalkd) kill() {
	if b.p != nil {
		b.p.kill()
	}
}

// idleTries is how often the server is stopped to be found idle. A busy one is
// every third time.
const idleTries = 500

// endIdle ends the server with sig while it waits for commands, and reports
// whether it did: else it was at work, or the system does not show that.
//
// beanstalkd 1.12 loses a job when it is ended in the middle of compacting its
// log: it deletes the file with the job's record before it writes that anew
// (moveone in walg.c, docs/operations.md). The auditor could not tell that from a
// loss of the daemon's: of 1,500 kills amid puts and deletes, with 40 jobs left, 40
// lost a job; of 1,500 while idle, none. What the hand shall do is not less for it: puts, and
// answers that are not sent yet, are cut off as before.
func (b *beanstalkd) endIdle(ctx context.Context, sig syscall.Signal) (idle bool) {
	for try := 0; !idle && try < idleTries && !b.p.ended(); try++ {
		if try > 0 {
			b.p.signal(syscall.SIGCONT)
			sleep(ctx, time.Millisecond)
		}
		b.p.signal(syscall.SIGSTOP)
		idle = waitsForEvents(b.p.pid())
	}
	b.p.signal(sig)
	b.p.signal(syscall.SIGCONT) // SIGTERM takes effect only then, before any other work
	if !b.p.wait(endTimeout) {
		b.p.kill()
	}
	return idle
}

func (b *beanstalkd) late() bool { return false }

func (b *beanstalkd) upset() []time.Time { return nil }

func (b *beanstalkd) removed() []removal { return nil }

func (b *beanstalkd) orphan() {}

func (b *beanstalkd) dial() (client, error) { return dialBeanstalk(b.addr) }

// hand kills, stops and freezes the server.
func (b *beanstalkd) hand(rng *rand.Rand) *hand {
	h := &hand{rng: rng, mean: 3 * time.Second}
	end := func(sig syscall.Signal) func(context.Context, context.Context) error {
		return func(life, faults context.Context) error {
			over := b.at.trouble("beanstalkd " + sig.String())
			defer over()
			if !b.endIdle(faults, sig) {
				b.at.note("beanstalkd was ended at work: it may have lost a job itself")
			}
			sleep(faults, h.upTo(3*time.Second))
			return b.start(life)
		}
	}
	freeze := func(least, most time.Duration) func(context.Context, context.Context) error {
		return func(_, faults context.Context) error {
			t := least + h.upTo(most-least)
			over := b.at.trouble("beanstalkd frozen for " + t.String())
			defer over()
			b.p.freeze(faults, t)
			return nil
		}
	}
	h.acts = []act{
		{name: "beanstalkd killed", weight: 40, do: end(syscall.SIGKILL)},
		{name: "beanstalkd stopped", weight: 15, do: end(syscall.SIGTERM)},
		{name: "beanstalkd frozen", weight: 35, do: freeze(0, 4*time.Second)},
		// Past the 10 s after which the daemon gives its connection up.
		{name: "beanstalkd frozen for long", weight: 10, do: freeze(9*time.Second, 14*time.Second)},
	}
	return h
}
