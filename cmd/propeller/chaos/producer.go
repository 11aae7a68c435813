package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	gobeanstalk "github.com/beanstalkd/go-beanstalk"
)

// kind is what a job is made to become.
type kind string

const (
	plain     kind = "plain"
	delayed   kind = "delayed"
	timed     kind = "ttl"        // may expire
	dated     kind = "expiration" // may expire
	dead      kind = "dead token" // its token is answered 410
	bad       kind = "bad push"   // answered 400: is buried
	misspelt  kind = "unknown key"
	malformed kind = "not JSON"
)

// fit says that nothing is wrong with jobs of this kind.
func (k kind) fit() bool { return k == plain || k == delayed || k == timed || k == dated }

// mayExpire says that the daemon may drop jobs of this kind unsent.
func (k kind) mayExpire() bool { return k == timed || k == dated }

// job is a job as its producer knows it.
type job struct {
	n      uint32 // its number; its token begins with it
	app    int    // index in apps
	kind   kind
	id     uint64 // the queue's; 0 when the put got no answer: it may have been stored or not
	at     time.Time
	stored bool // the queue has said so
}

// ledger holds every job that was put.
type ledger struct {
	limit int

	mu   sync.Mutex
	jobs []job // by number
}

// add numbers a new job. It reports false when the ledger is full.
func (l *ledger) add(app int, k kind) (n uint32, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.jobs) >= l.limit {
		return 0, false
	}
	n = uint32(len(l.jobs))
	l.jobs = append(l.jobs, job{n: n, app: app, kind: k, at: time.Now()})
	return n, true
}

func (l *ledger) accepted(n uint32, id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs[n].id, l.jobs[n].stored = id, true
}

// ttr is the time to run of the jobs: what docs/operations.md asks for.
const ttr = 60 * time.Second

// producer puts jobs of one app, one after another.
type producer struct {
	at     *site
	app    int
	rng    *rand.Rand
	ledger *ledger
	every  time.Duration // mean pause between two jobs

	nc   net.Conn
	conn *gobeanstalk.Conn
}

func (p *producer) run(ctx context.Context) {
	defer p.drop()
	for ctx.Err() == nil {
		// Bursts: sometimes nothing, sometimes a hundred at once.
		burst := 1
		if p.rng.IntN(200) == 0 {
			burst = 100
		}
		for range burst {
			if !p.putOne(ctx) {
				return
			}
		}
		sleep(ctx, time.Duration(p.rng.Int64N(int64(2*p.every)*int64(burst))))
	}
}

// putOne puts one job. It reports false when no more can be put.
func (p *producer) putOne(ctx context.Context) bool {
	if p.conn == nil && !p.dial(ctx) {
		return true
	}
	k := p.kind()
	n, ok := p.ledger.add(p.app, k)
	if !ok {
		return false
	}
	body, delay := p.job(n, k)
	// A frozen server answers once it is thawed; past this the job is one that
	// may have been stored.
	err := p.nc.SetDeadline(time.Now().Add(askTimeout))
	if err == nil {
		var id uint64
		id, err = gobeanstalk.NewTube(p.conn, apps()[p.app].tube).Put(body, 1024, delay, ttr)
		if err == nil {
			p.ledger.accepted(n, id)
			return true
		}
	}
	p.drop()
	return true
}

func (p *producer) dial(ctx context.Context) bool {
	nc, err := net.DialTimeout("tcp", p.at.queueAddr, time.Second)
	if err != nil {
		sleep(ctx, 50*time.Millisecond)
		return false
	}
	p.nc, p.conn = nc, gobeanstalk.NewConn(nc)
	return true
}

func (p *producer) drop() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

func (p *producer) kind() kind {
	switch n := p.rng.IntN(100); {
	case n < 70:
		return plain
	case n < 85:
		return delayed
	case n < 89:
		return timed
	case n < 93:
		return dated
	case n < 95:
		return dead
	case n < 96:
		return bad
	case n < 98:
		return misspelt
	default:
		return malformed
	}
}

// token is the device token of job n. It ends in what the APNs side knows.
func token(n uint32, k kind) string {
	end := "5afe"
	switch k {
	case dead:
		end = deadEnd
	case bad:
		end = badEnd
	}
	return fmt.Sprintf("%08x%052x%s", n, 0, end)
}

// job writes job n.
func (p *producer) job(n uint32, k kind) (body []byte, delay time.Duration) {
	if k == malformed {
		return fmt.Appendf(nil, "number %d is no JSON", n), 0
	}
	j := map[string]any{"token": token(n, k), "title": fmt.Sprintf("push %d", n)}
	if p.rng.IntN(2) == 0 {
		j["ref"] = fmt.Sprintf("number %d", n)
	}
	if p.rng.IntN(10) == 0 {
		j["id"] = fmt.Sprintf("%08x-0000-4000-8000-%012x", p.rng.Uint32(), n)
	}
	switch k {
	case delayed:
		delay = time.Duration(1+p.rng.IntN(4)) * time.Second
	case timed:
		j["ttl"] = 1 + p.rng.IntN(30)
	case dated:
		j["expiration"] = time.Now().Unix() + 1 + int64(p.rng.IntN(30))
	case misspelt:
		j["tilte"] = "x"
	}
	body, err := json.Marshal(j)
	if err != nil { // strings and numbers
		panic(err)
	}
	return body, delay
}
