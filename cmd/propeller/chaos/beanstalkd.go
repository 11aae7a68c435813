package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
)

// startTimeout is how long a process may take until it answers. Generous: the
// machine may be busy.
const startTimeout = 30 * time.Second

// beanstalkd is the queue's process, always with the same port and log.
type beanstalkd struct {
	at *site
	p  *process
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

// start runs the server until it answers. The port may still be held for a
// moment by connections of the one before.
func (b *beanstalkd) start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(b.at.queueAddr)
	if err != nil {
		return err
	}
	for end := time.Now().Add(startTimeout); ; {
		b.p, err = start("beanstalkd", exec.Command(b.at.beanstalk, "-l", host, "-p", port, "-b", b.at.path("binlog")), b.at.path("beanstalkd.log"))
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
	c, err := dialQueue(b.at.queueAddr)
	if err != nil {
		return false
	}
	defer c.Close()
	stats, err := c.Stats()
	return err == nil && strings.Trim(stats["pid"], `"`) == strconv.Itoa(b.p.pid())
}

// end ends the process with sig and waits for it.
func (b *beanstalkd) end(sig syscall.Signal) {
	b.at.note("beanstalkd %v", sig)
	b.p.signal(sig)
	if !b.p.wait(endTimeout) {
		b.p.kill()
	}
}

// askTimeout bounds a conversation with beanstalkd by one of this program's
// short connections.
const askTimeout = 5 * time.Second

// dialQueue connects for a few commands: all of them within askTimeout.
func dialQueue(addr string) (*gobeanstalk.Conn, error) {
	nc, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	if err := nc.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		nc.Close()
		return nil, err
	}
	return gobeanstalk.NewConn(nc), nil
}

// left counts the jobs of all tubes that are neither done nor buried.
func left(addr string) (n int, text string, err error) {
	c, err := dialQueue(addr)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	for _, a := range apps() {
		stats, err := gobeanstalk.NewTube(c, a.tube).Stats()
		if errors.Is(err, gobeanstalk.ErrNotFound) {
			continue // an empty tube that nobody watches
		}
		if err != nil {
			return 0, "", err
		}
		for _, state := range []string{"ready", "delayed", "reserved"} {
			k, err := strconv.Atoi(stats["current-jobs-"+state])
			if err != nil {
				return 0, "", fmt.Errorf("tube %s: %w", a.tube, err)
			}
			if k > 0 {
				n += k
				text += fmt.Sprintf(" %s: %d %s", a.tube, k, state)
			}
		}
	}
	return n, text, nil
}

// takeBuried takes every buried job out of the queue: its id and body.
func takeBuried(addr string) (map[uint64]string, error) {
	out := make(map[uint64]string)
	for _, a := range apps() {
		if err := takeBuriedOf(addr, a.tube, out); err != nil {
			return nil, fmt.Errorf("buried jobs of %s: %w", a.tube, err)
		}
	}
	return out, nil
}

func takeBuriedOf(addr, tube string, out map[uint64]string) error {
	for {
		c, err := dialQueue(addr)
		if err != nil {
			return err
		}
		for range 1000 { // well within askTimeout
			id, body, err := gobeanstalk.NewTube(c, tube).PeekBuried()
			if err == nil {
				out[id] = string(body)
				err = c.Delete(id)
			}
			if err != nil {
				c.Close()
				if errors.Is(err, gobeanstalk.ErrNotFound) {
					return nil
				}
				return err
			}
		}
		c.Close()
	}
}
