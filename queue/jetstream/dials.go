package jetstream

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"propeller/internal/neterr"
)

// nats.go connects again by itself and does not tell why a server cannot be reached, nor
// who answers there if that is none. So it is noted what its dials meet.

const (
	// failureAge is when a failure is not of account any more: names get other addresses.
	failureAge = time.Minute
	// maxTold is how many servers are told of.
	maxTold = 3
)

// dialError is an error that dials knows of.
type dialError struct{ error }

// dials is what attempts to connect have met since there was a connection.
type dials struct {
	mu     sync.Mutex
	failed map[string]failure // by server
	last   string             // the server that was reached last
}

type failure struct {
	at  time.Time
	err error
}

func (d *dials) fail(addr string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil {
		d.failed = make(map[string]failure)
	}
	d.failed[addr] = failure{time.Now(), ofServer(addr, err)}
}

// reach notes a server that answers; it may still not let us in.
func (d *dials) reach(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = addr
}

// done notes that there is a connection, to the server it returns.
func (d *dials) done() (server string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.failed)
	return d.last
}

// why is why servers cannot be reached, nil when nothing is known of any.
func (d *dials) why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.failed, func(_ string, f failure) bool { return time.Since(f.at) > failureAge })
	addrs := slices.Sorted(maps.Keys(d.failed))
	if len(addrs) == 0 {
		return nil
	}
	var errs []error
	for _, a := range addrs[:min(len(addrs), maxTold)] {
		errs = append(errs, d.failed[a].err)
	}
	if more := len(addrs) - maxTold; more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return neterr.Join(errs...)
}

// reached is the server that was reached last.
func (d *dials) reached() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}
