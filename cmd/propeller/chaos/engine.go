package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// engine is the queue of a run: what holds the jobs, and what can befall it.
type engine interface {
	// url is the queue's address for the daemon's configuration.
	url() string
	// start runs the engine until it answers. One that lives inside the daemon
	// has nothing to start.
	start(ctx context.Context) error
	// kill ends it at once; of no effect when it does not run.
	kill()
	// hand is what harms it; nil when only the daemon's own hand can.
	hand(rng *rand.Rand) *hand
	// late says whether the jobs that a daemon held when it died come back later
	// than at once, and so may be overtaken.
	late() bool
	// orphan says that the daemon has gone for good.
	orphan()
	// dial opens a client.
	dial() (client, error)
}

// client is this program's own way to the jobs. Each command ends within
// askTimeout; after an error the client is of no more use.
type client interface {
	// put stores a job. After an error it may have been stored or not.
	put(tube string, body []byte, delay time.Duration) (id string, err error)
	// take reserves a job of one of the tubes, errEmpty when none comes in
	// time; remove deletes what was taken.
	take(tubes []string, wait time.Duration) (id string, body []byte, err error)
	remove(id string) error
	// waiting counts the jobs of a tube by state: ready, delayed, reserved.
	waiting(tube string) (map[string]int, error)
	// fetch removes a job that nobody has reserved and returns its body.
	fetch(id string) (body []byte, err error)
	// takeBuried removes up to limit buried jobs of a tube and returns their
	// bodies by id.
	takeBuried(tube string, limit int) (map[string]string, error)
	close()
}

var errEmpty = errors.New("no job")

// askTimeout bounds one command to the queue: a frozen server answers once it
// is thawed, and past this nobody waits for it any more.
const askTimeout = 5 * time.Second

// engineNames are the values of -queue.
const engineNames = "beanstalk or embedded"

func newEngine(name string, at *site) (engine, error) {
	switch name {
	case "beanstalk":
		return newBeanstalkd(at)
	case "embedded":
		return newEmbedded(at)
	}
	return nil, fmt.Errorf("-queue %q: want %s", name, engineNames)
}

// left counts the jobs of tubes that are neither done nor buried.
func left(e engine, tubes []string) (n int, text string, err error) {
	c, err := e.dial()
	if err != nil {
		return 0, "", err
	}
	defer c.close()
	for _, tube := range tubes {
		states, err := c.waiting(tube)
		if err != nil {
			return 0, "", fmt.Errorf("tube %s: %w", tube, err)
		}
		for _, state := range []string{"ready", "delayed", "reserved"} {
			if k := states[state]; k > 0 {
				n += k
				text += fmt.Sprintf(" %s: %d %s", tube, k, state)
			}
		}
	}
	return n, text, nil
}

// takeBuried takes every buried job of a tube out of the queue: bodies by id.
func takeBuried(e engine, tube string) (map[string]string, error) {
	const batch = 1000 // well within askTimeout
	c, err := e.dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	all := make(map[string]string)
	for {
		some, err := c.takeBuried(tube, batch)
		if err != nil {
			return nil, fmt.Errorf("buried jobs of %s: %w", tube, err)
		}
		if len(some) == 0 {
			return all, nil
		}
		for id, body := range some {
			all[id] = body
		}
	}
}
