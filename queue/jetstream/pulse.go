package jetstream

import (
	"sync"
	"time"
)

// pulse shows that this process has stood still: frozen, or on a machine that was. Jobs have
// lain in its socket meanwhile, and nothing in them says for how long. By now the server may
// have served them to somebody else, and it takes a late acknowledgement in silence.
type pulse struct {
	mu    sync.Mutex
	last  time.Time // the keeper's last beat
	until time.Time // what comes until then may have lain here
}

// drainTime is how long it takes at most to read what has lain in the socket.
const drainTime = 5 * time.Second

// beat is called by the keeper at least once a second.
func (p *pulse) beat(now time.Time, ackWait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seeLocked(now, ackWait)
	p.last = now
}

// stoodStill says whether a job that comes now may have lain here until its reservation ended.
func (p *pulse) stoodStill(now time.Time, ackWait time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seeLocked(now, ackWait)
	return now.Before(p.until)
}

func (p *pulse) seeLocked(now time.Time, ackWait time.Duration) {
	if !p.last.IsZero() && now.Sub(p.last) > ackWait/2 {
		p.until = now.Add(drainTime)
	}
}
