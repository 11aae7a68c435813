package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
)

// beanstalk is a client of beanstalkd, on go-beanstalk alone: the adapter of
// package queue is part of what is on trial.
type beanstalk struct {
	nc   net.Conn
	conn *gobeanstalk.Conn
}

func dialBeanstalk(addr string) (*beanstalk, error) {
	nc, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	b := &beanstalk{nc, gobeanstalk.NewConn(nc)}
	return b, b.within(askTimeout)
}

func (b *beanstalk) close() { b.conn.Close() }

// within gives the next commands their time.
func (b *beanstalk) within(d time.Duration) error { return b.nc.SetDeadline(time.Now().Add(d)) }

func (b *beanstalk) put(tube string, body []byte, delay time.Duration) (string, error) {
	if err := b.within(askTimeout); err != nil {
		return "", err
	}
	id, err := gobeanstalk.NewTube(b.conn, tube).Put(body, 1024, delay, ttr)
	return strconv.FormatUint(id, 10), err
}

func (b *beanstalk) take(tubes []string, wait time.Duration) (string, []byte, error) {
	if err := b.within(askTimeout + wait); err != nil {
		return "", nil, err
	}
	id, body, err := gobeanstalk.NewTubeSet(b.conn, tubes...).Reserve(wait)
	if errors.Is(err, gobeanstalk.ErrTimeout) {
		return "", nil, errEmpty
	}
	return strconv.FormatUint(id, 10), body, err
}

func (b *beanstalk) remove(id string) error {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return err
	}
	return b.conn.Delete(n)
}

func (b *beanstalk) waiting(tubes []string) (all []remainder, err error) {
	err = b.each(tubes, func(tube string, jobs map[string]int) {
		if t := (remainder{tube, jobs["ready"], jobs["delayed"], jobs["reserved"]}); !t.empty() {
			all = append(all, t)
		}
	})
	return all, err
}

func (b *beanstalk) haveBuried(tubes []string) (map[string]bool, error) {
	has := make(map[string]bool)
	return has, b.each(tubes, func(tube string, jobs map[string]int) { has[tube] = jobs["buried"] > 0 })
}

// each looks at those of some tubes that exist: at how many jobs they have in each state.
func (b *beanstalk) each(tubes []string, look func(tube string, jobs map[string]int)) error {
	exist, err := b.conn.ListTubes()
	if err != nil {
		return err
	}
	for _, tube := range tubes {
		if !slices.Contains(exist, tube) {
			continue // it is empty, and nobody watches it
		}
		stats, err := gobeanstalk.NewTube(b.conn, tube).Stats()
		if errors.Is(err, gobeanstalk.ErrNotFound) {
			continue // it has just become empty
		}
		jobs := make(map[string]int)
		for _, state := range []string{"ready", "delayed", "reserved", "buried"} {
			if err == nil {
				jobs[state], err = strconv.Atoi(stats["current-jobs-"+state])
			}
		}
		if err != nil {
			return fmt.Errorf("tube %s: %w", tube, err)
		}
		look(tube, jobs)
	}
	return nil
}

func (b *beanstalk) takeBuried(tube string, limit int) (map[string]string, error) {
	if err := b.within(askTimeout); err != nil {
		return nil, err
	}
	return b.takeOut(limit, gobeanstalk.NewTube(b.conn, tube).PeekBuried)
}

func (b *beanstalk) takeRest(tube string, limit int) (map[string]string, error) {
	if err := b.within(askTimeout); err != nil {
		return nil, err
	}
	t := gobeanstalk.NewTube(b.conn, tube)
	return b.takeOut(limit, t.PeekReady, t.PeekDelayed)
}

// takeOut removes up to limit of the jobs that a peek command shows.
func (b *beanstalk) takeOut(limit int, peeks ...func() (uint64, []byte, error)) (map[string]string, error) {
	out := make(map[string]string)
	for len(out) < limit && len(peeks) > 0 {
		id, body, err := peeks[0]()
		if errors.Is(err, gobeanstalk.ErrNotFound) {
			peeks = peeks[1:]
			continue
		}
		if err == nil {
			err = b.conn.Delete(id)
		}
		if err != nil {
			return nil, err
		}
		out[strconv.FormatUint(id, 10)] = string(body)
	}
	return out, nil
}
