package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	// than at once, and so may be overtaken; upset returns when they did so because of
	// a fault of the engine.
	late() bool
	upset() []time.Time
	// removed returns what its hand removed together with the jobs in it.
	removed() []removal
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
	// waiting returns the tubes of those given that have ready, delayed or reserved jobs.
	waiting(tubes []string) ([]remainder, error)
	// haveBuried returns those of the tubes given that have buried jobs.
	haveBuried(tubes []string) (map[string]bool, error)
	// takeBuried removes up to limit buried jobs of a tube and returns their
	// bodies by id.
	takeBuried(tube string, limit int) (map[string]string, error)
	// takeRest does the same with ready and delayed jobs.
	takeRest(tube string, limit int) (map[string]string, error)
	close()
}

var errEmpty = errors.New("no job")

// askTimeout bounds one command to the queue: a frozen server answers once it
// is thawed, and past this nobody waits for it any more.
const askTimeout = 5 * time.Second

// engineNames are the values of -queue.
func engineNames() []string { return []string{"beanstalkd", "embedded", "nats"} }

func newEngine(name string, at *site) (engine, error) {
	switch name {
	case "beanstalkd":
		return newBeanstalkd(at)
	case "embedded":
		return newEmbedded(at)
	case "nats":
		return newCluster(at)
	}
	return nil, fmt.Errorf("engine %q: unknown", name)
}

// remainder counts the jobs left in a tube: those neither done nor buried.
type remainder struct {
	tube                     string
	ready, delayed, reserved int
}

func (t remainder) empty() bool { return t.ready+t.delayed+t.reserved == 0 }

func (t remainder) counts() string {
	return fmt.Sprintf("%d ready, %d delayed, %d reserved", t.ready, t.delayed, t.reserved)
}

func (t remainder) String() string { return t.tube + " " + t.counts() }

// left returns the tubes that are not empty.
func left(e engine, tubes []string) ([]remainder, error) {
	c, err := e.dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.waiting(tubes)
}

// haveBuried returns the tubes that have buried jobs.
func haveBuried(e engine, tubes []string) (map[string]bool, error) {
	c, err := e.dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.haveBuried(tubes)
}

// takeRest takes all other jobs of a tube out of the queue while the daemon is down, and
// returns their bodies by id.
func takeRest(e engine, tube string) (map[string]string, error) {
	return takeAll(e, "jobs", tube, client.takeRest)
}

// takeBuried takes every buried job of a tube out of the queue: bodies by id.
func takeBuried(e engine, tube string) (map[string]string, error) {
	return takeAll(e, "buried jobs", tube, client.takeBuried)
}

func takeAll(e engine, what, tube string, take func(c client, tube string, limit int) (map[string]string, error)) (map[string]string, error) {
	const batch = 1000 // well within askTimeout
	c, err := e.dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	all := make(map[string]string)
	for {
		some, err := take(c, tube, batch)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", what, tube, err)
		}
		if len(some) == 0 {
			return all, nil
		}
		maps.Copy(all, some)
	}
}
